//! The meaning of each dialect's finish reasons.

use serde_json::json;

use super::*;

/// Returns how an answer "a" and an empty answer end with a finish reason, and whether the empty
/// one counted as progress.
fn ends(
    kind: DialectKind,
    events: impl Fn(&str) -> Vec<Value>,
) -> (
    Result<FinishReason, FaultKind>,
    Result<FinishReason, FaultKind>,
    bool,
) {
    let decoded = |text: &str| {
        let events: Vec<_> = events(text)
            .iter()
            .map(|event| ("message".to_owned(), event.to_string()))
            .collect();
        decode_events(dialect(kind).as_ref(), &events)
    };
    let with_text = decoded("a");
    let without_text = decoded("");
    let fault = |end: Result<FinishReason, Failure>| end.map_err(|failure| failure.fault);
    (
        fault(with_text.result),
        fault(without_text.result),
        without_text.has_thinking,
    )
}

const STOP: Result<FinishReason, FaultKind> = Ok(FinishReason::Stop);
const LENGTH: Result<FinishReason, FaultKind> = Ok(FinishReason::Length);
const FILTER: Result<FinishReason, FaultKind> = Ok(FinishReason::ContentFilter);

/// Checks each finish reason. Without text only a refusal is an answer. At the token limit an empty
/// answer counts as progress, because the model was thinking.
fn check_finish_reasons(
    kind: DialectKind,
    rows: &[(&str, Result<FinishReason, FaultKind>)],
    events: impl Fn(&str, &str) -> Vec<Value>,
) {
    for (reason, end) in rows {
        let (with_text, without_text, has_thinking) = ends(kind, |text| events(text, reason));
        assert_eq!(with_text, *end, "{kind:?} {reason}");
        let nothing = match end {
            Ok(FinishReason::Stop | FinishReason::Length) => Err(FaultKind::Empty),
            other => *other,
        };
        assert_eq!(
            (without_text, has_thinking),
            (nothing, *end == LENGTH),
            "{kind:?} {reason} without text"
        );
    }
}

#[test]
fn openai_and_azure_finish_reasons() {
    for kind in [DialectKind::OpenAi, DialectKind::Azure] {
        let rows = [
            ("stop", STOP),
            ("length", LENGTH),
            ("content_filter", FILTER),
            ("tool_calls", STOP),
            ("function_call", STOP),
            ("error", Err(FaultKind::ServerError)),
            ("new_one", STOP),
        ];
        check_finish_reasons(kind, &rows, |text, reason| {
            vec![
                json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}),
            ]
        });
    }
}

#[test]
fn anthropic_finish_reasons() {
    let rows = [
        ("end_turn", STOP),
        ("stop_sequence", STOP),
        ("tool_use", STOP),
        ("pause_turn", STOP),
        ("max_tokens", LENGTH),
        ("model_context_window_exceeded", LENGTH),
        ("refusal", FILTER),
        ("new_one", STOP),
    ];
    check_finish_reasons(DialectKind::Anthropic, &rows, |text, reason| {
        vec![
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
            json!({"type": "message_delta", "delta": {"stop_reason": reason}}),
            json!({"type": "message_stop"}),
        ]
    });
}

#[test]
fn gemini_finish_reasons() {
    let failed = Err(FaultKind::ServerError);
    let rows = [
        ("STOP", STOP),
        ("MAX_TOKENS", LENGTH),
        ("CONTINUATION", LENGTH),
        ("SAFETY", FILTER),
        ("RECITATION", FILTER),
        ("BLOCKLIST", FILTER),
        ("PROHIBITED_CONTENT", FILTER),
        ("SPII", FILTER),
        ("LANGUAGE", FILTER),
        ("IMAGE_SAFETY", FILTER),
        ("IMAGE_PROHIBITED_CONTENT", FILTER),
        ("MODEL_ARMOR", FILTER),
        ("ESCALATION", FILTER),
        ("PUP_LIMITED_DISABLED", Err(FaultKind::Unauthorized)),
        ("MALFORMED_FUNCTION_CALL", failed),
        ("UNEXPECTED_TOOL_CALL", failed),
        ("TOO_MANY_TOOL_CALLS", failed),
        ("MALFORMED_RESPONSE", failed),
        ("MISSING_THOUGHT_SIGNATURE", failed),
        ("OTHER", failed),
        ("FINISH_REASON_UNSPECIFIED", Err(FaultKind::Truncated)),
        ("NEW_ONE", STOP),
    ];
    check_finish_reasons(DialectKind::Gemini, &rows, |text, reason| {
        vec![
            json!({"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": reason}]}),
        ]
    });
}

#[test]
fn blocked_gemini_prompt_finishes_as_content_filter() {
    for reason in [
        "SAFETY",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "IMAGE_SAFETY",
        "MODEL_ARMOR",
        "JAILBREAK",
        "NEW_ONE",
    ] {
        let event = json!({"promptFeedback": {"blockReason": reason}}).to_string();
        let answer = decode_events(
            dialect(DialectKind::Gemini).as_ref(),
            &[("message".into(), event)],
        );
        assert_eq!(
            answer.result.map_err(|failure| failure.fault),
            FILTER,
            "{reason}"
        );
    }
}

#[test]
fn ollama_finish_reasons() {
    let rows = [
        ("stop", STOP),
        ("length", LENGTH),
        ("load", STOP),
        ("unload", STOP),
        ("", STOP),
        ("new_one", STOP),
    ];
    check_finish_reasons(DialectKind::Ollama, &rows, |text, reason| {
        vec![
            json!({"message": {"role": "assistant", "content": text}, "done": true, "done_reason": reason}),
        ]
    });
}
