//! The chat completions of OpenAI: `data:` events with chunks, then `[DONE]`. Pure.
//!
//! Every timestamp is the same moment, so that the same question gives the same bytes.

use serde_json::{Value, json};

use super::heard::{Heard, limit};
use super::speak::{Refusal, Saying, Script};

/// 2026-01-01T00:00:00Z.
const CREATED: u64 = 1_767_225_600;

pub(super) fn hear(body: &Value) -> Result<Heard, String> {
    Ok(Heard {
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        usage: body
            .pointer("/stream_options/include_usage")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        limit: limit(body.get("max_completion_tokens")).or_else(|| limit(body.get("max_tokens"))),
        ..Heard::read(body)?
    })
}

pub(super) fn stream(spec: &Saying<'_>, usage: bool) -> Script {
    let delta = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        event(&chunk(spec, &json!([choice]), &Value::Null))
    };
    let mut closing = delta(json!({}), Some(finish(spec)));
    if usage {
        closing.push_str(&event(&chunk(spec, &json!([]), &self::usage(spec))));
    }
    closing.push_str("data: [DONE]\n\n");
    Script {
        content_type: "text/event-stream",
        opening: delta(json!({"role": "assistant", "content": ""}), None),
        words: spec
            .words
            .iter()
            .map(|word| delta(json!({"content": word}), None))
            .collect(),
        closing,
        garbage: "data: {\"id\":\"chatcmpl-sim\",\"choices\":[{\"delta\":{\"content\":\"\n\n"
            .to_owned(),
    }
}

pub(super) fn whole(spec: &Saying<'_>) -> Value {
    json!({
        "id": format!("chatcmpl-sim-{}", spec.call),
        "object": "chat.completion",
        "created": CREATED,
        "model": spec.model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": spec.words.concat(), "refusal": null},
            "logprobs": null,
            "finish_reason": finish(spec),
        }],
        "usage": usage(spec),
    })
}

pub(super) fn list(model: &str) -> Value {
    json!({"object": "list", "data": [{"id": model, "object": "model", "created": CREATED, "owned_by": "simulator"}]})
}

pub(super) fn error(error: &Refusal) -> Value {
    let (kind, code) = match error {
        Refusal::Invalid(_) | Refusal::TooLarge => ("invalid_request_error", None),
        Refusal::NotFound => ("invalid_request_error", Some("unknown_url")),
        Refusal::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
        Refusal::RateLimited => ("requests", Some("rate_limit_exceeded")),
    };
    json!({"error": {"message": error.message(), "type": kind, "param": null, "code": code}})
}

fn chunk(spec: &Saying<'_>, choices: &Value, usage: &Value) -> Value {
    json!({
        "id": format!("chatcmpl-sim-{}", spec.call),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": spec.model,
        "choices": choices,
        "usage": usage,
    })
}

fn usage(spec: &Saying<'_>) -> Value {
    let prompt = spec.prompt_words;
    let answer = spec.words.len();
    json!({"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt.saturating_add(answer)})
}

fn finish(spec: &Saying<'_>) -> &'static str {
    if spec.shortened { "length" } else { "stop" }
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn events(bytes: &str) -> Vec<Value> {
        bytes
            .split_terminator("\n\n")
            .map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn stream_has_a_role_the_words_a_finish_reason_and_an_end() {
        let spec = Saying {
            call: 7,
            model: "m",
            words: &["One", " \"two\""],
            shortened: true,
            prompt_words: 4,
        };
        let reply = stream(&spec, true);
        assert_eq!(
            events(&reply.opening)[0]["choices"][0]["delta"]["role"],
            "assistant"
        );
        let text: String = reply
            .words
            .iter()
            .map(|word| {
                events(word)[0]["choices"][0]["delta"]["content"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(text, "One \"two\"");
        let closing = events(reply.closing.strip_suffix("data: [DONE]\n\n").unwrap());
        assert_eq!(closing[0]["choices"][0]["finish_reason"], "length");
        assert_eq!(closing[1]["choices"], json!([]));
        assert_eq!(closing[1]["usage"]["total_tokens"], 6);
        assert!(!stream(&spec, false).closing.contains("total_tokens"));
        assert_eq!(
            whole(&spec)["choices"][0]["message"]["content"],
            "One \"two\""
        );
    }

    #[test]
    fn both_names_of_the_limit_are_accepted() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        for name in ["max_tokens", "max_completion_tokens"] {
            let chat = hear(&json!({"messages": messages, "stream": true, name: 1})).unwrap();
            assert_eq!(
                (chat.limit, chat.stream, chat.usage),
                (Some(1), true, false)
            );
        }
    }
}
