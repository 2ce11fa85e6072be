//! Anthropic's messages.

use serde_json::json;

use super::*;

#[test]
fn fixtures_decode_as_expected() {
    check_fixtures(
        Kind::Anthropic,
        "anthropic",
        &[
            ("whole.sse", "Hello, wörld", Ok(Finish::Stop)),
            ("stop_reason_without_stop.sse", "Hello", Ok(Finish::Stop)),
            ("stop_without_reason.sse", "Hello", Err(Fault::Truncated)),
            ("truncated.sse", "Hello, w", Err(Fault::Truncated)),
            ("thinking.sse", "Hello", Ok(Finish::Stop)),
            ("tool_use.sse", "I look.", Ok(Finish::Stop)),
            ("max_tokens.sse", "Hello, and", Ok(Finish::Length)),
            ("refusal.sse", "Well", Ok(Finish::ContentFilter)),
            ("refusal_without_text.sse", "", Ok(Finish::ContentFilter)),
            ("empty.sse", "", Err(Fault::Empty)),
            ("unknown_events.sse", "Hello", Ok(Finish::Stop)),
            ("overloaded.sse", "Hello", Err(Fault::Overloaded)),
            ("error_first.sse", "", Err(Fault::RateLimited)),
            ("rubbish.sse", "Hello", Err(Fault::Malformed)),
            ("whole.json", "Hello, world", Ok(Finish::Stop)),
            ("error_200.json", "", Err(Fault::ServerError)),
        ],
    );
    check_truncation(Kind::Anthropic, "anthropic", "whole.sse", 7);
}

#[test]
fn usage_includes_cache_tokens_and_keeps_omitted_counts() {
    let usage = |file| {
        let usage = decode_fixture(Kind::Anthropic, "anthropic", file)
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
            decode_fixture(Kind::Anthropic, "anthropic", file).has_thinking,
            has_thinking,
            "{file}"
        );
    }
}

#[test]
fn error_event_is_classified_by_type() {
    for (kind, fault) in [
        ("overloaded_error", Fault::Overloaded),
        ("api_error", Fault::ServerError),
        ("timeout_error", Fault::ServerError),
        ("rate_limit_error", Fault::RateLimited),
        ("authentication_error", Fault::Unauthorized),
        ("permission_error", Fault::Unauthorized),
        ("billing_error", Fault::QuotaSpent),
        ("not_found_error", Fault::Misconfigured),
        ("request_too_large", Fault::TooLong),
        ("invalid_request_error", Fault::BadRequest),
        ("new_error", Fault::ServerError),
    ] {
        let data = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"x"}}}}"#);
        for name in ["error", "message"] {
            let mut reader = dialect(Kind::Anthropic).reader();
            let failure = reader.event(name, &data, &mut Vec::new()).unwrap_err();
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
            Fault::TooLong,
        ),
        (
            400,
            invalid,
            None,
            "Your credit balance is too low to access the Anthropic API.",
            Fault::QuotaSpent,
        ),
        (
            400,
            invalid,
            None,
            "You have reached your specified API usage limits.",
            Fault::QuotaSpent,
        ),
        (
            400,
            invalid,
            None,
            "You have reached your specified workspace API usage limits.",
            Fault::QuotaSpent,
        ),
        (
            400,
            invalid,
            Some("organization_on_hold"),
            "x",
            Fault::QuotaSpent,
        ),
        (
            400,
            invalid,
            None,
            "messages: text content blocks must be non-empty",
            Fault::BadRequest,
        ),
        (
            400,
            invalid,
            None,
            "This model does not support assistant message prefill.",
            Fault::BadRequest,
        ),
        (
            401,
            "authentication_error",
            None,
            "invalid x-api-key",
            Fault::Unauthorized,
        ),
        (402, "billing_error", None, "x", Fault::QuotaSpent),
        (
            403,
            "permission_error",
            Some("linked_organization_suspended"),
            "x",
            Fault::QuotaSpent,
        ),
        (403, "permission_error", None, "x", Fault::Unauthorized),
        (
            404,
            "not_found_error",
            None,
            "model: claude-0",
            Fault::Misconfigured,
        ),
        (408, "timeout_error", None, "x", Fault::ServerError),
        (409, "conflict_error", None, "x", Fault::ServerError),
        (413, "request_too_large", None, "x", Fault::TooLong),
        (
            429,
            "rate_limit_error",
            None,
            "Number of input tokens has exceeded; too many tokens",
            Fault::RateLimited,
        ),
        (
            429,
            "rate_limit_error",
            Some("ramp_limit_exceeded"),
            "x",
            Fault::RateLimited,
        ),
        (
            429,
            "rate_limit_error",
            Some("enforced_spend_limit_reached"),
            "x",
            Fault::QuotaSpent,
        ),
        (
            429,
            "rate_limit_error",
            Some("contract_spend_limit_reached"),
            "x",
            Fault::QuotaSpent,
        ),
        (
            500,
            "api_error",
            None,
            "Internal server error",
            Fault::ServerError,
        ),
        (503, "api_error", None, "x", Fault::Overloaded),
        (504, "timeout_error", None, "x", Fault::ServerError),
        (
            529,
            "overloaded_error",
            None,
            "Overloaded",
            Fault::Overloaded,
        ),
    ] {
        check_errors(
            Kind::Anthropic,
            &[(status, &error(kind, code, message), fault)],
        );
    }
}

#[test]
fn request_matches_the_vendor_format() {
    let mut model = model();
    model.temperature = Some(0.5);
    let call = of(Kind::Anthropic, model.clone()).request(&ask());
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
    assert_eq!(dialect(Kind::Anthropic).listing().path, "/v1/models");

    model.api_version = "2026-10-21".into();
    let newer = of(Kind::Anthropic, model).request(&ask());
    assert_eq!(
        header(&newer, "authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert_eq!(header(&newer, "x-api-key"), None);
    assert!(body(&newer).get("temperature").is_none());
}
