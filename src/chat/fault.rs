//! The fault table: every way an attempt can fail, the reason clients see, the recovery and the
//! effect on the breaker.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kind of failure of an attempt. Code branches on it; [`Failure`] adds the report text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Connection refused, host unreachable, DNS or TLS failure.
    Unreachable,
    Reset,
    Stalled,
    /// The stream ended without the dialect's end mark.
    Truncated,
    /// No first token, or no end of the answer, within the time limit.
    Timeout,
    /// HTTP 429.
    RateLimited,
    /// HTTP 500, 502, 504, 408 or 409.
    ServerError,
    /// HTTP 503 or 529.
    Overloaded,
    /// The response does not follow the dialect: garbage, an HTML page, an event beyond the limits.
    Malformed,
    Empty,
    /// The answer ended normally but is unusable: shorter than the operator expects, or one token
    /// repeated. The visitor may have asked for exactly that, so it does not affect the breaker.
    Poor,
    /// The API key was rejected (HTTP 401, 403).
    Unauthorized,
    /// The account's quota or credit is used up (HTTP 402, some 429 and 400).
    QuotaSpent,
    /// No such model or path (HTTP 404): the configuration is wrong.
    Misconfigured,
    TooLong,
    Policy,
    /// The request itself is invalid (HTTP 400, 413, 422). Other providers would reject it too.
    BadRequest,
    /// The continuation does not fit the text it should continue.
    Diverged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Retry the same provider once, before any text was shown and within the retry budget.
    RetryHere,
    NextNow,
    /// Try the next provider. This one stays unusable until an operator acts.
    Block,
    /// Try only providers with a larger or unknown context, then send half of the history.
    MoreRoom,
    /// The provider refused to answer. The refusal is the answer, not an outage.
    Policy,
    /// Caused by the request: a chat tries one more provider, the API returns the error.
    Caller,
}

impl Class {
    pub fn is_the_requests(self) -> bool {
        matches!(self, Self::Caller | Self::MoreRoom)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Counts towards the run of failures and the failure rate.
    Hard,
    /// Counts towards the failure rate only: a rate-limited provider is working.
    RateOnly,
    Block,
    /// No evidence about the provider's health.
    Nothing,
}

impl Fault {
    pub const ALL: [Fault; 18] = [
        Fault::Unreachable,
        Fault::Reset,
        Fault::Stalled,
        Fault::Truncated,
        Fault::Timeout,
        Fault::RateLimited,
        Fault::ServerError,
        Fault::Overloaded,
        Fault::Malformed,
        Fault::Empty,
        Fault::Poor,
        Fault::Unauthorized,
        Fault::QuotaSpent,
        Fault::Misconfigured,
        Fault::TooLong,
        Fault::Policy,
        Fault::BadRequest,
        Fault::Diverged,
    ];

    const fn row(self) -> (&'static str, Class, Weight) {
        match self {
            Fault::Unreachable => ("refused", Class::NextNow, Weight::Hard),
            Fault::Reset => ("reset", Class::RetryHere, Weight::Hard),
            Fault::Stalled => ("stalled", Class::NextNow, Weight::Hard),
            Fault::Truncated => ("truncated", Class::NextNow, Weight::Hard),
            Fault::Timeout => ("timeout", Class::NextNow, Weight::Hard),
            Fault::RateLimited => ("rate_limited", Class::RetryHere, Weight::RateOnly),
            Fault::ServerError => ("server_error", Class::RetryHere, Weight::Hard),
            Fault::Overloaded => ("overloaded", Class::NextNow, Weight::Hard),
            Fault::Malformed => ("malformed", Class::NextNow, Weight::Hard),
            Fault::Empty => ("malformed", Class::NextNow, Weight::Hard),
            Fault::Poor => ("malformed", Class::NextNow, Weight::Nothing),
            Fault::Unauthorized => ("refused", Class::Block, Weight::Block),
            Fault::QuotaSpent => ("refused", Class::Block, Weight::Block),
            Fault::Misconfigured => ("refused", Class::NextNow, Weight::Hard),
            Fault::TooLong => ("refused", Class::MoreRoom, Weight::Nothing),
            Fault::Policy => ("refused", Class::Policy, Weight::Nothing),
            Fault::BadRequest => ("refused", Class::Caller, Weight::Nothing),
            Fault::Diverged => ("diverged", Class::RetryHere, Weight::Nothing),
        }
    }

    /// The reason on the wire (`attempt.after.reason`, `restart.reason`, `tried[].outcome`).
    pub const fn reason(self) -> &'static str {
        self.row().0
    }

    pub const fn class(self) -> Class {
        self.row().1
    }

    pub const fn weight(self) -> Weight {
        self.row().2
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Unreachable => "no connection",
            Fault::Reset => "connection reset",
            Fault::Stalled => "stopped sending in mid-answer",
            Fault::Truncated => "answer cut off",
            Fault::Timeout => "no answer in time",
            Fault::RateLimited => "rate limited",
            Fault::ServerError => "server error",
            Fault::Overloaded => "overloaded",
            Fault::Malformed => "unreadable answer",
            Fault::Empty => "empty answer",
            Fault::Poor => "no proper answer",
            Fault::Unauthorized => "key refused",
            Fault::QuotaSpent => "quota spent",
            Fault::Misconfigured => "model or address not found",
            Fault::TooLong => "conversation too long for the model",
            Fault::Policy => "refused by content filter",
            Fault::BadRequest => "request refused",
            Fault::Diverged => "continuation does not fit",
        })
    }
}

/// A fault with its details, for operators and API callers. Visitors only see
/// [`FaultKind::wire_name`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{fault}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
pub struct Failure {
    pub fault: Fault,
    /// At most 300 characters, without control characters and API keys.
    pub detail: String,
    /// The detail is the provider's text. It may quote the visitor, so API callers may see it but
    /// it is never logged.
    pub quoted: bool,
    /// The provider's error code, such as `rate_limit_exceeded`: at most 48 ASCII letters, digits
    /// and underscores. Empty if there is none.
    pub code: String,
    pub status: Option<u16>,
    /// The wait that the provider asks for, at most one day.
    pub retry_after: Option<Duration>,
}

const DETAIL_CHARS: usize = 300;

/// The maximum length of [`Failure::code`]. The longest codes of vendors have about 40 characters.
const CODE_CHARS: usize = 48;

impl Failure {
    pub fn of(fault: Fault) -> Self {
        Self {
            fault,
            detail: String::new(),
            quoted: false,
            code: String::new(),
            status: None,
            retry_after: None,
        }
    }

    /// A failure with the provider's text, sanitised and truncated, and the first valid code of
    /// `codes`. The caller must redact API keys first, because only the caller knows them.
    pub fn quoting(fault: Fault, text: &str, codes: &[&str]) -> Self {
        let code = codes
            .iter()
            .find(|code| is_code(code))
            .copied()
            .unwrap_or_default();
        Self {
            quoted: true,
            code: code.to_owned(),
            ..Self::with(fault, text)
        }
    }

    /// A failure with a text of our own, sanitised and truncated. The text must not quote anybody.
    pub fn with(fault: Fault, detail: &str) -> Self {
        let detail = detail
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(DETAIL_CHARS)
            .collect::<String>();
        Self {
            detail: detail.trim().to_owned(),
            ..Self::of(fault)
        }
    }

    /// The text for logs. Replaces a provider's text, which may quote the visitor, by its code.
    pub fn for_logs(&self) -> String {
        match (self.quoted, self.code.as_str()) {
            (false, _) => self.to_string(),
            (true, "") => self.fault.to_string(),
            (true, code) => format!("{} ({code})", self.fault),
        }
    }
}

/// Returns `true` for a short identifier. Some providers send a sentence in the code field.
pub fn is_code(text: &str) -> bool {
    let is_code_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.len() <= CODE_CHARS && text.bytes().all(is_code_byte)
}

/// The outcome of an attempt in `done.tried` and in metrics: `ok`, `stopped` or a fault's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Outcome(&'static str);

impl Outcome {
    pub const OK: Outcome = Outcome("ok");
    /// The visitor cancelled, or no follower was left.
    pub const STOPPED: Outcome = Outcome("stopped");
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self(fault.reason())
    }
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        let known = Fault::ALL
            .into_iter()
            .map(Outcome::from)
            .chain([Outcome::OK, Outcome::STOPPED]);
        let found = known.into_iter().find(|outcome| outcome.0 == text);
        found.ok_or_else(|| serde::de::Error::custom("not an outcome"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [&str; 10] = [
        "reset",
        "stalled",
        "truncated",
        "timeout",
        "rate_limited",
        "server_error",
        "malformed",
        "overloaded",
        "refused",
        "diverged",
    ];

    #[test]
    fn every_reason_is_part_of_the_protocol() {
        for fault in Fault::ALL {
            assert!(REASONS.contains(&fault.reason()), "{fault:?}");
        }
    }

    #[test]
    fn request_faults_do_not_affect_the_breaker() {
        for fault in Fault::ALL {
            let is_request_fault = matches!(
                fault.class(),
                Class::MoreRoom | Class::Policy | Class::Caller
            );
            if is_request_fault {
                assert_eq!(fault.weight(), Weight::Nothing, "{fault:?}");
            }
            assert_eq!(
                fault.class() == Class::Block,
                fault.weight() == Weight::Block,
                "{fault:?}"
            );
        }
    }

    #[test]
    fn provider_text_is_not_logged_but_its_code_is() {
        for fault in Fault::ALL {
            let failure = Failure::quoting(fault, "it said this", &["", "its_Code2"]);
            assert_eq!(
                (failure.detail.as_str(), failure.code.as_str()),
                ("it said this", "its_Code2")
            );
            assert_eq!(failure.for_logs(), format!("{fault} (its_Code2)"));
            assert_eq!(
                Failure::quoting(fault, "it said this", &[]).for_logs(),
                fault.to_string()
            );
            assert_eq!(
                Failure::with(fault, "we say this").for_logs(),
                format!("{fault}: we say this")
            );
        }
        let long = "x".repeat(49);
        for code in [
            "what the visitor said",
            "a.b",
            "a-b",
            "a\nb",
            "ä",
            long.as_str(),
        ] {
            assert_eq!(
                Failure::quoting(Fault::BadRequest, "", &[code]).code,
                "",
                "{code}"
            );
        }
    }

    #[test]
    fn detail_is_truncated_and_has_no_control_characters() {
        let failure = Failure::with(
            Fault::ServerError,
            &format!("a\nb\u{7}{}", "x".repeat(1000)),
        );
        assert_eq!(failure.detail.chars().count(), 300);
        assert!(!failure.detail.contains(['\n', '\u{7}']));
        assert_eq!(Failure::of(Fault::Reset).to_string(), "connection reset");
    }
}
