//! Responses in OpenAI's shape: complete ones, and the chunks of a stream.

use memchr::memmem;
use serde::Serialize;

use crate::domain::{AnswerSource, FinishReason, TokenUsage, TurnRecord};
use crate::turn::log::{TextChunk, TurnLog};

/// Builds the response, or all chunks, of one turn.
#[derive(Debug)]
pub struct ResponseBuilder {
    id: String,
    created: u64,
    /// A streamed response ends with a chunk that has the usage.
    pub include_usage: bool,
    template: Option<ChunkTemplate>,
}

/// A chunk without its text. The chunks of one attempt differ only in the text.
#[derive(Debug)]
struct ChunkTemplate {
    attempt: u32,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// The place of the text in an encoded chunk.
const EMPTY_CONTENT: &[u8] = b"\"content\":\"\"";

#[derive(Serialize)]
pub struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [CompletionChoice<'a>; 1],
    usage: CompletionUsage,
    failsoft: FailsoftMeta<'a>,
}

#[derive(Serialize)]
struct CompletionChoice<'a> {
    index: u8,
    message: CompletionMessage<'a>,
    logprobs: (),
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct CompletionMessage<'a> {
    role: &'static str,
    content: &'a str,
    refusal: (),
}

#[derive(Serialize)]
pub struct CompletionChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<CompletionUsage>,
    failsoft: FailsoftMeta<'a>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u8,
    delta: ChunkDelta<'a>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, Default)]
struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct CompletionUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// The field `failsoft`, which tells where the answer comes from.
#[derive(Serialize)]
struct FailsoftMeta<'a> {
    provider: Option<&'a str>,
    attempt: u32,
    source: &'static str,
}

impl ResponseBuilder {
    /// Creates a builder. `started` is the service's start in Unix seconds; `created` is never
    /// earlier.
    pub fn new(log: &TurnLog, started: u64, include_usage: bool) -> Self {
        let created = (log.record().at.0 / 1000).max(started);
        Self {
            id: format!("chatcmpl-{}", log.turn()),
            created,
            include_usage,
            template: None,
        }
    }

    pub fn completion<'a>(&'a self, record: &'a TurnRecord) -> ChatCompletion<'a> {
        let message = CompletionMessage {
            role: "assistant",
            content: &record.text,
            refusal: (),
        };
        let choice = CompletionChoice {
            index: 0,
            message,
            logprobs: (),
            finish_reason: finish_reason(record.finish),
        };
        ChatCompletion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: model_or_default(record.model.as_deref()),
            choices: [choice],
            usage: completion_usage(record.usage),
            failsoft: failsoft_meta(record),
        }
    }

    /// Encodes a chunk with more text. The first one also has the role.
    pub fn text_chunk(&mut self, part: &TextChunk, first: bool) -> Vec<u8> {
        if first {
            return self.encode_chunk(part, Some("assistant"), &part.text);
        }
        let last = self.template.take();
        let template = last.filter(|template| template.attempt == part.attempt);
        let template = template.unwrap_or_else(|| {
            ChunkTemplate::from_empty_chunk(part.attempt, &self.encode_chunk(part, None, ""))
        });
        let chunk = template.with_text(&part.text);
        self.template = Some(template);
        chunk
    }

    fn encode_chunk(&self, part: &TextChunk, role: Option<&'static str>, text: &str) -> Vec<u8> {
        let delta = ChunkDelta {
            role,
            content: Some(text),
        };
        let about = FailsoftMeta {
            provider: part.provider.as_deref(),
            attempt: part.attempt,
            source: part.source.as_str(),
        };
        let choice = ChunkChoice {
            index: 0,
            delta,
            finish_reason: None,
        };
        encode_event(&self.build_chunk(part.model.as_deref(), &[choice], about))
    }

    pub fn finish_chunk(&self, record: &TurnRecord) -> Vec<u8> {
        let finish_reason = Some(finish_reason(record.finish));
        let choice = ChunkChoice {
            index: 0,
            delta: ChunkDelta::default(),
            finish_reason,
        };
        encode_event(&self.build_chunk(record.model.as_deref(), &[choice], failsoft_meta(record)))
    }

    pub fn usage_chunk(&self, record: &TurnRecord) -> Vec<u8> {
        let chunk = self.build_chunk(record.model.as_deref(), &[], failsoft_meta(record));
        encode_event(&CompletionChunk {
            usage: Some(completion_usage(record.usage)),
            ..chunk
        })
    }

    fn build_chunk<'a>(
        &'a self,
        model: Option<&'a str>,
        choices: &'a [ChunkChoice<'a>],
        about: FailsoftMeta<'a>,
    ) -> CompletionChunk<'a> {
        CompletionChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: model_or_default(model),
            choices,
            usage: None,
            failsoft: about,
        }
    }
}

impl ChunkTemplate {
    /// Splits a chunk with empty text. The first match is the right one: within JSON strings
    /// quotation marks are escaped.
    fn from_empty_chunk(attempt: u32, chunk: &[u8]) -> Self {
        let end = memmem::find(chunk, EMPTY_CONTENT)
            .map_or(chunk.len(), |start| start + EMPTY_CONTENT.len());
        let (before, after) = chunk.split_at(end);
        let before = before.strip_suffix(b"\"\"").unwrap_or(before);
        Self {
            attempt,
            before: before.to_vec(),
            after: after.to_vec(),
        }
    }

    fn with_text(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.before.len() + text.len() + 16 + self.after.len());
        bytes.extend_from_slice(&self.before);
        let _ = serde_json::to_writer(&mut bytes, text);
        bytes.extend_from_slice(&self.after);
        bytes
    }
}

/// Encodes a server-sent event. Serialises directly into bytes, since there is one for each token.
pub fn encode_event(data: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(384);
    bytes.extend_from_slice(b"data: ");
    // These types always encode. A failure would show as an event that is not JSON.
    let _ = serde_json::to_writer(&mut bytes, data);
    bytes.extend_from_slice(b"\n\n");
    bytes
}

/// Returns the model, or `failsoft` for an answer without one.
fn model_or_default(model: Option<&str>) -> &str {
    model.unwrap_or("failsoft")
}

fn failsoft_meta(record: &TurnRecord) -> FailsoftMeta<'_> {
    let source = record.source.map_or("ai", AnswerSource::as_str);
    let attempt = if record.provider.is_some() {
        record.attempts
    } else {
        0
    };
    FailsoftMeta {
        provider: record.provider.as_deref(),
        attempt,
        source,
    }
}

fn finish_reason(finish: Option<FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::Length) => "length",
        Some(FinishReason::ContentFilter) => "content_filter",
        _ => "stop",
    }
}

fn completion_usage(usage: Option<TokenUsage>) -> CompletionUsage {
    let TokenUsage {
        input_tokens,
        output_tokens,
        ..
    } = usage.unwrap_or_default();
    CompletionUsage {
        prompt_tokens: input_tokens,
        completion_tokens: output_tokens,
        total_tokens: input_tokens + output_tokens,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(text: &str, attempt: u32, name: &str) -> TextChunk {
        let name = Some(name.into());
        let text = text.to_owned();
        TextChunk {
            text,
            attempt,
            provider: name.clone(),
            model: name,
            source: AnswerSource::Ai,
            is_final: false,
        }
    }

    proptest! {
        /// Chunks from a template equal chunks that are encoded from scratch.
        #[test]
        fn templated_chunks_equal_encoded_ones(
            parts in prop::collection::vec(("\\PC{0,12}", 1u32..3), 1..6),
            name in prop_oneof![Just("\"content\":\"\"".to_owned()), "\\PC{1,8}"],
        ) {
            let mut shape = ResponseBuilder { id: name.clone(), created: 7, include_usage: false, template: None };
            for (index, (text, attempt)) in parts.iter().enumerate() {
                let part = part(text, *attempt, &format!("{name} {attempt}"));
                let role = (index == 0).then_some("assistant");
                let expected = shape.encode_chunk(&part, role, text);
                prop_assert_eq!(shape.text_chunk(&part, index == 0), expected);
            }
        }
    }
}
