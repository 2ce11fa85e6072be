//! What a provider says went wrong, in one shape for the many that are on the wire.

use serde_json::Value;

use crate::chat::{Failure, Fault};

use super::model::Model;
use super::progress::{text, truthy};
use super::redact::redact;

/// An error as a provider words it.
pub(super) struct Complaint {
    /// Its words, keys not yet redacted: [`Complaint::failure`] does that.
    pub(super) message: String,
    /// Its code as text, also where it is a number; empty for none.
    pub(super) code: String,
    /// Its type (at Gemini its status word); empty for none.
    pub(super) kind: String,
    /// The parameter that it names; empty for none.
    pub(super) param: String,
    /// The object that holds these, for what one dialect alone has.
    pub(super) error: Value,
    /// Whether it was worded as an error at all, or is just some body.
    pub(super) recognised: bool,
}

impl Complaint {
    /// The complaint in the body of an HTTP error. Anything is one: what cannot be parsed is its message.
    pub(super) fn of(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Self::unrecognised(text.trim().to_owned());
        };
        // Gemini wraps an error in an array where a stream was asked for.
        let value = match value {
            Value::Array(all) => all.into_iter().next().unwrap_or_default(),
            one => one,
        };
        Self::found(&value).unwrap_or_else(|| Self::unrecognised(text.trim().to_owned()))
    }

    /// The complaint in an event, where it is one: an error object, text or event, or a flat error.
    pub(super) fn in_event(event: &Value) -> Option<Self> {
        let marked = event.get("error").is_some_and(truthy)
            || is(event, "object", "error")
            || is(event, "type", "error");
        let answers = ["choices", "candidates", "done", "type"];
        let flat = !answers.iter().any(|key| event.get(key).is_some());
        if marked || flat {
            Self::found(event)
        } else {
            None
        }
    }

    fn unrecognised(message: String) -> Self {
        Self {
            message,
            code: String::new(),
            kind: String::new(),
            param: String::new(),
            error: Value::Null,
            recognised: false,
        }
    }

    fn found(value: &Value) -> Option<Self> {
        let inner = value.get("error").filter(|error| truthy(error));
        let flat = ["message", "detail", "statusCode"];
        let flat = flat.iter().any(|key| {
            value
                .get(key)
                .is_some_and(|said| truthy(said) && !said.is_object())
        }) || is(value, "object", "error")
            || is(value, "type", "error");
        if inner.is_none() && !flat {
            return None;
        }
        let error = inner.filter(|error| error.is_object()).unwrap_or(value);
        let code = first_word(error, &["code", "statusCode"]);
        let kind = first_word(error, &["type", "status"]);
        let message = [
            inner.and_then(|inner| inner.get("message")),
            inner.filter(|inner| inner.is_string()),
        ]
        .into_iter()
        .chain([value.get("message"), value.get("detail")])
        .flatten()
        .find_map(message)
        .unwrap_or_else(|| {
            if code.is_empty() {
                kind.clone()
            } else {
                code.clone()
            }
        });
        Some(Self {
            message,
            code,
            kind,
            param: first_word(error, &["param"]),
            error: error.clone(),
            recognised: true,
        })
    }

    /// Its message in lower case, to look for fragments.
    pub(super) fn lower(&self) -> String {
        self.message.to_ascii_lowercase()
    }

    /// The HTTP status that its code stands for, as OpenRouter, vLLM, LiteLLM and Gemini send it.
    pub(super) fn status(&self) -> Option<u16> {
        let status = self.code.parse().ok();
        status.filter(|status| (400..600).contains(status))
    }

    /// Whether it says that the conversation is too long for the model: by code first, then by the known fragments of messages.
    pub(super) fn overflow(&self) -> bool {
        const CODES: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
        const FRAGMENTS: [&str; 7] = [
            "maximum context length",
            "context size",
            "prompt is too long",
            "input token count",
            "input tokens exceed",
            "too many tokens",
            "reduce the length",
        ];
        let lower = self.lower();
        let exceeds = lower.contains("exceed")
            && (lower.contains("context length") || lower.contains("context window"));
        CODES.contains(&self.code.as_str())
            || CODES.contains(&self.kind.as_str())
            || FRAGMENTS.iter().any(|fragment| lower.contains(fragment))
            || exceeds
    }

    /// The failure that it means, in its words without keys.
    pub(super) fn failure(&self, fault: Fault, model: &Model) -> Failure {
        let detailed = text(&self.error, "/details/error_code");
        let reason = text(&self.error, "/details/0/reason");
        // A number mostly repeats the status: the type says more.
        let named = Some(self.code.as_str())
            .filter(|code| code.parse::<u16>().is_err())
            .unwrap_or_default();
        let codes =
            [detailed, reason, named, &self.kind, &self.code].map(|code| redact(code, model));
        Failure::quoting(
            fault,
            &redact(&self.message, model),
            &codes.each_ref().map(String::as_str),
        )
    }
}

fn is(value: &Value, key: &str, word: &str) -> bool {
    value.get(key).and_then(Value::as_str) == Some(word)
}

/// The first of these members that is a text or a number, as text.
fn first_word(value: &Value, keys: &[&str]) -> String {
    let words = keys.iter().find_map(|key| match value.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    });
    words.unwrap_or_default()
}

/// A message: a text, or FastAPI's list of problems (`loc`, `msg`), or at worst the JSON itself.
fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(problems) => {
            let told = problems.iter().filter_map(|problem| {
                let said = problem.get("msg")?.as_str()?;
                let place = problem.get("loc").map(Value::to_string).unwrap_or_default();
                Some(format!("{place} {said}").trim().to_owned())
            });
            let told: Vec<String> = told.collect();
            (!told.is_empty()).then(|| told.join("; "))
        }
        Value::Object(_) => Some(value.to_string()),
        _ => None,
    }
}
