//! Properties of the dialects that hold for any input.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// JSON with the members that the decoders read, of any type, in any place.
fn known_json() -> impl Strategy<Value = Value> {
    let words = [
        "stop",
        "error",
        "text_delta",
        "message",
        "message_stop",
        "message_delta",
        "STOP",
        "OTHER",
        "429",
        "58s",
        "",
        "a",
        "content_block_delta",
        "google.rpc.RetryInfo",
        "google.rpc.QuotaFailure",
        "-1",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let keys = vec![
        "choices",
        "delta",
        "message",
        "content",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "error",
        "code",
        "type",
        "status",
        "candidates",
        "parts",
        "text",
        "finishReason",
        "promptFeedback",
        "blockReason",
        "usageMetadata",
        "promptTokenCount",
        "done",
        "done_reason",
        "details",
        "violations",
        "@type",
        "retryDelay",
        "seconds",
        "nanos",
        "detail",
        "msg",
        "loc",
        "stop_reason",
        "content_block",
        "input_tokens",
        "output_tokens",
        "index",
        "refusal",
        "has_thinking",
        "statusCode",
        "param",
        "metadata",
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        let key = proptest::sample::select(keys.clone());
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..6).prop_map(|all| all
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

fn data() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("[DONE]".to_owned()),
        known_json().prop_map(|value| value.to_string()),
        known_json().prop_map(|value| json!({"choices": [{"delta": value}]}).to_string()),
        known_json().prop_map(|value| json!({"candidates": [value]}).to_string()),
        known_json().prop_map(|value| json!({"error": value}).to_string()),
    ]
}

fn kind() -> impl Strategy<Value = DialectKind> {
    proptest::sample::select(KINDS.to_vec())
}

proptest! {
    #[test]
    fn decoding_never_panics_or_emits_empty_text(
        kind in kind(),
        events in proptest::collection::vec(("message|error|[a-z_]{0,12}", data()), 0..8),
    ) {
        let dialect = dialect(kind);
        let mut reader = dialect.decoder();
        for (name, data) in events {
            let mut out = Vec::new();
            let was_ended = reader.is_finished();
            let read = reader.decode(&name, &data, &mut out);
            if was_ended {
                prop_assert!(reader.is_finished() && read.is_ok() && out.is_empty());
            }
            for step in out {
                prop_assert!(!matches!(step, StreamEvent::Finished(_)));
                prop_assert!(step != StreamEvent::Text(String::new()));
            }
            if let Err(failure) = read {
                prop_assert!(failure.detail.chars().count() <= 300);
                prop_assert!(failure.retry_after <= Some(Duration::from_secs(86_400)));
                return Ok(());
            }
        }
        let _ = reader.finish_result();
    }

    #[test]
    fn classification_never_panics_or_waits_longer_than_a_day(
        kind in kind(),
        status in any::<u16>(),
        value in prop_oneof![any::<String>(), "-?[0-9]{1,40}(\\.[0-9]{1,3})?(e[0-9]{1,3})?[a-z]{0,2}"],
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            data().prop_map(String::into_bytes),
        ],
    ) {
        let dialect = dialect(kind);
        let response = ErrorResponse { status, header: &|_| Some(value.clone()), body: &body, now: Timestamp(1_767_225_600_000) };
        let failure = dialect.classify_error(&response);
        prop_assert_eq!(failure.status, Some(status));
        prop_assert!(failure.detail.chars().count() <= 300);
        prop_assert!(failure.retry_after <= Some(Duration::from_secs(86_400)));
        dialect.adapt_to_rejection(&dialect.chat_request(&ask()), &response);
        prop_assert!(is_complete_request(&dialect.chat_request(&ask())));
    }

    #[test]
    fn keys_are_always_redacted(kind in kind(), key in "[A-Za-z0-9+/=_.-]{8,40}", before in ".{0,20}", after in ".{0,20}") {
        let dialect = new_dialect(kind, ModelConfig { key: Some(key.clone().into()), ..ModelConfig::default() });
        let error = json!({"error": {"message": format!("{before}{key}{after}")}}).to_string();
        let response = ErrorResponse { status: 401, header: &|_| None, body: error.as_bytes(), now: Timestamp(0) };
        prop_assert!(!dialect.classify_error(&response).detail.contains(&key));
    }
}

#[test]
fn deeply_nested_json_is_malformed() {
    let deep = "[".repeat(100_000);
    let object = format!("{}1{}", r#"{"error":"#.repeat(1_000), "}".repeat(1_000));
    for kind in KINDS {
        for data in [&deep, &object] {
            let read = dialect(kind)
                .decoder()
                .decode("message", data, &mut Vec::new());
            assert_eq!(read.unwrap_err().fault, FaultKind::Malformed);
            assert_eq!(classify(kind, 500, &[], data).fault, FaultKind::ServerError);
        }
    }
}

/// `true` if the request has messages and a token limit, whatever was adapted.
fn is_complete_request(call: &ProviderRequest) -> bool {
    let body = body(call);
    let options = body
        .get("options")
        .or(body.get("generationConfig"))
        .unwrap_or(&body);
    let limits = [
        "max_tokens",
        "max_completion_tokens",
        "num_predict",
        "maxOutputTokens",
    ];
    (body.get("messages").is_some() || body.get("contents").is_some())
        && limits.iter().any(|limit| options.get(limit).is_some())
}
