//! Anthropic messages: named events from `message_start` to `message_stop`. Pure.

use serde_json::{Value, json};

use super::heard::{Heard, limit};
use super::speak::{Refusal, Saying, Script, request_id};

pub(super) fn hear(body: &Value) -> Result<Heard, String> {
    let limit = limit(body.get("max_tokens")).ok_or("max_tokens: Field required")?;
    Ok(Heard {
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        limit: Some(limit),
        ..Heard::read(body)?
    })
}

pub(super) fn stream(spec: &Saying<'_>) -> Script {
    let start = message(spec, &json!([]), &Value::Null, 1);
    let opening = [
        event("message_start", json!({"message": start})),
        event(
            "content_block_start",
            json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        event("ping", json!({})),
    ];
    let word = |word: &&str| {
        event(
            "content_block_delta",
            json!({"index": 0, "delta": {"type": "text_delta", "text": word}}),
        )
    };
    let closing = [
        event("content_block_stop", json!({"index": 0})),
        event(
            "message_delta",
            json!({
                "delta": {"stop_reason": stop_reason(spec), "stop_sequence": null},
                "usage": {"output_tokens": spec.words.len()},
            }),
        ),
        event("message_stop", json!({})),
    ];
    Script {
        content_type: "text/event-stream",
        opening: opening.concat(),
        words: spec.words.iter().map(word).collect(),
        closing: closing.concat(),
        garbage:
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\n\n"
                .to_owned(),
    }
}

pub(super) fn whole(spec: &Saying<'_>) -> Value {
    let content = json!([{"type": "text", "text": spec.words.concat()}]);
    message(spec, &content, &json!(stop_reason(spec)), spec.words.len())
}

pub(super) fn list(model: &str) -> Value {
    let entry = json!({"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"});
    json!({"data": [entry], "has_more": false, "first_id": model, "last_id": model})
}

pub(super) fn error(error: &Refusal, call: u64) -> Value {
    let kind = match error {
        Refusal::Invalid(_) => "invalid_request_error",
        Refusal::Unauthorized => "authentication_error",
        Refusal::NotFound => "not_found_error",
        Refusal::TooLarge => "request_too_large",
        Refusal::RateLimited => "rate_limit_error",
    };
    json!({
        "type": "error",
        "error": {"type": kind, "message": error.message()},
        "request_id": request_id(call),
    })
}

fn message(spec: &Saying<'_>, content: &Value, stop_reason: &Value, output: usize) -> Value {
    json!({
        "id": format!("msg_sim_{}", spec.call),
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": spec.model,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {"input_tokens": spec.prompt_words, "output_tokens": output},
    })
}

fn stop_reason(spec: &Saying<'_>) -> &'static str {
    if spec.shortened {
        "max_tokens"
    } else {
        "end_turn"
    }
}

/// An event whose data has the event's name as its `type`.
fn event(name: &str, mut data: Value) -> String {
    if let Some(object) = data.as_object_mut() {
        object.insert("type".to_owned(), json!(name));
    }
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn events(bytes: &str) -> Vec<Value> {
        let read = |frame: &str| {
            let (name, data) = frame
                .strip_prefix("event: ")
                .unwrap()
                .split_once("\ndata: ")
                .unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            data
        };
        bytes.split_terminator("\n\n").map(read).collect()
    }

    #[test]
    fn stream_runs_from_message_start_to_message_stop() {
        let spec = Saying {
            call: 7,
            model: "m",
            words: &["One", " \"two\""],
            shortened: false,
            prompt_words: 4,
        };
        let reply = stream(&spec);
        let events = events(&[reply.opening, reply.words.concat(), reply.closing].concat());
        let names: Vec<_> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        let delta = "content_block_delta";
        let expected = [
            "message_start",
            "content_block_start",
            "ping",
            delta,
            delta,
            "content_block_stop",
            "message_delta",
        ];
        assert_eq!(names, [expected.as_slice(), &["message_stop"]].concat());
        assert_eq!(events[0]["message"]["usage"]["input_tokens"], 4);
        assert_eq!(events[4]["delta"]["text"], " \"two\"");
        assert_eq!(events[6]["delta"]["stop_reason"], "end_turn");
        assert_eq!(events[6]["usage"]["output_tokens"], 2);
        assert_eq!(whole(&spec)["content"][0]["text"], "One \"two\"");
    }

    #[test]
    fn missing_max_tokens_is_rejected() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        assert!(
            hear(&json!({"messages": messages}))
                .unwrap_err()
                .contains("max_tokens")
        );
        assert_eq!(
            hear(&json!({"messages": messages, "max_tokens": 1}))
                .unwrap()
                .limit,
            Some(1)
        );
    }
}
