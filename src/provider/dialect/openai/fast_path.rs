//! A fast path for chunks with text only, the bulk of every answer: reads them without building a
//! JSON tree.
//!
//! A chunk with any other field, or with a value where null is expected, takes the regular path.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Fields of type `IgnoredAny` may have any value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are only parsed to check their type")]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: [Choice<'a>; 1],
    object: Option<Object>,
    #[serde(default)]
    usage: (),
    id: Option<IgnoredAny>,
    created: Option<IgnoredAny>,
    model: Option<IgnoredAny>,
    system_fingerprint: Option<IgnoredAny>,
    service_tier: Option<IgnoredAny>,
    obfuscation: Option<IgnoredAny>,
}

/// Error objects have another name here.
#[derive(Deserialize)]
enum Object {
    #[serde(rename = "chat.completion.chunk")]
    Chunk,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    delta: Delta<'a>,
    #[serde(default)]
    finish_reason: (),
    #[serde(default)]
    logprobs: (),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct Delta<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
    role: Option<IgnoredAny>,
    #[serde(default)]
    refusal: (),
    #[serde(default)]
    reasoning_content: (),
    #[serde(default)]
    tool_calls: (),
    #[serde(default)]
    function_call: (),
}

/// The text of a text-only chunk, or `None` for any other chunk.
pub(super) fn text_only_chunk(data: &str) -> Option<Cow<'_, str>> {
    let Chunk {
        choices: [choice], ..
    } = serde_json::from_str(data).ok()?;
    (choice.index == 0).then_some(choice.delta.content)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chunk(choice: &serde_json::Value) -> String {
        json!({ "id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice] })
            .to_string()
    }

    #[test]
    fn text_is_read_despite_irrelevant_fields() {
        let choice = json!({ "index": 0, "delta": { "role": "assistant", "content": "a\n\u{e9}", "refusal": null },
            "logprobs": null, "finish_reason": null });
        assert_eq!(text_only_chunk(&chunk(&choice)).unwrap(), "a\n\u{e9}");
        assert_eq!(
            text_only_chunk(
                r#"{"choices":[{"delta":{"content":"a"}}],"usage":null,"obfuscation":"x"}"#
            )
            .unwrap(),
            "a"
        );
    }

    #[test]
    fn chunks_with_more_than_text_are_left_to_the_regular_decoder() {
        for choice in [
            json!({ "index": 1, "delta": { "content": "a" } }),
            json!({ "delta": { "content": "a" }, "finish_reason": "stop" }),
            json!({ "delta": { "content": null } }),
            json!({ "delta": { "content": "a", "reasoning_content": "b" } }),
            json!({ "delta": { "content": "a", "tool_calls": [] } }),
            json!({ "delta": { "content": "a", "unknown": 1 } }),
            json!({ "delta": { "content": ["a"] } }),
            json!({ "message": { "content": "a" } }),
        ] {
            assert_eq!(text_only_chunk(&chunk(&choice)), None, "{choice}");
        }
        let good = r#"{"choices":[{"delta":{"content":"a"}}]"#;
        for rest in [
            r#","error":{}}"#,
            r#","usage":{"prompt_tokens":1}}"#,
            r#","object":"error"}"#,
            "",
            "}{}",
        ] {
            assert_eq!(text_only_chunk(&format!("{good}{rest}")), None, "{rest}");
        }
        assert_eq!(
            text_only_chunk(r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#),
            None
        );
        assert_eq!(text_only_chunk("[DONE]"), None);
    }
}
