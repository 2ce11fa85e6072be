//! Google's Gemini.

use std::time::Duration;

use serde_json::json;

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        DialectKind::Gemini,
        "gemini",
        &[
            ("whole.sse", "Hello, wörld!", Ok(FinishReason::Stop)),
            ("thoughts.sse", "Hello", Ok(FinishReason::Stop)),
            ("truncated.sse", "Hello", Err(FaultKind::Truncated)),
            ("missing_parts.sse", "Hello", Ok(FinishReason::Stop)),
            ("max_tokens.sse", "Hello, and", Ok(FinishReason::Length)),
            ("max_tokens_without_text.sse", "", Err(FaultKind::Empty)),
            ("safety.sse", "Take", Ok(FinishReason::ContentFilter)),
            ("prompt_blocked.sse", "", Ok(FinishReason::ContentFilter)),
            ("empty_stop.sse", "", Err(FaultKind::Empty)),
            ("other.sse", "Hel", Err(FaultKind::ServerError)),
            ("account_disabled.sse", "", Err(FaultKind::Unauthorized)),
            ("unknown_finish.sse", "Hello", Ok(FinishReason::Stop)),
            (
                "raw_error_after_stop.sse",
                "Hel",
                Err(FaultKind::Overloaded),
            ),
            (
                "raw_error_with_braces.sse",
                "Hel",
                Err(FaultKind::ServerError),
            ),
            ("error_event.sse", "Hel", Err(FaultKind::RateLimited)),
            ("error_in_array.sse", "", Err(FaultKind::Overloaded)),
            ("rubbish.sse", "Hel", Err(FaultKind::Malformed)),
            ("whole.json", "Hello, world", Ok(FinishReason::Stop)),
            ("whole_array.json", "Hello, world", Ok(FinishReason::Stop)),
            ("error_200.json", "", Err(FaultKind::Unauthorized)),
        ],
    );
    check_truncation(DialectKind::Gemini, "gemini", "whole.sse", 2);
}

#[test]
fn thoughts_count_as_progress_and_as_output_tokens() {
    let answer = decode_fixture(DialectKind::Gemini, "gemini", "thoughts.sse");
    let usage = answer.usage.unwrap();
    assert!(answer.has_thinking);
    assert_eq!((usage.input_tokens, usage.output_tokens), (4, 35));
    assert!(!decode_fixture(DialectKind::Gemini, "gemini", "whole.sse").has_thinking);
}

#[test]
fn missing_count_keeps_the_earlier_one() {
    let answer = decode_fixture(DialectKind::Gemini, "gemini", "missing_parts.sse");
    assert_eq!(answer.usage.unwrap().input_tokens, 4);
}

#[test]
fn error_event_carries_retry_after() {
    let answer = decode_fixture(DialectKind::Gemini, "gemini", "error_event.sse");
    let failure = answer.result.unwrap_err();
    assert_eq!(failure.retry_after, Some(Duration::from_millis(7_500)));
}

fn error(code: u16, status: &str, message: &str, details: Value) -> String {
    json!({"error": {"code": code, "message": message, "status": status, "details": details}})
        .to_string()
}

#[test]
fn errors_are_classified() {
    let reason = |reason| json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]);
    let none = || json!([]);
    for (code, status, message, details, fault) in [
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            reason("API_KEY_INVALID"),
            FaultKind::Unauthorized,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            none(),
            FaultKind::Unauthorized,
        ),
        (
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            none(),
            FaultKind::Unauthorized,
        ),
        (
            400,
            "FAILED_PRECONDITION",
            "Please enable billing on your project.",
            none(),
            FaultKind::QuotaSpent,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            none(),
            FaultKind::TooLong,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "Requests ending with a model turn are not supported",
            none(),
            FaultKind::BadRequest,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "Invalid value at 'contents'",
            none(),
            FaultKind::BadRequest,
        ),
        (401, "UNAUTHENTICATED", "x", none(), FaultKind::Unauthorized),
        (
            403,
            "PERMISSION_DENIED",
            "x",
            reason("SERVICE_DISABLED"),
            FaultKind::Unauthorized,
        ),
        (
            404,
            "NOT_FOUND",
            "models/x is not found for API version v1beta",
            none(),
            FaultKind::Misconfigured,
        ),
        (408, "x", "x", none(), FaultKind::ServerError),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "Resource has been exhausted",
            none(),
            FaultKind::RateLimited,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "Your prepayment credits are depleted.",
            none(),
            FaultKind::QuotaSpent,
        ),
        (499, "CANCELLED", "x", none(), FaultKind::ServerError),
        (500, "INTERNAL", "x", none(), FaultKind::ServerError),
        (502, "x", "x", none(), FaultKind::ServerError),
        (
            503,
            "UNAVAILABLE",
            "The model is overloaded.",
            none(),
            FaultKind::Overloaded,
        ),
        (
            504,
            "DEADLINE_EXCEEDED",
            "x",
            none(),
            FaultKind::ServerError,
        ),
    ] {
        let body = error(code, status, message, details);
        check_errors(
            DialectKind::Gemini,
            &[(code, &body, fault), (code, &format!("[{body}]"), fault)],
        );
        // Inside a stream the code and the status word give the same fault.
        let mut reader = dialect(DialectKind::Gemini).decoder();
        let failure = reader
            .decode("message", &body, &mut Vec::new())
            .unwrap_err();
        assert_eq!(failure.fault, fault, "{body}");
    }
}

#[test]
fn exhausted_quota_kind_decides_the_fault() {
    let wait = Some(Duration::from_secs(58));
    for (id, value, fault) in [
        (
            "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "15",
            FaultKind::RateLimited,
        ),
        (
            "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            "50",
            FaultKind::QuotaSpent,
        ),
        (
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
            "0",
            FaultKind::QuotaSpent,
        ),
    ] {
        let details = json!([
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "m", "quotaId": id, "quotaValue": value}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "58s"},
        ]);
        let body = error(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota",
            details,
        );
        let failure = classify(DialectKind::Gemini, 429, &[], &body);
        assert_eq!((failure.fault, failure.retry_after), (fault, wait), "{id}");
    }
}

#[test]
fn request_matches_the_vendor_format() {
    let mut model = model();
    model.temperature = Some(0.5);
    let call = new_dialect(DialectKind::Gemini, model.clone()).chat_request(&ask());
    assert_eq!(
        call.path,
        "/v1beta/models/some-model:streamGenerateContent?alt=sse"
    );
    assert_eq!(header(&call, "x-goog-api-key"), Some(KEY));
    let wanted = json!({
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello"}]},
            {"role": "user", "parts": [{"text": "How are you?"}]},
        ],
        "generationConfig": {"maxOutputTokens": 64, "temperature": 0.5},
    });
    assert_eq!(body(&call), wanted);
    let plain = ChatRequest {
        system: "".into(),
        ..ask()
    };
    assert!(
        body(&dialect(DialectKind::Gemini).chat_request(&plain))
            .get("systemInstruction")
            .is_none()
    );

    model.api_version = "v1".into();
    model.name = "tunedModels/my one?".into();
    let dialect = new_dialect(DialectKind::Gemini, model);
    let path = dialect.chat_request(&ask()).path;
    assert_eq!(
        path,
        "/v1/tunedModels/my%20one%3F:streamGenerateContent?alt=sse"
    );
    assert_eq!(dialect.list_models_request().path, "/v1/models?pageSize=1");
}
