//! The chat completions of OpenAI: `data:` events with chunks, then `[DONE]`. Pure.
//!
//! Every timestamp is the same moment, so that the same question gives the same bytes.

use serde_json::{Value, json};

use super::{ReplySpec, ScriptedReply, SimulatedError};
use crate::simulator::chat_request::{SimulatedRequest, parse_limit};

/// 2026-01-01T00:00:00Z.
const CREATED: u64 = 1_767_225_600;

pub(crate) fn parse_request(body: &Value) -> Result<SimulatedRequest, String> {
    Ok(SimulatedRequest {
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        include_usage: body
            .pointer("/stream_options/include_usage")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        max_words: parse_limit(body.get("max_completion_tokens"))
            .or_else(|| parse_limit(body.get("max_tokens"))),
        ..SimulatedRequest::parse(body)?
    })
}

pub(crate) fn render_stream(saying: &ReplySpec<'_>, usage: bool) -> ScriptedReply {
    let delta = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        sse_event(&chunk_json(saying, &json!([choice]), &Value::Null))
    };
    let mut closing = delta(json!({}), Some(finish_reason(saying)));
    if usage {
        closing.push_str(&sse_event(&chunk_json(
            saying,
            &json!([]),
            &self::usage_json(saying),
        )));
    }
    closing.push_str("data: [DONE]\n\n");
    ScriptedReply {
        content_type: "text/event-stream",
        opening: delta(json!({"role": "assistant", "content": ""}), None),
        words: saying
            .words
            .iter()
            .map(|word| delta(json!({"content": word}), None))
            .collect(),
        closing,
        garbage: "data: {\"id\":\"chatcmpl-sim\",\"choices\":[{\"delta\":{\"content\":\"\n\n"
            .to_owned(),
    }
}

pub(crate) fn complete_json(saying: &ReplySpec<'_>) -> Value {
    json!({
        "id": format!("chatcmpl-sim-{}", saying.call_number),
        "object": "chat.completion",
        "created": CREATED,
        "model": saying.model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": saying.words.concat(), "refusal": null},
            "logprobs": null,
            "finish_reason": finish_reason(saying),
        }],
        "usage": usage_json(saying),
    })
}

pub(crate) fn models_json(model: &str) -> Value {
    json!({"object": "list", "data": [{"id": model, "object": "model", "created": CREATED, "owned_by": "simulator"}]})
}

pub(crate) fn error_json(refusal: &SimulatedError) -> Value {
    let (kind, code) = match refusal {
        SimulatedError::InvalidRequest(_) | SimulatedError::TooLarge => {
            ("invalid_request_error", None)
        }
        SimulatedError::NotFound => ("invalid_request_error", Some("unknown_url")),
        SimulatedError::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
        SimulatedError::RateLimited => ("requests", Some("rate_limit_exceeded")),
    };
    json!({"error": {"message": refusal.message(), "type": kind, "param": null, "code": code}})
}

fn chunk_json(saying: &ReplySpec<'_>, choices: &Value, usage: &Value) -> Value {
    json!({
        "id": format!("chatcmpl-sim-{}", saying.call_number),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": saying.model,
        "choices": choices,
        "usage": usage,
    })
}

fn usage_json(saying: &ReplySpec<'_>) -> Value {
    let prompt = saying.prompt_words;
    let answer = saying.words.len();
    json!({"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt.saturating_add(answer)})
}

fn finish_reason(saying: &ReplySpec<'_>) -> &'static str {
    if saying.is_truncated {
        "length"
    } else {
        "stop"
    }
}

fn sse_event(data: &Value) -> String {
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
        let saying = ReplySpec {
            call_number: 7,
            model: "m",
            words: &["One", " \"two\""],
            is_truncated: true,
            prompt_words: 4,
        };
        let script = render_stream(&saying, true);
        assert_eq!(
            events(&script.opening)[0]["choices"][0]["delta"]["role"],
            "assistant"
        );
        let text: String = script
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
        let closing = events(script.closing.strip_suffix("data: [DONE]\n\n").unwrap());
        assert_eq!(closing[0]["choices"][0]["finish_reason"], "length");
        assert_eq!(closing[1]["choices"], json!([]));
        assert_eq!(closing[1]["usage"]["total_tokens"], 6);
        assert!(
            !render_stream(&saying, false)
                .closing
                .contains("total_tokens")
        );
        assert_eq!(
            complete_json(&saying)["choices"][0]["message"]["content"],
            "One \"two\""
        );
    }

    #[test]
    fn both_names_of_the_limit_are_accepted() {
        let messages = json!([{"role": "user", "content": "hi"}]);
        for name in ["max_tokens", "max_completion_tokens"] {
            let chat =
                parse_request(&json!({"messages": messages, "stream": true, name: 1})).unwrap();
            assert_eq!(
                (chat.max_words, chat.stream, chat.include_usage),
                (Some(1), true, false)
            );
        }
    }
}
