//! What each dialect's reasons to finish mean, by table.

use serde_json::json;

use super::*;

/// How an answer ends that said "a" and gives this reason; and one that said nothing, whether it was progress.
fn ends(
    kind: Kind,
    events: impl Fn(&str) -> Vec<Value>,
) -> (Result<Finish, Fault>, Result<Finish, Fault>, bool) {
    let heard = |said: &str| {
        let events: Vec<_> = events(said)
            .iter()
            .map(|event| ("message".to_owned(), event.to_string()))
            .collect();
        read(dialect(kind).as_ref(), &events)
    };
    let (spoken, silent) = (heard("a"), heard(""));
    let fault = |end: Result<Finish, Failure>| end.map_err(|failure| failure.fault);
    (fault(spoken.verdict), fault(silent.verdict), silent.thought)
}

const STOP: Result<Finish, Fault> = Ok(Finish::Stop);
const LENGTH: Result<Finish, Fault> = Ok(Finish::Length);
const FILTER: Result<Finish, Fault> = Ok(Finish::ContentFilter);

/// Holds each reason against its meaning. Without text none of them is an answer but a refusal; at the limit of tokens the model has
/// thought, which proves that it is at work.
fn hold_reasons(
    kind: Kind,
    rows: &[(&str, Result<Finish, Fault>)],
    events: impl Fn(&str, &str) -> Vec<Value>,
) {
    for (reason, end) in rows {
        let (spoken, silent, thought) = ends(kind, |said| events(said, reason));
        assert_eq!(spoken, *end, "{kind:?} {reason}");
        let nothing = match end {
            Ok(Finish::Stop | Finish::Length) => Err(Fault::Empty),
            other => *other,
        };
        assert_eq!(
            (silent, thought),
            (nothing, *end == LENGTH),
            "{kind:?} {reason} without text"
        );
    }
}

#[test]
fn of_openai_and_azure() {
    for kind in [Kind::Openai, Kind::Azure] {
        let rows = [
            ("stop", STOP),
            ("length", LENGTH),
            ("content_filter", FILTER),
            ("tool_calls", STOP),
            ("function_call", STOP),
            ("error", Err(Fault::ServerError)),
            ("new_one", STOP),
        ];
        hold_reasons(kind, &rows, |said, reason| {
            vec![
                json!({"choices": [{"index": 0, "delta": {"content": said}, "finish_reason": reason}]}),
            ]
        });
    }
}

#[test]
fn of_anthropic() {
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
    hold_reasons(Kind::Anthropic, &rows, |said, reason| {
        vec![
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}}),
            json!({"type": "message_delta", "delta": {"stop_reason": reason}}),
            json!({"type": "message_stop"}),
        ]
    });
}

#[test]
fn of_gemini() {
    let failed = Err(Fault::ServerError);
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
        ("PUP_LIMITED_DISABLED", Err(Fault::Unauthorized)),
        ("MALFORMED_FUNCTION_CALL", failed),
        ("UNEXPECTED_TOOL_CALL", failed),
        ("TOO_MANY_TOOL_CALLS", failed),
        ("MALFORMED_RESPONSE", failed),
        ("MISSING_THOUGHT_SIGNATURE", failed),
        ("OTHER", failed),
        ("FINISH_REASON_UNSPECIFIED", Err(Fault::Truncated)),
        ("NEW_ONE", STOP),
    ];
    hold_reasons(Kind::Gemini, &rows, |said, reason| {
        vec![
            json!({"candidates": [{"content": {"parts": [{"text": said}]}, "finishReason": reason}]}),
        ]
    });
}

#[test]
fn a_question_that_gemini_blocks_is_refused() {
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
        let heard = read(dialect(Kind::Gemini).as_ref(), &[("message".into(), event)]);
        assert_eq!(
            heard.verdict.map_err(|failure| failure.fault),
            FILTER,
            "{reason}"
        );
    }
}

#[test]
fn of_ollama() {
    let rows = [
        ("stop", STOP),
        ("length", LENGTH),
        ("load", STOP),
        ("unload", STOP),
        ("", STOP),
        ("new_one", STOP),
    ];
    hold_reasons(Kind::Ollama, &rows, |said, reason| {
        vec![
            json!({"message": {"role": "assistant", "content": said}, "done": true, "done_reason": reason}),
        ]
    });
}
