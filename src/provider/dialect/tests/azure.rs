//! OpenAI's models at Azure.

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        DialectKind::Azure,
        "azure",
        &[
            ("whole.sse", "Hello, world", Ok(FinishReason::Stop)),
            ("late_annotations.sse", "Hello", Ok(FinishReason::Stop)),
            ("filter_down.sse", "Hello", Ok(FinishReason::Stop)),
            (
                "filtered_output.sse",
                "Take the",
                Ok(FinishReason::ContentFilter),
            ),
            ("truncated.sse", "Hello", Err(FaultKind::Truncated)),
            ("gateway_error_200.json", "", Err(FaultKind::Unauthorized)),
        ],
    );
    check_truncation(DialectKind::Azure, "azure", "whole.sse", 4);
}

#[test]
fn errors_are_classified() {
    check_errors(
        DialectKind::Azure,
        &[
            (
                400,
                r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{}}}}"#,
                FaultKind::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"Filtered","type":null,"param":"prompt","code":"400","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                FaultKind::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"x","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                FaultKind::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid","code":"BadRequest"}}"#,
                FaultKind::BadRequest,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"Access denied due to invalid subscription key"}"#,
                FaultKind::Unauthorized,
            ),
            (
                401,
                r#"{"error":{"code":"401","message":"Access denied"}}"#,
                FaultKind::Unauthorized,
            ),
            (
                403,
                r#"{"error":{"code":"403","message":"Access denied due to Virtual Network rules"}}"#,
                FaultKind::Unauthorized,
            ),
            (
                404,
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
                FaultKind::Misconfigured,
            ),
            (
                404,
                r#"{"error":{"code":"404","message":"Resource not found"}}"#,
                FaultKind::Misconfigured,
            ),
            (
                408,
                r#"{"error":{"code":"Timeout","message":"The operation was timeout."}}"#,
                FaultKind::ServerError,
            ),
            (
                429,
                r#"{"error":{"code":"429","message":"Requests have exceeded the call rate limit. Please retry after 45 seconds."}}"#,
                FaultKind::RateLimited,
            ),
            (
                500,
                r#"{"error":{"code":"500","message":"Internal"}}"#,
                FaultKind::ServerError,
            ),
            (
                503,
                r#"{"error":{"code":"ServiceUnavailable","message":"Busy"}}"#,
                FaultKind::Overloaded,
            ),
        ],
    );
}

#[test]
fn path_follows_the_base_url() {
    let of_base = |base: &str, version: &str| {
        let mut model = model();
        model.base_url = base.into();
        model.name = "my deployment".into();
        model.api_version = version.into();
        let dialect = new_dialect(DialectKind::Azure, model);
        (
            dialect.chat_request(&ask()),
            dialect.list_models_request().path,
        )
    };
    let dated = "/deployments/my%20deployment/chat/completions?api-version=";
    let (call, listing) = of_base("https://r.openai.azure.com", "");
    assert_eq!(call.path, format!("/openai{dated}2024-10-21"));
    assert_eq!(listing, "/openai/models?api-version=2024-10-21");
    assert_eq!(header(&call, "api-key"), Some(KEY));
    assert_eq!(body(&call)["max_completion_tokens"], 64);
    let (call, _) = of_base("https://r.openai.azure.com/openai/", "2026-01-01");
    assert_eq!(call.path, format!("{dated}2026-01-01"));
    let (call, listing) = of_base("https://r.openai.azure.com/openai/v1/", "");
    assert_eq!(
        (call.path.as_str(), listing.as_str()),
        ("/chat/completions", "/models")
    );
    assert_eq!(body(&call)["model"], "my deployment");
}
