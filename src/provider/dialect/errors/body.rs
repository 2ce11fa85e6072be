//! The many shapes of a provider's error, parsed into one.

use serde_json::Value;

use crate::domain::{Failure, FaultKind};

use super::redact::redact;
use crate::provider::dialect::config::ModelConfig;
use crate::provider::dialect::decoder_state::{is_truthy, str_at};

#[derive(Default)]
pub(crate) struct ProviderErrorBody {
    /// The provider's text, keys not redacted yet: [`ProviderErrorBody::to_failure`] does that.
    pub(crate) message: String,
    /// Numbers are converted to text. Empty if absent.
    pub(crate) code: String,
    /// Gemini's status word serves as its type. Empty if absent.
    pub(crate) error_type: String,
    /// The parameter that the error names. Empty if absent.
    pub(crate) param: String,
    /// The object with these members, for fields that only one dialect has.
    pub(crate) error: Value,
    /// `false` if the body has no error structure and serves as the message as it is.
    pub(crate) is_structured: bool,
}

impl ProviderErrorBody {
    /// Parses the body of an HTTP error. A body that is not JSON becomes the message.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Self::unstructured(text.trim().to_owned());
        };
        // Gemini wraps an error in an array if a stream was requested.
        let value = match value {
            Value::Array(elements) => elements.into_iter().next().unwrap_or_default(),
            value => value,
        };
        Self::parse(&value).unwrap_or_else(|| Self::unstructured(text.trim().to_owned()))
    }

    /// Parses an event. `None` unless it is an error: an error object, text or event, or a flat
    /// error without the members of an answer.
    pub(crate) fn from_event(event: &Value) -> Option<Self> {
        let is_marked = event.get("error").is_some_and(is_truthy)
            || member_equals(event, "object", "error")
            || member_equals(event, "type", "error");
        let answer_members = ["choices", "candidates", "done", "type"];
        let is_flat = !answer_members.iter().any(|key| event.get(key).is_some());
        (is_marked || is_flat).then(|| Self::parse(event)).flatten()
    }

    fn unstructured(message: String) -> Self {
        Self {
            message,
            ..Self::default()
        }
    }

    fn parse(value: &Value) -> Option<Self> {
        let inner = value.get("error").filter(|error| is_truthy(error));
        let flat_members = ["message", "detail", "statusCode"];
        let is_flat = flat_members.iter().any(|key| {
            value
                .get(key)
                .is_some_and(|member| is_truthy(member) && !member.is_object())
        }) || member_equals(value, "object", "error")
            || member_equals(value, "type", "error");
        if inner.is_none() && !is_flat {
            return None;
        }
        let error = inner.filter(|error| error.is_object()).unwrap_or(value);
        let code = first_scalar(error, &["code", "statusCode"]);
        let kind = first_scalar(error, &["type", "status"]);
        let message = [
            inner.and_then(|inner| inner.get("message")),
            inner.filter(|inner| inner.is_string()),
        ]
        .into_iter()
        .chain([value.get("message"), value.get("detail")])
        .flatten()
        .find_map(extract_message)
        .unwrap_or_else(|| if code.is_empty() { &kind } else { &code }.clone());
        Some(Self {
            message,
            code,
            error_type: kind,
            param: first_scalar(error, &["param"]),
            error: error.clone(),
            is_structured: true,
        })
    }

    pub(crate) fn lowercase_message(&self) -> String {
        self.message.to_ascii_lowercase()
    }

    /// The HTTP status in `code`, as OpenRouter, vLLM, LiteLLM and Gemini send it.
    pub(crate) fn http_status(&self) -> Option<u16> {
        let status = self.code.parse().ok();
        status.filter(|status| (400..600).contains(status))
    }

    /// `true` if the conversation is too long for the model, by code or by known message fragments.
    pub(crate) fn is_context_overflow(&self) -> bool {
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
        let lower = self.lowercase_message();
        let exceeds = lower.contains("exceed")
            && (lower.contains("context length") || lower.contains("context window"));
        CODES.contains(&self.code.as_str())
            || CODES.contains(&self.error_type.as_str())
            || FRAGMENTS.iter().any(|fragment| lower.contains(fragment))
            || exceeds
    }

    /// The failure for this error, with keys redacted in its detail.
    pub(crate) fn to_failure(&self, fault: FaultKind, model: &ModelConfig) -> Failure {
        let detail_code = str_at(&self.error, "/details/error_code");
        let reason = str_at(&self.error, "/details/0/reason");
        // A numeric code mostly repeats the status, so the type says more.
        let symbolic_code = Some(self.code.as_str())
            .filter(|code| code.parse::<u16>().is_err())
            .unwrap_or_default();
        let codes = [
            detail_code,
            reason,
            symbolic_code,
            &self.error_type,
            &self.code,
        ]
        .map(|code| redact(code, model));
        Failure::from_provider(
            fault,
            &redact(&self.message, model),
            &codes.each_ref().map(String::as_str),
        )
    }
}

fn member_equals(value: &Value, key: &str, word: &str) -> bool {
    value.get(key).and_then(Value::as_str) == Some(word)
}

fn first_scalar(value: &Value, keys: &[&str]) -> String {
    let scalar = keys.iter().find_map(|key| match value.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    });
    scalar.unwrap_or_default()
}

/// Extracts a message from a string, from FastAPI's list of problems (`loc`, `msg`), or else from
/// the JSON itself.
fn extract_message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(problems) => {
            let messages = problems.iter().filter_map(|problem| {
                let message = problem.get("msg")?.as_str()?;
                let location = problem.get("loc").map(Value::to_string).unwrap_or_default();
                Some(format!("{location} {message}").trim().to_owned())
            });
            let messages: Vec<String> = messages.collect();
            (!messages.is_empty()).then(|| messages.join("; "))
        }
        Value::Object(_) => Some(value.to_string()),
        _ => None,
    }
}
