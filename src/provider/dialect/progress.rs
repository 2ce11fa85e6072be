//! How far an answer has come: what all readers keep, and the one place where "ended" is told from "complete".

use serde_json::Value;

use crate::chat::{Failure, Fault, Finish, is_code};
use crate::provider::upstream::Step;

/// The state of one answer.
#[derive(Default)]
pub(super) struct Progress {
    shown: bool,
    finish: Option<Finish>,
    refusal: bool,
    ended: bool,
}

impl Progress {
    /// More text; nothing where it is empty.
    pub(super) fn text(&mut self, text: &str, out: &mut Vec<Step>) {
        if text.is_empty() {
            return;
        }
        // White space alone is no answer.
        self.shown |= !text.trim().is_empty();
        out.push(Step::Text(text.to_owned()));
    }

    /// Text of a refusal: shown, and the answer finishes as a refusal whatever reason it gives.
    pub(super) fn refusal(&mut self, text: &str, out: &mut Vec<Step>) {
        self.refusal |= !text.is_empty();
        self.text(text, out);
    }

    /// The dialect's finish was seen.
    ///
    /// At the limit of tokens with nothing shown they went into thinking that was not sent: that is progress, and proof enough for a question
    /// of one token, though no answer.
    pub(super) fn finish(&mut self, finish: Finish, out: &mut Vec<Step>) {
        self.finish = Some(finish);
        if finish == Finish::Length && !self.shown {
            out.push(Step::Thinking);
        }
    }

    /// The end mark was seen.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The end mark was seen, and after text it is proof enough.
    pub(super) fn end_alone(&mut self) {
        self.ended = true;
        if self.shown {
            self.finish = self.finish.or(Some(Finish::Stop));
        }
    }

    /// Whether the end mark was seen.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// How the answer finished.
    ///
    /// # Errors
    /// `Truncated` without a finish, `Empty` with one but without anything to show.
    pub(super) fn verdict(&self) -> Result<Finish, Failure> {
        match self.finish {
            None if self.ended && !self.shown => Err(Failure::of(Fault::Empty)),
            None => Err(Failure::of(Fault::Truncated)),
            Some(_) if self.refusal => Ok(Finish::ContentFilter),
            Some(Finish::ContentFilter) => Ok(Finish::ContentFilter),
            Some(_) if !self.shown => Err(Failure::of(Fault::Empty)),
            Some(finish) => Ok(finish),
        }
    }
}

/// A finish reason that the dialect does not know: the answer ended in order, so it counts as whole.
pub(super) fn unknown(reason: &str) -> Finish {
    let reason = Some(reason)
        .filter(|reason| is_code(reason))
        .unwrap_or("in words");
    tracing::info!(reason, "unknown finish reason taken for stop");
    Finish::Stop
}

/// The JSON objects in an event: none in a blank one or an end mark of another dialect, several in an array.
///
/// # Errors
/// `Malformed` for anything else. Its detail does not repeat the data, which may be message text.
pub(super) fn objects(data: &str) -> Result<Vec<Value>, Failure> {
    let data = data.trim();
    if data.is_empty() || data.starts_with("[DONE]") {
        return Ok(Vec::new());
    }
    let found = match serde_json::from_str(data) {
        Ok(Value::Array(all)) => all,
        Ok(one) => vec![one],
        Err(_) => return Err(Failure::with(Fault::Malformed, "an event that is not JSON")),
    };
    if found.iter().all(Value::is_object) {
        Ok(found)
    } else {
        let detail = "an event that is no JSON object";
        Err(Failure::with(Fault::Malformed, detail))
    }
}

/// The text at `path`; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The count at `path`, where there is one.
pub(super) fn count(value: &Value, path: &str) -> Option<u64> {
    at(value, path).and_then(Value::as_u64)
}

/// Whether there is something at `path`: not null, false, zero, or an empty text, list or object.
pub(super) fn holds(value: &Value, path: &str) -> bool {
    at(value, path).is_some_and(truthy)
}

/// What stands at a path of keys and places, each after a slash. [`Value::pointer`] without its escapes, for which it makes two new texts a key.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/')
        .skip(1)
        .try_fold(value, |within, key| match within {
            Value::Array(all) => all.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        })
}

/// Whether a value says anything.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}
