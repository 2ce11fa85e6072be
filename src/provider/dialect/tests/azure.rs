//! OpenAI's models at Azure.

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        Kind::Azure,
        "azure",
        &[
            ("whole.sse", "Hello, world", Ok(Finish::Stop)),
            ("late_annotations.sse", "Hello", Ok(Finish::Stop)),
            ("filter_down.sse", "Hello", Ok(Finish::Stop)),
            ("filtered_output.sse", "Take the", Ok(Finish::ContentFilter)),
            ("truncated.sse", "Hello", Err(Fault::Truncated)),
            ("gateway_error_200.json", "", Err(Fault::Unauthorized)),
        ],
    );
    check_truncation(Kind::Azure, "azure", "whole.sse", 4);
}

#[test]
fn errors_are_classified() {
    check_errors(
        Kind::Azure,
        &[
            (
                400,
                r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{}}}}"#,
                Fault::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"Filtered","type":null,"param":"prompt","code":"400","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                Fault::Policy,
            ),
            (
                400,
                r#"{"error":{"message":"x","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                Fault::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid","code":"BadRequest"}}"#,
                Fault::BadRequest,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"Access denied due to invalid subscription key"}"#,
                Fault::Unauthorized,
            ),
            (
                401,
                r#"{"error":{"code":"401","message":"Access denied"}}"#,
                Fault::Unauthorized,
            ),
            (
                403,
                r#"{"error":{"code":"403","message":"Access denied due to Virtual Network rules"}}"#,
                Fault::Unauthorized,
            ),
            (
                404,
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
                Fault::Misconfigured,
            ),
            (
                404,
                r#"{"error":{"code":"404","message":"Resource not found"}}"#,
                Fault::Misconfigured,
            ),
            (
                408,
                r#"{"error":{"code":"Timeout","message":"The operation was timeout."}}"#,
                Fault::ServerError,
            ),
            (
                429,
                r#"{"error":{"code":"429","message":"Requests have exceeded the call rate limit. Please retry after 45 seconds."}}"#,
                Fault::RateLimited,
            ),
            (
                500,
                r#"{"error":{"code":"500","message":"Internal"}}"#,
                Fault::ServerError,
            ),
            (
                503,
                r#"{"error":{"code":"ServiceUnavailable","message":"Busy"}}"#,
                Fault::Overloaded,
            ),
        ],
    );
}

#[test]
fn path_follows_the_base_url() {
    let of_base = |base: &str, version: &str| {
        let mut model = model();
        model.base_url = base.into();
        model.model = "my deployment".into();
        model.api_version = version.into();
        let dialect = of(Kind::Azure, model);
        (dialect.request(&ask()), dialect.listing().path)
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
