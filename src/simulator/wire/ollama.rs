//! The chat format of Ollama: one JSON object per line, the last with `"done": true`. Pure.
//!
//! Every timestamp is the same moment, so that the same question gives the same bytes.

use serde_json::{Value, json};

use super::{ReplySpec, ScriptedReply, SimulatedError};
use crate::simulator::chat_request::{SimulatedRequest, parse_limit};

const CREATED_AT: &str = "2026-01-01T00:00:00Z";

pub(crate) fn parse_request(body: &Value) -> Result<SimulatedRequest, String> {
    Ok(SimulatedRequest {
        // Unlike the other formats, this one streams by default.
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(true),
        max_words: parse_limit(body.pointer("/options/num_predict")),
        ..SimulatedRequest::parse(body)?
    })
}

pub(crate) fn render_stream(reply: &ReplySpec<'_>) -> ScriptedReply {
    let word = |word: &&str| {
        json_line(&json!({
            "model": reply.model,
            "created_at": CREATED_AT,
            "message": {"role": "assistant", "content": word},
            "done": false,
        }))
    };
    ScriptedReply {
        content_type: "application/x-ndjson",
        opening: String::new(),
        words: reply.words.iter().map(word).collect(),
        closing: json_line(&final_json(reply, "")),
    }
}

pub(crate) fn complete_json(reply: &ReplySpec<'_>) -> Value {
    final_json(reply, &reply.words.concat())
}

pub(crate) fn models_json(model: &str) -> Value {
    json!({"models": [{"name": model, "model": model, "modified_at": CREATED_AT, "size": 0}]})
}

pub(crate) fn error_json(error: &SimulatedError) -> Value {
    json!({"error": error.message()})
}

fn final_json(reply: &ReplySpec<'_>, text: &str) -> Value {
    json!({
        "model": reply.model,
        "created_at": CREATED_AT,
        "message": {"role": "assistant", "content": text},
        "done": true,
        "done_reason": if reply.is_truncated { "length" } else { "stop" },
        "prompt_eval_count": reply.prompt_words,
        "eval_count": reply.words.len(),
    })
}

fn json_line(data: &Value) -> String {
    format!("{data}\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_json_lines_and_the_last_is_done() {
        let reply = ReplySpec {
            call_number: 7,
            model: "m",
            words: &["One", "\n\"two\""],
            is_truncated: true,
            prompt_words: 4,
        };
        let script = render_stream(&reply);
        let bytes = [script.opening, script.words.concat(), script.closing].concat();
        let lines: Vec<Value> = bytes
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["message"]["content"], "\n\"two\"");
        assert_eq!(lines[1]["done"], false);
        assert_eq!(
            (&lines[2]["done"], &lines[2]["done_reason"]),
            (&json!(true), &json!("length"))
        );
        assert_eq!(
            (&lines[2]["prompt_eval_count"], &lines[2]["eval_count"]),
            (&json!(4), &json!(2))
        );
        assert_eq!(complete_json(&reply)["message"]["content"], "One\n\"two\"");
    }

    #[test]
    fn requests_stream_by_default() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let chat =
            parse_request(&json!({"messages": messages, "options": {"num_predict": 1}})).unwrap();
        assert_eq!((chat.stream, chat.max_words), (true, Some(1)));
        assert!(
            !parse_request(&json!({"messages": messages, "stream": false}))
                .unwrap()
                .stream
        );
    }
}
