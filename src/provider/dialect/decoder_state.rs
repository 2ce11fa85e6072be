//! The state that all decoders share. Only here is "ended" distinguished from "complete".

use serde_json::Value;

use crate::domain::{Failure, FaultKind, FinishReason, TokenUsage, is_error_code};
use crate::provider::stream_event::StreamEvent;

#[derive(Default)]
pub(super) struct DecoderState {
    has_text: bool,
    finish_reason: Option<FinishReason>,
    is_refusal: bool,
    has_ended: bool,
}

impl DecoderState {
    pub(super) fn push_text(&mut self, text: &str, out: &mut Vec<StreamEvent>) {
        if text.is_empty() {
            return;
        }
        // White space alone does not count as an answer.
        self.has_text |= !text.trim().is_empty();
        out.push(StreamEvent::Text(text.to_owned()));
    }

    /// Appends the text of a refusal. The answer then finishes as `ContentFilter`, whatever finish
    /// reason follows.
    pub(super) fn push_refusal(&mut self, text: &str, out: &mut Vec<StreamEvent>) {
        self.is_refusal |= !text.is_empty();
        self.push_text(text, out);
    }

    /// Records the finish reason.
    ///
    /// An answer that reached the token limit without text spent its tokens on thinking that was
    /// not sent. That counts as progress, which a one-token probe needs, but not as an answer.
    pub(super) fn set_finish(&mut self, finish: FinishReason, out: &mut Vec<StreamEvent>) {
        self.finish_reason = Some(finish);
        if finish == FinishReason::Length && !self.has_text {
            out.push(StreamEvent::Thinking);
        }
    }

    pub(super) fn mark_ended(&mut self) {
        self.has_ended = true;
    }

    /// Records an end mark that needs no finish reason before it. After text it proves that the
    /// answer is complete.
    pub(super) fn mark_ended_without_finish(&mut self) {
        self.has_ended = true;
        if self.has_text {
            self.finish_reason = self.finish_reason.or(Some(FinishReason::Stop));
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns how the answer finished.
    ///
    /// # Errors
    /// `Truncated` without a finish reason, `Empty` with one but without text.
    pub(super) fn finish_result(&self) -> Result<FinishReason, Failure> {
        match self.finish_reason {
            None if self.has_ended && !self.has_text => Err(Failure::new(FaultKind::Empty)),
            None => Err(Failure::new(FaultKind::Truncated)),
            Some(_) if self.is_refusal => Ok(FinishReason::ContentFilter),
            Some(FinishReason::ContentFilter) => Ok(FinishReason::ContentFilter),
            Some(_) if !self.has_text => Err(Failure::new(FaultKind::Empty)),
            Some(finish) => Ok(finish),
        }
    }
}

/// Takes an unknown finish reason for `Stop`: the server ended the answer in order.
pub(super) fn unknown_finish_reason(reason: &str) -> FinishReason {
    let reason = Some(reason)
        .filter(|reason| is_error_code(reason))
        .unwrap_or("not a code");
    tracing::info!(reason, "unknown finish reason, treated as stop");
    FinishReason::Stop
}

/// Appends the usage, if any of its parts is known.
pub(super) fn push_usage(input: Option<u64>, output: Option<u64>, out: &mut Vec<StreamEvent>) {
    if input.is_some() || output.is_some() {
        out.push(StreamEvent::Usage(TokenUsage {
            input_tokens: input.unwrap_or_default(),
            output_tokens: output.unwrap_or_default(),
            estimated: false,
        }));
    }
}

/// Empty if there is no string at `path`.
pub(super) fn str_at<'a>(value: &'a Value, path: &str) -> &'a str {
    value_at(value, path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(super) fn u64_at(value: &Value, path: &str) -> Option<u64> {
    value_at(value, path).and_then(Value::as_u64)
}

/// `true` if `path` has a value other than null, false, zero, or an empty string, list or object.
pub(super) fn is_set(value: &Value, path: &str) -> bool {
    value_at(value, path).is_some_and(is_truthy)
}

/// The value at a path such as `/choices/0/delta`. As [`Value::pointer`] without escapes, which
/// allocates two strings per key.
pub(super) fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/')
        .skip(1)
        .try_fold(value, |within, key| match within {
            Value::Array(elements) => elements.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        })
}

pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(boolean) => *boolean,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}
