//! Anthropic messages: named events from `message_start` to `message_stop`. Pure.

use serde_json::{Value, json};

use super::{ReplySpec, ScriptedReply, SimulatedError, request_id};
use crate::simulator::chat_request::{SimulatedRequest, parse_limit};

pub(crate) fn parse_request(body: &Value) -> Result<SimulatedRequest, String> {
    let limit = parse_limit(body.get("max_tokens")).ok_or("max_tokens: Field required")?;
    Ok(SimulatedRequest {
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        max_words: Some(limit),
        ..SimulatedRequest::parse(body)?
    })
}

pub(crate) fn render_stream(reply: &ReplySpec<'_>) -> ScriptedReply {
    let start = message_json(reply, &json!([]), &Value::Null, 1);
    let opening = [
        sse_event("message_start", json!({"message": start})),
        sse_event(
            "content_block_start",
            json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        sse_event("ping", json!({})),
    ];
    let word = |word: &&str| {
        sse_event(
            "content_block_delta",
            json!({"index": 0, "delta": {"type": "text_delta", "text": word}}),
        )
    };
    let closing = [
        sse_event("content_block_stop", json!({"index": 0})),
        sse_event(
            "message_delta",
            json!({
                "delta": {"stop_reason": stop_reason(reply), "stop_sequence": null},
                "usage": {"output_tokens": reply.words.len()},
            }),
        ),
        sse_event("message_stop", json!({})),
    ];
    ScriptedReply {
        content_type: "text/event-stream",
        opening: opening.concat(),
        words: reply.words.iter().map(word).collect(),
        closing: closing.concat(),
    }
}

pub(crate) fn complete_json(reply: &ReplySpec<'_>) -> Value {
    let content = json!([{"type": "text", "text": reply.words.concat()}]);
    message_json(
        reply,
        &content,
        &json!(stop_reason(reply)),
        reply.words.len(),
    )
}

pub(crate) fn models_json(model: &str) -> Value {
    let entry = json!({"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"});
    json!({"data": [entry], "has_more": false, "first_id": model, "last_id": model})
}

pub(crate) fn error_json(error: &SimulatedError, call: u64) -> Value {
    let kind = match error {
        SimulatedError::InvalidRequest(_) => "invalid_request_error",
        SimulatedError::NotFound => "not_found_error",
        SimulatedError::TooLarge => "request_too_large",
    };
    json!({
        "type": "error",
        "error": {"type": kind, "message": error.message()},
        "request_id": request_id(call),
    })
}

fn message_json(
    reply: &ReplySpec<'_>,
    content: &Value,
    stop_reason: &Value,
    output: usize,
) -> Value {
    json!({
        "id": format!("msg_sim_{}", reply.call_number),
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": reply.model,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {"input_tokens": reply.prompt_words, "output_tokens": output},
    })
}

fn stop_reason(reply: &ReplySpec<'_>) -> &'static str {
    if reply.is_truncated {
        "max_tokens"
    } else {
        "end_turn"
    }
}

/// An event whose data has the event's name as its `type`.
fn sse_event(name: &str, mut data: Value) -> String {
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
        let reply = ReplySpec {
            call_number: 7,
            model: "m",
            words: &["One", " \"two\""],
            is_truncated: false,
            prompt_words: 4,
        };
        let script = render_stream(&reply);
        let events = events(&[script.opening, script.words.concat(), script.closing].concat());
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
        assert_eq!(complete_json(&reply)["content"][0]["text"], "One \"two\"");
    }

    #[test]
    fn missing_max_tokens_is_rejected() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        assert!(
            parse_request(&json!({"messages": messages}))
                .unwrap_err()
                .contains("max_tokens")
        );
        assert_eq!(
            parse_request(&json!({"messages": messages, "max_tokens": 1}))
                .unwrap()
                .max_words,
            Some(1)
        );
    }
}
