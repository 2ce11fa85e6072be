//! Answers in OpenAI's shape: whole, and in chunks.

use serde_json::{Value, json};

use crate::chat::{Finish, Source, TurnRecord, Usage};
use crate::turn::log::{TextPart, TurnLog};

/// What all parts of one answer have in common.
#[derive(Debug)]
pub struct Shape {
    id: String,
    created: u64,
    /// Whether a streamed answer tells its usage.
    pub include_usage: bool,
}

impl Shape {
    /// The shape of a turn's answer. `started` is the time of the service's start, in seconds, for want of a clock in here.
    pub fn new(log: &TurnLog, started: u64, include_usage: bool) -> Self {
        let created = (log.record().at.0 / 1000).max(started);
        Self { id: format!("chatcmpl-{}", log.turn()), created, include_usage }
    }

    /// The whole answer.
    pub fn whole(&self, record: &TurnRecord) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": named(record.model.as_deref()),
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": record.text, "refusal": null },
                "logprobs": null,
                "finish_reason": reason(record.finish),
            }],
            "usage": tokens(record.usage),
            "failsoft": about(record),
        })
    }

    /// A chunk with more text; the first one also names the speaker's role.
    pub fn text(&self, part: &TextPart, first: bool) -> Value {
        let about =
            json!({ "provider": part.provider, "attempt": part.attempt, "source": part.source.name() });
        let delta = if first {
            json!({ "role": "assistant", "content": part.text })
        } else {
            json!({ "content": part.text })
        };
        self.chunk(
            part.model.as_deref(),
            json!([{ "index": 0, "delta": delta, "finish_reason": null }]),
            &about,
        )
    }

    /// The chunk that ends the answer.
    pub fn finish(&self, record: &TurnRecord) -> Value {
        let choices = json!([{ "index": 0, "delta": {}, "finish_reason": reason(record.finish) }]);
        self.chunk(record.model.as_deref(), choices, &about(record))
    }

    /// The chunk with the usage.
    pub fn usage(&self, record: &TurnRecord) -> Value {
        let mut chunk = self.chunk(record.model.as_deref(), json!([]), &about(record));
        if let Some(fields) = chunk.as_object_mut() {
            fields.insert("usage".to_owned(), tokens(record.usage));
        }
        chunk
    }

    fn chunk(&self, model: Option<&str>, choices: Value, about: &Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": named(model),
            "choices": choices,
            "failsoft": about,
        })
    }
}

/// The model that answered; `failsoft` for what none said.
fn named(model: Option<&str>) -> &str {
    model.unwrap_or("failsoft")
}

fn about(record: &TurnRecord) -> Value {
    let source = record.source.map_or("ai", Source::name);
    let attempt = if record.provider.is_some() { record.attempts } else { 0 };
    json!({ "provider": record.provider, "attempt": attempt, "source": source })
}

fn reason(finish: Option<Finish>) -> &'static str {
    match finish {
        Some(Finish::Length) => "length",
        Some(Finish::ContentFilter) => "content_filter",
        _ => "stop",
    }
}

fn tokens(usage: Option<Usage>) -> Value {
    let Usage { input_tokens, output_tokens, .. } = usage.unwrap_or_default();
    json!({
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    })
}
