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

pub(crate) fn render_stream(reply: &ReplySpec<'_>, usage: bool) -> ScriptedReply {
    let delta = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        sse_event(&chunk_json(reply, &json!([choice]), &Value::Null))
    };
    let mut closing = delta(json!({}), Some(finish_reason(reply)));
    if usage {
        closing.push_str(&sse_event(&chunk_json(
            reply,
            &json!([]),
            &usage_json(reply),
        )));
    }
    closing.push_str("data: [DONE]\n\n");
    ScriptedReply {
        content_type: "text/event-stream",
        opening: delta(json!({"role": "assistant", "content": ""}), None),
        words: reply
            .words
            .iter()
            .map(|word| delta(json!({"content": word}), None))
            .collect(),
        closing,
    }
}

pub(crate) fn complete_json(reply: &ReplySpec<'_>) -> Value {
    json!({
        "id": format!("chatcmpl-sim-{}", reply.call_number),
        "object": "chat.completion",
        "created": CREATED,
        "model": reply.model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": reply.words.concat(), "error": null},
            "logprobs": null,
            "finish_reason": finish_reason(reply),
        }],
        "usage": usage_json(reply),
    })
}

pub(crate) fn models_json(model: &str) -> Value {
    json!({"object": "list", "data": [{"id": model, "object": "model", "created": CREATED, "owned_by": "simulator"}]})
}

pub(crate) fn error_json(error: &SimulatedError) -> Value {
    let code = matches!(error, SimulatedError::NotFound).then_some("unknown_url");
    json!({"error": {"message": error.message(), "type": "invalid_request_error", "param": null, "code": code}})
}

fn chunk_json(reply: &ReplySpec<'_>, choices: &Value, usage: &Value) -> Value {
    json!({
        "id": format!("chatcmpl-sim-{}", reply.call_number),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": reply.model,
        "choices": choices,
        "usage": usage,
    })
}

fn usage_json(reply: &ReplySpec<'_>) -> Value {
    let prompt = reply.prompt_words;
    let answer = reply.words.len();
    json!({"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt.saturating_add(answer)})
}

fn finish_reason(reply: &ReplySpec<'_>) -> &'static str {
    if reply.is_truncated { "length" } else { "stop" }
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
        let reply = ReplySpec {
            call_number: 7,
            model: "m",
            words: &["One", " \"two\""],
            is_truncated: true,
            prompt_words: 4,
        };
        let script = render_stream(&reply, true);
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
            !render_stream(&reply, false)
                .closing
                .contains("total_tokens")
        );
        assert_eq!(
            complete_json(&reply)["choices"][0]["message"]["content"],
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
