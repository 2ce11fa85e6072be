//! Parameters that a server rejects are renamed or dropped, and remembered.

use super::*;

/// Rejects `sent` with `body`. Returns whether the dialect adapted, and its next request.
fn reject(
    dialect: &dyn Dialect,
    sent: &ProviderRequest,
    status: u16,
    rejection: &str,
) -> (bool, Value) {
    let response = ErrorResponse {
        status,
        header: &|_| None,
        body: rejection.as_bytes(),
        now: Timestamp(0),
    };
    let adapted = dialect.adapt_to_rejection(sent, &response);
    (adapted, body(&dialect.chat_request(&ask())))
}

#[test]
fn rejected_parameter_is_renamed_or_dropped_and_remembered() {
    let dialect = new_dialect(
        DialectKind::OpenAi,
        ModelConfig {
            temperature: Some(0.2),
            ..model()
        },
    );
    let first = dialect.chat_request(&ask());
    let no_max = r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#;
    let (adapted, next) = reject(dialect.as_ref(), &first, 400, no_max);
    assert!(adapted && next.get("max_tokens").is_none() && next["max_completion_tokens"] == 64);
    // A concurrent turn that sent the parameter may retry too. One that did not send it may not.
    assert!(reject(dialect.as_ref(), &first, 400, no_max).0);
    let second = dialect.chat_request(&ask());
    assert!(!reject(dialect.as_ref(), &second, 400, no_max).0);

    let no_temperature = r#"{"error":{"message":"Unsupported value: 'temperature' does not support 0.2 with this model.","type":"invalid_request_error","param":"temperature","code":"unsupported_value"}}"#;
    let (adapted, next) = reject(dialect.as_ref(), &second, 400, no_temperature);
    assert!(adapted && next.get("temperature").is_none());
    let no_options = r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#;
    let (adapted, next) = reject(
        dialect.as_ref(),
        &dialect.chat_request(&ask()),
        422,
        no_options,
    );
    assert!(adapted && next.get("stream_options").is_none());

    // The limit is never left out: rejected under both names, it stays.
    let neither =
        r#"{"error":{"message":"Unrecognized request argument supplied: max_completion_tokens"}}"#;
    let (adapted, next) = reject(
        dialect.as_ref(),
        &dialect.chat_request(&ask()),
        400,
        neither,
    );
    assert!(!adapted && next["max_tokens"] == 64);
}

#[test]
fn other_rejections_change_no_request() {
    for (status, rejection) in [
        (
            400,
            r#"{"error":{"message":"max_tokens is too large: 64","param":"max_tokens","code":"invalid_value"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Unsupported parameter: 'logprobs'","param":"logprobs","code":"unsupported_parameter"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"'max_tokens' is not supported: maximum context length is 10"}}"#,
        ),
        (
            500,
            r#"{"error":{"message":"Unsupported parameter: 'max_tokens'","param":"max_tokens"}}"#,
        ),
        (400, "Unsupported parameter: max_tokens"),
        (400, ""),
    ] {
        let dialect = dialect(DialectKind::OpenAi);
        let sent = dialect.chat_request(&ask());
        let before = body(&sent);
        assert_eq!(
            reject(dialect.as_ref(), &sent, status, rejection),
            (false, before),
            "{rejection}"
        );
    }
}

#[test]
fn azure_remembers_rejected_parameters() {
    let dialect = dialect(DialectKind::Azure);
    let sent = dialect.chat_request(&ask());
    let response = ErrorResponse {
        status: 400,
        header: &|_| None,
        body: br#"{"error":{"message":"Unrecognized request argument supplied: max_completion_tokens","type":"invalid_request_error","param":null,"code":null}}"#,
        now: Timestamp(0),
    };
    assert!(dialect.adapt_to_rejection(&sent, &response));
    assert_eq!(body(&dialect.chat_request(&ask()))["max_tokens"], 64);
}

#[test]
fn rejected_temperature_is_left_out() {
    let dialect = new_dialect(
        DialectKind::Anthropic,
        ModelConfig {
            temperature: Some(0.5),
            ..model()
        },
    );
    let sent = dialect.chat_request(&ask());
    let response = ErrorResponse {
        status: 400,
        header: &|_| None,
        body: br#"{"type":"error","error":{"type":"invalid_request_error","message":"`temperature` is deprecated for this model."}}"#,
        now: Timestamp(0),
    };
    assert!(dialect.adapt_to_rejection(&sent, &response));
    let next = dialect.chat_request(&ask());
    assert!(body(&next).get("temperature").is_none());
    assert!(!dialect.adapt_to_rejection(&next, &response));
}
