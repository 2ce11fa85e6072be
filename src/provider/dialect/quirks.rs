//! Remembers what a server rejected, so that it is not sent again.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use serde_json::Value;

use super::errors::body::ProviderErrorBody;
use super::messages::{ASSISTANT_ROLE, MessageOrder};
use super::{ErrorResponse, ProviderRequest};

/// The optional parameters (at most eight) that one provider rejected, and its message order.
///
/// Kept in memory only, because servers change.
pub(super) struct ServerQuirks {
    parameters: &'static [&'static str],
    rejected_bits: AtomicU8,
    requires_user_first_and_last: AtomicBool,
}

impl ServerQuirks {
    /// Starts with every parameter accepted. `names` are top-level members of the request.
    pub(super) const fn new(names: &'static [&'static str]) -> Self {
        Self {
            parameters: names,
            rejected_bits: AtomicU8::new(0),
            requires_user_first_and_last: AtomicBool::new(false),
        }
    }

    fn bit_of(&self, name: &str) -> u8 {
        let index = self.parameters.iter().position(|known| *known == name);
        index.map_or(0, |index| 1 << (index % 8))
    }

    pub(super) fn accepts(&self, name: &str) -> bool {
        self.rejected_bits.load(Ordering::Relaxed) & self.bit_of(name) == 0
    }

    /// Remembers and returns the parameter of `sent` that the response rejects, or `None` if it
    /// rejects something else.
    pub(super) fn learn_parameter(
        &self,
        sent: &ProviderRequest,
        response: &ErrorResponse<'_>,
    ) -> Option<&'static str> {
        if !matches!(response.status, 400 | 422) {
            return None;
        }
        let error_body = ProviderErrorBody::from_body(response.body);
        if !error_body.is_structured || error_body.is_context_overflow() {
            return None;
        }
        // Another turn may have learned it meanwhile. Only this request's own content counts.
        let body: Value = serde_json::from_str(&sent.body).ok()?;
        let candidates = self
            .parameters
            .iter()
            .copied()
            .filter(|name| body.get(name).is_some());
        let name = rejected_parameter(&error_body, candidates)?;
        self.rejected_bits
            .fetch_or(self.bit_of(name), Ordering::Relaxed);
        Some(name)
    }

    pub(super) fn message_order(&self) -> MessageOrder {
        if self.requires_user_first_and_last.load(Ordering::Relaxed) {
            MessageOrder::UserFirstAndLast
        } else {
            MessageOrder::Any
        }
    }

    /// Returns `true`, and remembers it, if the response rejects `sent` because its conversation
    /// starts or ends with the model. Some chat templates require alternating roles; some servers
    /// reject an assistant message at the end.
    pub(super) fn learn_message_order(
        &self,
        sent: &ProviderRequest,
        response: &ErrorResponse<'_>,
    ) -> bool {
        const PHRASES: [&str; 5] = [
            "alternate",
            "prefill",
            "add_generation_prompt",
            "last role",
            "last message",
        ];
        let error_body = ProviderErrorBody::from_body(response.body);
        let lower = error_body.lowercase_message();
        let is_rejection = matches!(response.status, 400 | 422 | 500)
            && error_body.is_structured
            && PHRASES.iter().any(|phrase| lower.contains(phrase));
        let is_order_rejected = is_rejection && starts_or_ends_with_assistant(sent);
        self.requires_user_first_and_last
            .fetch_or(is_order_rejected, Ordering::Relaxed);
        is_order_rejected
    }
}

/// `false` as well if the request asks to continue its last message.
fn starts_or_ends_with_assistant(sent: &ProviderRequest) -> bool {
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
    let starts_with_assistant = roles.peek().is_some_and(|role| role == ASSISTANT_ROLE);
    let ends_with_assistant = roles.last().is_some_and(|role| role == ASSISTANT_ROLE);
    let is_prefill = body.get("continue_final_message").is_some();
    (starts_with_assistant || ends_with_assistant) && !is_prefill
}

/// The first of `names` that the error rejects as such, rather than for its size.
fn rejected_parameter(
    error_body: &ProviderErrorBody,
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
    let lower = error_body.lowercase_message();
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
