//! What a server was found not to take: parameters that it refused and that are left out, or said otherwise, from then on.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use serde_json::Value;

use super::complaint::Complaint;
use super::said::{ASSISTANT, Order};
use super::{Call, Refused};

/// At most eight optional parameters of one provider, and which of them it refused. Forgotten with the process: a server learns too.
pub(super) struct Learned {
    names: &'static [&'static str],
    refused: AtomicU8,
    /// It refused a conversation for who begins or ends it.
    strict: AtomicBool,
}

impl Learned {
    /// Nothing refused yet of these parameters, which are top-level members of the request.
    pub(super) const fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            refused: AtomicU8::new(0),
            strict: AtomicBool::new(false),
        }
    }

    fn bit(&self, name: &str) -> u8 {
        let place = self.names.iter().position(|known| *known == name);
        place.map_or(0, |place| 1 << (place % 8))
    }

    /// Whether the server takes this parameter, as far as is known.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.refused.load(Ordering::Relaxed) & self.bit(name) == 0
    }

    /// The parameter of `sent` that the answer refuses, from now on remembered; none where it refuses something else.
    pub(super) fn learn(&self, sent: &Call, answer: &Refused<'_>) -> Option<&'static str> {
        if !matches!(answer.status, 400 | 422) {
            return None;
        }
        let complaint = Complaint::of(answer.body);
        if !complaint.recognised || complaint.overflow() {
            return None;
        }
        // Another turn may have learned it meanwhile: what counts is that this request still had it.
        let body: Value = serde_json::from_str(&sent.body).ok()?;
        let sent = self
            .names
            .iter()
            .copied()
            .filter(|name| body.get(name).is_some());
        let name = named(&complaint, sent)?;
        self.refused.fetch_or(self.bit(name), Ordering::Relaxed);
        Some(name)
    }

    /// The order of the conversations that the server takes, as far as is known.
    pub(super) fn order(&self) -> Order {
        if self.strict.load(Ordering::Relaxed) {
            Order::Strict
        } else {
            Order::Free
        }
    }

    /// Whether the answer refuses `sent` for who begins or ends its conversation, from now on remembered. Some models' templates take only
    /// what goes to and fro between the user and the model; some servers take no answer as the last message.
    pub(super) fn learn_order(&self, sent: &Call, answer: &Refused<'_>) -> bool {
        const PHRASES: [&str; 5] = [
            "alternate",
            "prefill",
            "add_generation_prompt",
            "last role",
            "last message",
        ];
        let complaint = Complaint::of(answer.body);
        let lower = complaint.lower();
        let refuses = matches!(answer.status, 400 | 422 | 500)
            && complaint.recognised
            && PHRASES.iter().any(|phrase| lower.contains(phrase));
        let odd = refuses && odd_order(sent);
        self.strict.fetch_or(odd, Ordering::Relaxed);
        odd
    }
}

/// Whether the conversation that was sent begins or ends with the model, and is not marked as one to be gone on with.
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
    let first = roles.peek().is_some_and(|role| role == ASSISTANT);
    let last = roles.last().is_some_and(|role| role == ASSISTANT);
    let marked = body.get("continue_final_message").is_some();
    (first || last) && !marked
}

/// Which of `names` the complaint refuses as such, not merely its value's size.
fn named(complaint: &Complaint, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
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
    let lower = complaint.lower();
    let refuses = CODES.contains(&complaint.code.as_str())
        || PHRASES.iter().any(|phrase| lower.contains(phrase));
    if !refuses {
        return None;
    }
    let mut names = names;
    if complaint.param.is_empty() {
        // A message may propose another name after the one that it refuses.
        let placed = names.filter_map(|name| Some((lower.find(name)?, name)));
        placed.min().map(|(_, name)| name)
    } else {
        names.find(|name| complaint.param == *name)
    }
}
