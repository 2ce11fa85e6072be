//! Anthropic's messages.

use serde_json::json;

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        DialectKind::Anthropic,
        "anthropic",
        &[
            ("whole.sse", "Hello, wörld", Ok(FinishReason::Stop)),
            (
                "stop_reason_without_stop.sse",
                "Hello",
                Ok(FinishReason::Stop),
            ),
            (
                "stop_without_reason.sse",
                "Hello",
                Err(FaultKind::Truncated),
            ),
            ("truncated.sse", "Hello, w", Err(FaultKind::Truncated)),
            ("thinking.sse", "Hello", Ok(FinishReason::Stop)),
            ("tool_use.sse", "I look.", Ok(FinishReason::Stop)),
            ("max_tokens.sse", "Hello, and", Ok(FinishReason::Length)),
            ("refusal.sse", "Well", Ok(FinishReason::ContentFilter)),
            (
                "refusal_without_text.sse",
                "",
                Ok(FinishReason::ContentFilter),
            ),
            ("empty.sse", "", Err(FaultKind::Empty)),
            ("unknown_events.sse", "Hello", Ok(FinishReason::Stop)),
            ("overloaded.sse", "Hello", Err(FaultKind::Overloaded)),
            ("error_first.sse", "", Err(FaultKind::RateLimited)),
            ("rubbish.sse", "Hello", Err(FaultKind::Malformed)),
            ("whole.json", "Hello, world", Ok(FinishReason::Stop)),
            ("error_200.json", "", Err(FaultKind::ServerError)),
        ],
    );
    check_truncation(DialectKind::Anthropic, "anthropic", "whole.sse", 7);
}

#[test]
fn usage_includes_cache_tokens_and_keeps_omitted_counts() {
    let usage = |file| {
        let usage = decode_fixture(DialectKind::Anthropic, "anthropic", file)
            .usage
            .unwrap();
        (usage.input_tokens, usage.output_tokens)
    };
    assert_eq!(usage("whole.sse"), (130, 15));
    assert_eq!(usage("truncated.sse"), (130, 1));
    assert_eq!(usage("whole.json"), (10, 5));
}

#[test]
fn thinking_and_tool_calls_count_as_progress() {
    for (file, has_thinking) in [
        ("thinking.sse", true),
        ("tool_use.sse", true),
        ("whole.sse", false),
    ] {
        assert_eq!(
            decode_fixture(DialectKind::Anthropic, "anthropic", file).has_thinking,
            has_thinking,
            "{file}"
        );
    }
}

#[test]
fn error_event_is_classified_by_type() {
    for (kind, fault) in [
        ("overloaded_error", FaultKind::Overloaded),
        ("api_error", FaultKind::ServerError),
        ("timeout_error", FaultKind::ServerError),
        ("rate_limit_error", FaultKind::RateLimited),
        ("authentication_error", FaultKind::Unauthorized),
        ("permission_error", FaultKind::Unauthorized),
        ("billing_error", FaultKind::QuotaSpent),
        ("not_found_error", FaultKind::Misconfigured),
        ("request_too_large", FaultKind::TooLong),
        ("invalid_request_error", FaultKind::BadRequest),
        ("new_error", FaultKind::ServerError),
    ] {
        let data = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"x"}}}}"#);
        for name in ["error", "message"] {
            let mut reader = dialect(DialectKind::Anthropic).decoder();
            let failure = reader.decode(name, &data, &mut Vec::new()).unwrap_err();
            assert_eq!((failure.fault, failure.status), (fault, None), "{kind}");
        }
    }
}

#[test]
fn errors_are_classified() {
    let error = |kind: &str, code: Option<&str>, message: &str| {
        let details = code.map(|code| json!({"error_code": code}));
        json!({"type": "error", "error": {"type": kind, "message": message, "details": details}, "request_id": "r"})
            .to_string()
    };
    let invalid = "invalid_request_error";
    for (status, kind, code, message, fault) in [
        (
            400,
            invalid,
            None,
            "prompt is too long: 210000 tokens > 200000 maximum",
            FaultKind::TooLong,
        ),
        (
            400,
            invalid,
            None,
            "Your credit balance is too low to access the Anthropic API.",
            FaultKind::QuotaSpent,
        ),
        (
            400,
            invalid,
            None,
            "You have reached your specified API usage limits.",
            FaultKind::QuotaSpent,
        ),
        (
            400,
            invalid,
            None,
            "You have reached your specified workspace API usage limits.",
            FaultKind::QuotaSpent,
        ),
        (
            400,
            invalid,
            Some("organization_on_hold"),
            "x",
            FaultKind::QuotaSpent,
        ),
        (
            400,
            invalid,
            None,
            "messages: text content blocks must be non-empty",
            FaultKind::BadRequest,
        ),
        (
            400,
            invalid,
            None,
            "This model does not support assistant message prefill.",
            FaultKind::BadRequest,
        ),
        (
            401,
            "authentication_error",
            None,
            "invalid x-api-key",
            FaultKind::Unauthorized,
        ),
        (402, "billing_error", None, "x", FaultKind::QuotaSpent),
        (
            403,
            "permission_error",
            Some("linked_organization_suspended"),
            "x",
            FaultKind::QuotaSpent,
        ),
        (403, "permission_error", None, "x", FaultKind::Unauthorized),
        (
            404,
            "not_found_error",
            None,
            "model: claude-0",
            FaultKind::Misconfigured,
        ),
        (408, "timeout_error", None, "x", FaultKind::ServerError),
        (409, "conflict_error", None, "x", FaultKind::ServerError),
        (413, "request_too_large", None, "x", FaultKind::TooLong),
        (
            429,
            "rate_limit_error",
            None,
            "Number of input tokens has exceeded; too many tokens",
            FaultKind::RateLimited,
        ),
        (
            429,
            "rate_limit_error",
            Some("ramp_limit_exceeded"),
            "x",
            FaultKind::RateLimited,
        ),
        (
            429,
            "rate_limit_error",
            Some("enforced_spend_limit_reached"),
            "x",
            FaultKind::QuotaSpent,
        ),
        (
            429,
            "rate_limit_error",
            Some("contract_spend_limit_reached"),
            "x",
            FaultKind::QuotaSpent,
        ),
        (
            500,
            "api_error",
            None,
            "Internal server error",
            FaultKind::ServerError,
        ),
        (503, "api_error", None, "x", FaultKind::Overloaded),
        (504, "timeout_error", None, "x", FaultKind::ServerError),
        (
            529,
            "overloaded_error",
            None,
            "Overloaded",
            FaultKind::Overloaded,
        ),
    ] {
        check_errors(
            DialectKind::Anthropic,
            &[(status, &error(kind, code, message), fault)],
        );
    }
}

#[test]
fn request_matches_the_vendor_format() {
    let mut model = model();
    model.temperature = Some(0.5);
    let call = new_dialect(DialectKind::Anthropic, model.clone()).chat_request(&ask());
    assert_eq!(call.path, "/v1/messages");
    assert_eq!(header(&call, "x-api-key"), Some(KEY));
    assert_eq!(header(&call, "anthropic-version"), Some("2023-06-01"));
    assert_eq!(header(&call, "authorization"), None);
    let wanted = json!({
        "model": "some-model",
        "max_tokens": 64,
        "system": "Be kind.",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "How are you?"},
        ],
        "stream": true,
        "temperature": 0.5,
    });
    assert_eq!(body(&call), wanted);
    assert_eq!(
        dialect(DialectKind::Anthropic).list_models_request().path,
        "/v1/models"
    );

    model.api_version = "2026-10-21".into();
    let newer = new_dialect(DialectKind::Anthropic, model).chat_request(&ask());
    assert_eq!(
        header(&newer, "authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert_eq!(header(&newer, "x-api-key"), None);
    assert!(body(&newer).get("temperature").is_none());
}
