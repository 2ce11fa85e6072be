//! Remembers what a server rejected, so that it is not sent again.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use serde_json::Value;

use super::complaint::Complaint;
use super::said::{ASSISTANT, Order};
use super::{Call, Refused};

/// The optional parameters (at most eight) that one provider rejected, and its message order.
///
/// Kept in memory only, because servers change.
pub(super) struct Learned {
    names: &'static [&'static str],
    refused: AtomicU8,
    strict: AtomicBool,
}

impl Learned {
    /// Starts with every parameter accepted. `names` are top-level members of the request.
    pub(super) const fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            refused: AtomicU8::new(0),
            strict: AtomicBool::new(false),
        }
    }

    fn bit(&self, name: &str) -> u8 {
        let index = self.names.iter().position(|known| *known == name);
        index.map_or(0, |index| 1 << (index % 8))
    }

    pub(super) fn takes(&self, name: &str) -> bool {
        self.refused.load(Ordering::Relaxed) & self.bit(name) == 0
    }

    /// Remembers and returns the parameter of `sent` that the response rejects, or `None` if it
    /// rejects something else.
    pub(super) fn learn(&self, sent: &Call, response: &Refused<'_>) -> Option<&'static str> {
        if !matches!(response.status, 400 | 422) {
            return None;
        }
        let error_body = Complaint::of(response.body);
        if !error_body.recognised || error_body.overflow() {
            return None;
        }
        // Another turn may have learned it meanwhile. Only this request's own content counts.
        let body: Value = serde_json::from_str(&sent.body).ok()?;
        let candidates = self
            .names
            .iter()
            .copied()
            .filter(|name| body.get(name).is_some());
        let name = named(&error_body, candidates)?;
        self.refused.fetch_or(self.bit(name), Ordering::Relaxed);
        Some(name)
    }

    pub(super) fn order(&self) -> Order {
        if self.strict.load(Ordering::Relaxed) {
            Order::Strict
        } else {
            Order::Free
        }
    }

    /// Returns `true`, and remembers it, if the response rejects `sent` because its conversation
    /// starts or ends with the model. Some chat templates require alternating roles; some servers
    /// reject an assistant message at the end.
    pub(super) fn learn_order(&self, sent: &Call, response: &Refused<'_>) -> bool {
        const PHRASES: [&str; 5] = [
            "alternate",
            "prefill",
            "add_generation_prompt",
            "last role",
            "last message",
        ];
        let error_body = Complaint::of(response.body);
        let lower = error_body.lower();
        let is_rejection = matches!(response.status, 400 | 422 | 500)
            && error_body.recognised
            && PHRASES.iter().any(|phrase| lower.contains(phrase));
        let is_order_rejected = is_rejection && odd_order(sent);
        self.strict.fetch_or(is_order_rejected, Ordering::Relaxed);
        is_order_rejected
    }
}

/// `false` as well if the request asks to continue its last message.
fn odd_order(sent: &Call) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(&sent.body) else {
        return false;
    };
    let messages = body.get("messages").and_then(Value::as_array);
    let role = |message: &Value| {
        message
            .get("role")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let mut roles = messages
        .into_iter()
        .flatten()
        .filter_map(role)
        .filter(|role| role != "system")
        .peekable();
    let starts_with_assistant = roles.peek().is_some_and(|role| role == ASSISTANT);
    let ends_with_assistant = roles.last().is_some_and(|role| role == ASSISTANT);
    let is_prefill = body.get("continue_final_message").is_some();
    (starts_with_assistant || ends_with_assistant) && !is_prefill
}

/// The first of `names` that the error rejects as such, rather than for its size.
fn named(
    error_body: &Complaint,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    const CODES: [&str; 3] = [
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter",
    ];
    const PHRASES: [&str; 10] = [
        "unsupported",
        "not supported",
        "not support",
        "unrecognized",
        "unknown",
        "unexpected",
        "not permitted",
        "not allowed",
        "deprecated",
        "removed",
    ];
    let lower = error_body.lower();
    let is_rejection = CODES.contains(&error_body.code.as_str())
        || PHRASES.iter().any(|phrase| lower.contains(phrase));
    if !is_rejection {
        return None;
    }
    let mut names = names;
    if error_body.param.is_empty() {
        // A message may suggest another name after the one that it rejects: the first one counts.
        let positions = names.filter_map(|name| Some((lower.find(name)?, name)));
        positions.min().map(|(_, name)| name)
    } else {
        names.find(|name| error_body.param == *name)
    }
}
