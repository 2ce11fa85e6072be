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

pub(crate) fn render_stream(saying: &ReplySpec<'_>) -> ScriptedReply {
    let word = |word: &&str| {
        json_line(&json!({
            "model": saying.model,
            "created_at": CREATED_AT,
            "message": {"role": "assistant", "content": word},
            "done": false,
        }))
    };
    ScriptedReply {
        content_type: "application/x-ndjson",
        opening: String::new(),
        words: saying.words.iter().map(word).collect(),
        closing: json_line(&final_json(saying, "")),
        garbage: "{\"model\":\"sim\",\"message\":{\"role\":\"assistant\",\"content\":\n".to_owned(),
    }
}

pub(crate) fn complete_json(saying: &ReplySpec<'_>) -> Value {
    final_json(saying, &saying.words.concat())
}

pub(crate) fn models_json(model: &str) -> Value {
    json!({"models": [{"name": model, "model": model, "modified_at": CREATED_AT, "size": 0}]})
}

pub(crate) fn error_json(refusal: &SimulatedError) -> Value {
    json!({"error": refusal.message()})
}

fn final_json(saying: &ReplySpec<'_>, text: &str) -> Value {
    json!({
        "model": saying.model,
        "created_at": CREATED_AT,
        "message": {"role": "assistant", "content": text},
        "done": true,
        "done_reason": if saying.is_truncated { "length" } else { "stop" },
        "prompt_eval_count": saying.prompt_words,
        "eval_count": saying.words.len(),
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
        let saying = ReplySpec {
            call_number: 7,
            model: "m",
            words: &["One", "\n\"two\""],
            is_truncated: true,
            prompt_words: 4,
        };
        let script = render_stream(&saying);
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
        assert_eq!(complete_json(&saying)["message"]["content"], "One\n\"two\"");
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
