//! The chat format of Ollama: one JSON object per line, the last with `"done": true`. Pure.
//!
//! Every timestamp is the same moment, so that the same question gives the same bytes.

use serde_json::{Value, json};

use super::heard::{Heard, limit};
use super::speak::{Refusal, Saying, Script};

const CREATED_AT: &str = "2026-01-01T00:00:00Z";

pub(super) fn hear(body: &Value) -> Result<Heard, String> {
    Ok(Heard {
        // Unlike the other formats, this one streams by default.
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(true),
        limit: limit(body.pointer("/options/num_predict")),
        ..Heard::read(body)?
    })
}

pub(super) fn stream(spec: &Saying<'_>) -> Script {
    let word = |word: &&str| {
        line(&json!({
            "model": spec.model,
            "created_at": CREATED_AT,
            "message": {"role": "assistant", "content": word},
            "done": false,
        }))
    };
    Script {
        content_type: "application/x-ndjson",
        opening: String::new(),
        words: spec.words.iter().map(word).collect(),
        closing: line(&done(spec, "")),
        garbage: "{\"model\":\"sim\",\"message\":{\"role\":\"assistant\",\"content\":\n".to_owned(),
    }
}

pub(super) fn whole(spec: &Saying<'_>) -> Value {
    done(spec, &spec.words.concat())
}

pub(super) fn list(model: &str) -> Value {
    json!({"models": [{"name": model, "model": model, "modified_at": CREATED_AT, "size": 0}]})
}

pub(super) fn error(error: &Refusal) -> Value {
    json!({"error": error.message()})
}

fn done(spec: &Saying<'_>, text: &str) -> Value {
    json!({
        "model": spec.model,
        "created_at": CREATED_AT,
        "message": {"role": "assistant", "content": text},
        "done": true,
        "done_reason": if spec.shortened { "length" } else { "stop" },
        "prompt_eval_count": spec.prompt_words,
        "eval_count": spec.words.len(),
    })
}

fn line(data: &Value) -> String {
    format!("{data}\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_json_lines_and_the_last_is_done() {
        let spec = Saying {
            call: 7,
            model: "m",
            words: &["One", "\n\"two\""],
            shortened: true,
            prompt_words: 4,
        };
        let reply = stream(&spec);
        let bytes = [reply.opening, reply.words.concat(), reply.closing].concat();
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
        assert_eq!(whole(&spec)["message"]["content"], "One\n\"two\"");
    }

    #[test]
    fn requests_stream_by_default() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let chat = hear(&json!({"messages": messages, "options": {"num_predict": 1}})).unwrap();
        assert_eq!((chat.stream, chat.limit), (true, Some(1)));
        assert!(
            !hear(&json!({"messages": messages, "stream": false}))
                .unwrap()
                .stream
        );
    }
}
