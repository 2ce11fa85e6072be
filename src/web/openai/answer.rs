//! Responses in OpenAI's shape: complete ones, and the chunks of a stream.

use memchr::memmem;
use serde::Serialize;

use crate::chat::{Finish, Source, TurnRecord, Usage};
use crate::turn::log::{TextPart, TurnLog};

/// Builds the response, or all chunks, of one turn.
#[derive(Debug)]
pub struct Shape {
    id: String,
    created: u64,
    /// A streamed response ends with a chunk that has the usage.
    pub include_usage: bool,
    template: Option<Around>,
}

/// A chunk without its text. The chunks of one attempt differ only in the text.
#[derive(Debug)]
struct Around {
    attempt: u32,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// The place of the text in an encoded chunk.
const EMPTY: &[u8] = b"\"content\":\"\"";

#[derive(Serialize)]
pub struct Whole<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [WholeChoice<'a>; 1],
    usage: Tokens,
    failsoft: About<'a>,
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    index: u8,
    message: Message<'a>,
    logprobs: (),
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: (),
}

#[derive(Serialize)]
pub struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Tokens>,
    failsoft: About<'a>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u8,
    delta: Delta<'a>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// The field `failsoft`, which tells where the answer comes from.
#[derive(Serialize)]
struct About<'a> {
    provider: Option<&'a str>,
    attempt: u32,
    source: &'static str,
}

impl Shape {
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

    pub fn whole<'a>(&'a self, record: &'a TurnRecord) -> Whole<'a> {
        let message = Message {
            role: "assistant",
            content: &record.text,
            refusal: (),
        };
        let choice = WholeChoice {
            index: 0,
            message,
            logprobs: (),
            finish_reason: reason(record.finish),
        };
        Whole {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: named(record.model.as_deref()),
            choices: [choice],
            usage: tokens(record.usage),
            failsoft: about(record),
        }
    }

    /// Encodes a chunk with more text. The first one also has the role.
    pub fn text(&mut self, part: &TextPart, first: bool) -> Vec<u8> {
        if first {
            return self.chunk_of(part, Some("assistant"), &part.text);
        }
        let template = match self
            .template
            .take()
            .filter(|template| template.attempt == part.attempt)
        {
            Some(template) => template,
            None => Around::of(part.attempt, &self.chunk_of(part, None, "")),
        };
        let chunk = template.put(&part.text);
        self.template = Some(template);
        chunk
    }

    fn chunk_of(&self, part: &TextPart, role: Option<&'static str>, text: &str) -> Vec<u8> {
        let delta = Delta {
            role,
            content: Some(text),
        };
        let about = About {
            provider: part.provider.as_deref(),
            attempt: part.attempt,
            source: part.source.name(),
        };
        let choice = Choice {
            index: 0,
            delta,
            finish_reason: None,
        };
        event(&self.chunk(part.model.as_deref(), &[choice], about))
    }

    pub fn finish(&self, record: &TurnRecord) -> Vec<u8> {
        let finish_reason = Some(reason(record.finish));
        let choice = Choice {
            index: 0,
            delta: Delta::default(),
            finish_reason,
        };
        event(&self.chunk(record.model.as_deref(), &[choice], about(record)))
    }

    pub fn usage(&self, record: &TurnRecord) -> Vec<u8> {
        let chunk = self.chunk(record.model.as_deref(), &[], about(record));
        event(&Chunk {
            usage: Some(tokens(record.usage)),
            ..chunk
        })
    }

    fn chunk<'a>(
        &'a self,
        model: Option<&'a str>,
        choices: &'a [Choice<'a>],
        about: About<'a>,
    ) -> Chunk<'a> {
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: named(model),
            choices,
            usage: None,
            failsoft: about,
        }
    }
}

impl Around {
    /// Splits a chunk with empty text. The first match is the right one: within JSON strings
    /// quotation marks are escaped.
    fn of(attempt: u32, chunk: &[u8]) -> Self {
        let end = memmem::find(chunk, EMPTY).map_or(chunk.len(), |start| start + EMPTY.len());
        let (before, after) = chunk.split_at(end);
        let before = before.strip_suffix(b"\"\"").unwrap_or(before);
        Self {
            attempt,
            before: before.to_vec(),
            after: after.to_vec(),
        }
    }

    fn put(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.before.len() + text.len() + 16 + self.after.len());
        bytes.extend_from_slice(&self.before);
        let _ = serde_json::to_writer(&mut bytes, text);
        bytes.extend_from_slice(&self.after);
        bytes
    }
}

/// Encodes a server-sent event. Serialises directly into bytes, since there is one for each token.
pub fn event(data: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(384);
    bytes.extend_from_slice(b"data: ");
    // These types always encode. A failure would show as an event that is not JSON.
    let _ = serde_json::to_writer(&mut bytes, data);
    bytes.extend_from_slice(b"\n\n");
    bytes
}

/// Returns the model, or `failsoft` for an answer without one.
fn named(model: Option<&str>) -> &str {
    model.unwrap_or("failsoft")
}

fn about(record: &TurnRecord) -> About<'_> {
    let source = record.source.map_or("ai", Source::name);
    let attempt = if record.provider.is_some() {
        record.attempts
    } else {
        0
    };
    About {
        provider: record.provider.as_deref(),
        attempt,
        source,
    }
}

fn reason(finish: Option<Finish>) -> &'static str {
    match finish {
        Some(Finish::Length) => "length",
        Some(Finish::ContentFilter) => "content_filter",
        _ => "stop",
    }
}

fn tokens(usage: Option<Usage>) -> Tokens {
    let Usage {
        input_tokens,
        output_tokens,
        ..
    } = usage.unwrap_or_default();
    Tokens {
        prompt_tokens: input_tokens,
        completion_tokens: output_tokens,
        total_tokens: input_tokens + output_tokens,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(text: &str, attempt: u32, name: &str) -> TextPart {
        let name = Some(name.into());
        let text = text.to_owned();
        TextPart {
            text,
            attempt,
            provider: name.clone(),
            model: name,
            source: Source::Ai,
            ended: false,
        }
    }

    proptest! {
        /// Chunks from a template equal chunks that are encoded from scratch.
        #[test]
        fn templated_chunks_equal_encoded_ones(
            parts in prop::collection::vec(("\\PC{0,12}", 1u32..3), 1..6),
            name in prop_oneof![Just("\"content\":\"\"".to_owned()), "\\PC{1,8}"],
        ) {
            let mut shape = Shape { id: name.clone(), created: 7, include_usage: false, template: None };
            for (index, (text, attempt)) in parts.iter().enumerate() {
                let part = part(text, *attempt, &format!("{name} {attempt}"));
                let role = (index == 0).then_some("assistant");
                let expected = shape.chunk_of(&part, role, text);
                prop_assert_eq!(shape.text(&part, index == 0), expected);
            }
        }
    }
}
