//! The one fault table: every way an attempt can fail, what visitors are told of it, what follows, what breakers make of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an attempt at a provider failed. Small, to branch on; the report text stands beside it in [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No connection: refused, unreachable, no name, no TLS.
    Unreachable,
    /// The connection broke.
    Reset,
    /// Tokens stopped coming in mid-answer.
    Stalled,
    /// The stream ended without the dialect's proof that the answer is whole.
    Truncated,
    /// No first token, or no end, within the limit.
    Timeout,
    /// Too many requests (429).
    RateLimited,
    /// The provider's own error (500, 502, 504, 408, 409).
    ServerError,
    /// The provider has no room just now (503, 529).
    Overloaded,
    /// What came is not of the dialect: rubbish, a web page, an event beyond the limits.
    Malformed,
    /// The answer ended in good order with nothing in it.
    Empty,
    /// The answer ended in good order and is none: too short for what the operator expects, or one token over and over. Its visitor may have
    /// asked for just that, so it says nothing of the provider's health.
    Poor,
    /// The key is refused (401, 403).
    Unauthorized,
    /// The account's quota or credit is spent (402, some 429 and 400).
    QuotaSpent,
    /// No such model or path (404): the configuration is wrong.
    Misconfigured,
    /// The conversation is longer than the model's context.
    TooLong,
    /// The provider's filter refuses the question.
    Policy,
    /// The request itself is refused (400, 413, 422): the same everywhere.
    BadRequest,
    /// A continuation that does not fit the text it was to continue.
    Diverged,
}

/// What follows a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Quick and passing: the same provider may be asked once more, before any text, within the retry budget.
    RetryHere,
    /// The next provider, at once.
    NextNow,
    /// The next provider; this one is unusable until an operator acts.
    Block,
    /// Only a provider with more, or unknown, room; then half the history.
    MoreRoom,
    /// A refusal: it is the answer, not an outage.
    Policy,
    /// The request's own fault: one more provider in a chat, passed on over the API.
    Caller,
}

impl Class {
    /// Whether it was the request that was wrong, and no provider.
    pub fn is_the_requests(self) -> bool {
        matches!(self, Self::Caller | Self::MoreRoom)
    }
}

/// What a breaker makes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Counts to the run of failures and to the rate.
    Hard,
    /// Counts to the rate, never to the run: a rate limit is the provider at work.
    RateOnly,
    /// Blocks at once.
    Block,
    /// Says nothing about the provider's health.
    Nothing,
}

impl Fault {
    /// Every fault, for tests and tables.
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

    /// The row of the table: the reason that visitors and programs are told, what follows, the breaker's weight.
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

    /// The reason as the protocol says it (`attempt.after.reason`, `restart.reason`, `tried[].outcome`).
    pub const fn reason(self) -> &'static str {
        self.row().0
    }

    /// What follows.
    pub const fn class(self) -> Class {
        self.row().1
    }

    /// What a breaker makes of it.
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

/// A fault with what is known of it. For operators and callers of the API; visitors are told [`Fault::reason`] alone.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{fault}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
pub struct Failure {
    /// What to branch on.
    pub fault: Fault,
    /// What more there is to say: at most 300 characters, no control characters, no key.
    pub detail: String,
    /// Whether the detail is in the provider's words. They may quote the visitor, so they are for the caller of the API and for no log.
    pub quoted: bool,
    /// The provider's own name for it, such as `rate_limit_exceeded`: letters, digits and underscores, at most 48 of them. Empty for none.
    pub code: String,
    /// The HTTP status, where one came.
    pub status: Option<u16>,
    /// How long the provider asks to be left alone; at most a day.
    pub retry_after: Option<Duration>,
}

/// The longest report text kept of a failure, in characters.
const DETAIL_CHARS: usize = 300;

/// The longest code kept of a failure, in characters: vendors' longest are around 40.
const CODE_CHARS: usize = 48;

impl Failure {
    /// A failure of which nothing more is known.
    pub fn of(fault: Fault) -> Self {
        let (detail, code) = (String::new(), String::new());
        Self {
            fault,
            detail,
            quoted: false,
            code,
            status: None,
            retry_after: None,
        }
    }

    /// A failure in the provider's words, cleaned and cut, with the first of `codes` that is one. Keys are the caller's to redact: only it
    /// knows them.
    pub fn quoting(fault: Fault, words: &str, codes: &[&str]) -> Self {
        let code = codes
            .iter()
            .find(|code| is_code(code))
            .copied()
            .unwrap_or_default();
        Self {
            quoted: true,
            code: code.to_owned(),
            ..Self::with(fault, words)
        }
    }

    /// A failure in words of our own, cleaned and cut: they quote nobody.
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

    /// What may be logged of it: never a provider's words, which may repeat what the visitor said, and its code instead.
    pub fn for_logs(&self) -> String {
        match (self.quoted, self.code.as_str()) {
            (false, _) => self.to_string(),
            (true, "") => self.fault.to_string(),
            (true, code) => format!("{} ({code})", self.fault),
        }
    }
}

/// Whether this is a code, short and of plain letters, rather than words in a code's place.
pub fn is_code(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.len() <= CODE_CHARS && text.bytes().all(plain)
}

/// The outcome of an attempt as `done.tried` and the metrics say it: `ok`, `stopped`, or a fault's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Outcome(&'static str);

impl Outcome {
    /// A whole answer.
    pub const OK: Outcome = Outcome("ok");
    /// Cancelled by the visitor, or by nobody following.
    pub const STOPPED: Outcome = Outcome("stopped");
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self(fault.reason())
    }
}

impl Outcome {
    /// The word itself.
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
    fn every_reason_is_one_of_the_protocol() {
        for fault in Fault::ALL {
            assert!(REASONS.contains(&fault.reason()), "{fault:?}");
        }
    }

    #[test]
    fn what_says_nothing_of_health_moves_no_breaker() {
        for fault in Fault::ALL {
            let ours = matches!(
                fault.class(),
                Class::MoreRoom | Class::Policy | Class::Caller
            );
            if ours {
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
    fn a_providers_words_are_not_for_logs_and_its_code_is() {
        for fault in Fault::ALL {
            let told = Failure::quoting(fault, "it said this", &["", "its_Code2"]);
            assert_eq!(
                (told.detail.as_str(), told.code.as_str()),
                ("it said this", "its_Code2")
            );
            assert_eq!(told.for_logs(), format!("{fault} (its_Code2)"));
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
        for words in [
            "what the visitor said",
            "a.b",
            "a-b",
            "a\nb",
            "ä",
            long.as_str(),
        ] {
            assert_eq!(
                Failure::quoting(Fault::BadRequest, "", &[words]).code,
                "",
                "{words}"
            );
        }
    }

    #[test]
    fn a_report_is_short_and_on_one_line() {
        let failure = Failure::with(
            Fault::ServerError,
            &format!("a\nb\u{7}{}", "x".repeat(1000)),
        );
        assert_eq!(failure.detail.chars().count(), 300);
        assert!(!failure.detail.contains(['\n', '\u{7}']));
        assert_eq!(Failure::of(Fault::Reset).to_string(), "connection reset");
    }
}
