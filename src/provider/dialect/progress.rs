//! The state that all decoders share. Only here is "ended" distinguished from "complete".

use serde_json::Value;

use crate::chat::{Failure, Fault, Finish, is_code};
use crate::provider::upstream::Step;

#[derive(Default)]
pub(super) struct Progress {
    shown: bool,
    finish_reason: Option<Finish>,
    is_refusal: bool,
    has_ended: bool,
}

impl Progress {
    pub(super) fn text(&mut self, text: &str, out: &mut Vec<Step>) {
        if text.is_empty() {
            return;
        }
        // White space alone does not count as an answer.
        self.shown |= !text.trim().is_empty();
        out.push(Step::Text(text.to_owned()));
    }

    /// Appends the text of a refusal. The answer then finishes as `ContentFilter`, whatever finish
    /// reason follows.
    pub(super) fn refusal(&mut self, text: &str, out: &mut Vec<Step>) {
        self.is_refusal |= !text.is_empty();
        self.text(text, out);
    }

    /// Records the finish reason.
    ///
    /// An answer that reached the token limit without text spent its tokens on thinking that was
    /// not sent. That counts as progress, which a one-token probe needs, but not as an answer.
    pub(super) fn finish(&mut self, finish: Finish, out: &mut Vec<Step>) {
        self.finish_reason = Some(finish);
        if finish == Finish::Length && !self.shown {
            out.push(Step::Thinking);
        }
    }

    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Records an end mark that needs no finish reason before it. After text it proves that the
    /// answer is complete.
    pub(super) fn end_alone(&mut self) {
        self.has_ended = true;
        if self.shown {
            self.finish_reason = self.finish_reason.or(Some(Finish::Stop));
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.has_ended
    }

    /// Returns how the answer finished.
    ///
    /// # Errors
    /// `Truncated` without a finish reason, `Empty` with one but without text.
    pub(super) fn verdict(&self) -> Result<Finish, Failure> {
        match self.finish_reason {
            None if self.has_ended && !self.shown => Err(Failure::of(Fault::Empty)),
            None => Err(Failure::of(Fault::Truncated)),
            Some(_) if self.is_refusal => Ok(Finish::ContentFilter),
            Some(Finish::ContentFilter) => Ok(Finish::ContentFilter),
            Some(_) if !self.shown => Err(Failure::of(Fault::Empty)),
            Some(finish) => Ok(finish),
        }
    }
}

/// Takes an unknown finish reason for `Stop`: the server ended the answer in order.
pub(super) fn unknown(reason: &str) -> Finish {
    let reason = Some(reason)
        .filter(|reason| is_code(reason))
        .unwrap_or("not a code");
    tracing::info!(reason, "unknown finish reason, treated as stop");
    Finish::Stop
}

/// Parses the JSON objects of an event: none in a blank one or in another dialect's end mark,
/// several in an array.
///
/// # Errors
/// `Malformed` for anything else. The detail does not repeat the data, which may be message text.
pub(super) fn objects(data: &str) -> Result<Vec<Value>, Failure> {
    let data = data.trim();
    if data.is_empty() || data.starts_with("[DONE]") {
        return Ok(Vec::new());
    }
    let found = match serde_json::from_str(data) {
        Ok(Value::Array(elements)) => elements,
        Ok(value) => vec![value],
        Err(_) => return Err(Failure::with(Fault::Malformed, "an event that is not JSON")),
    };
    if found.iter().all(Value::is_object) {
        Ok(found)
    } else {
        let detail = "an event that is not a JSON object";
        Err(Failure::with(Fault::Malformed, detail))
    }
}

/// Empty if there is no string at `path`.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn count(value: &Value, path: &str) -> Option<u64> {
    at(value, path).and_then(Value::as_u64)
}

/// `true` if `path` has a value other than null, false, zero, or an empty string, list or object.
pub(super) fn holds(value: &Value, path: &str) -> bool {
    at(value, path).is_some_and(truthy)
}

/// The value at a path such as `/choices/0/delta`. As [`Value::pointer`] without escapes, which
/// allocates two strings per key.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/')
        .skip(1)
        .try_fold(value, |within, key| match within {
            Value::Array(elements) => elements.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        })
}

pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(boolean) => *boolean,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}
