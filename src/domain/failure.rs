//! The fault table: every way an attempt can fail, the reason clients see, the recovery and the
//! effect on the breaker.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kind of failure of an attempt. Code branches on it; [`Failure`] adds the report text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
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
pub enum Recovery {
    /// Retry the same provider once, before any text was shown and within the retry budget.
    RetrySame,
    NextProvider,
    /// Try the next provider. This one stays unusable until an operator acts.
    Block,
    /// Try only providers with a larger or unknown context, then send half of the history.
    LargerContext,
    /// The provider refused to answer. The refusal is the answer, not an outage.
    ContentFilter,
    /// Caused by the request: a chat tries one more provider, the API returns the error.
    CallerError,
}

impl Recovery {
    pub fn is_caller_fault(self) -> bool {
        matches!(self, Self::CallerError | Self::LargerContext)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerImpact {
    /// Counts towards the run of failures and the failure rate.
    Failure,
    /// Counts towards the failure rate only: a rate-limited provider is working.
    RateOnly,
    Block,
    /// No evidence about the provider's health.
    Ignored,
}

impl FaultKind {
    pub const ALL: [Self; 18] = [
        Self::Unreachable,
        Self::Reset,
        Self::Stalled,
        Self::Truncated,
        Self::Timeout,
        Self::RateLimited,
        Self::ServerError,
        Self::Overloaded,
        Self::Malformed,
        Self::Empty,
        Self::Poor,
        Self::Unauthorized,
        Self::QuotaSpent,
        Self::Misconfigured,
        Self::TooLong,
        Self::Policy,
        Self::BadRequest,
        Self::Diverged,
    ];

    const fn properties(self) -> (&'static str, Recovery, BreakerImpact) {
        match self {
            Self::Unreachable => ("refused", Recovery::NextProvider, BreakerImpact::Failure),
            Self::Reset => ("reset", Recovery::RetrySame, BreakerImpact::Failure),
            Self::Stalled => ("stalled", Recovery::NextProvider, BreakerImpact::Failure),
            Self::Truncated => ("truncated", Recovery::NextProvider, BreakerImpact::Failure),
            Self::Timeout => ("timeout", Recovery::NextProvider, BreakerImpact::Failure),
            Self::RateLimited => ("rate_limited", Recovery::RetrySame, BreakerImpact::RateOnly),
            Self::ServerError => ("server_error", Recovery::RetrySame, BreakerImpact::Failure),
            Self::Overloaded => ("overloaded", Recovery::NextProvider, BreakerImpact::Failure),
            Self::Malformed => ("malformed", Recovery::NextProvider, BreakerImpact::Failure),
            Self::Empty => ("malformed", Recovery::NextProvider, BreakerImpact::Failure),
            Self::Poor => ("malformed", Recovery::NextProvider, BreakerImpact::Ignored),
            Self::Unauthorized => ("refused", Recovery::Block, BreakerImpact::Block),
            Self::QuotaSpent => ("refused", Recovery::Block, BreakerImpact::Block),
            Self::Misconfigured => ("refused", Recovery::NextProvider, BreakerImpact::Failure),
            Self::TooLong => ("refused", Recovery::LargerContext, BreakerImpact::Ignored),
            Self::Policy => ("refused", Recovery::ContentFilter, BreakerImpact::Ignored),
            Self::BadRequest => ("refused", Recovery::CallerError, BreakerImpact::Ignored),
            Self::Diverged => ("diverged", Recovery::RetrySame, BreakerImpact::Ignored),
        }
    }

    /// The reason on the wire (`attempt.after.reason`, `restart.reason`, `tried[].outcome`).
    pub const fn wire_name(self) -> &'static str {
        self.properties().0
    }

    pub const fn recovery(self) -> Recovery {
        self.properties().1
    }

    pub const fn breaker_impact(self) -> BreakerImpact {
        self.properties().2
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "no connection",
            Self::Reset => "connection reset",
            Self::Stalled => "stopped sending in mid-answer",
            Self::Truncated => "answer cut off",
            Self::Timeout => "no answer in time",
            Self::RateLimited => "rate limited",
            Self::ServerError => "server error",
            Self::Overloaded => "overloaded",
            Self::Malformed => "unreadable answer",
            Self::Empty => "empty answer",
            Self::Poor => "no proper answer",
            Self::Unauthorized => "key refused",
            Self::QuotaSpent => "quota spent",
            Self::Misconfigured => "model or address not found",
            Self::TooLong => "conversation too long for the model",
            Self::Policy => "refused by content filter",
            Self::BadRequest => "request refused",
            Self::Diverged => "continuation does not fit",
        })
    }
}

/// A fault with its details, for operators and API callers. Visitors only see
/// [`FaultKind::wire_name`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{fault}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
pub struct Failure {
    pub fault: FaultKind,
    /// At most 300 characters, without control characters and API keys.
    pub detail: String,
    /// The detail is the provider's text. It may quote the visitor, so API callers may see it but
    /// it is never logged.
    pub is_provider_text: bool,
    /// The provider's error code, such as `rate_limit_exceeded`: at most 48 ASCII letters, digits
    /// and underscores. Empty if there is none.
    pub code: String,
    pub status: Option<u16>,
    /// The wait that the provider asks for, at most one day.
    pub retry_after: Option<Duration>,
}

const MAX_DETAIL_CHARS: usize = 300;

/// The maximum length of [`Failure::code`]. The longest codes of vendors have about 40 characters.
const MAX_CODE_CHARS: usize = 48;

impl Failure {
    pub fn new(fault: FaultKind) -> Self {
        Self {
            fault,
            detail: String::new(),
            is_provider_text: false,
            code: String::new(),
            status: None,
            retry_after: None,
        }
    }

    /// A failure with the provider's text, sanitised and truncated, and the first valid code of
    /// `codes`. The caller must redact API keys first, because only the caller knows them.
    pub fn from_provider(fault: FaultKind, text: &str, codes: &[&str]) -> Self {
        let code = codes
            .iter()
            .find(|code| is_error_code(code))
            .copied()
            .unwrap_or_default();
        Self {
            is_provider_text: true,
            code: code.to_owned(),
            ..Self::with_detail(fault, text)
        }
    }

    /// A failure with a text of our own, sanitised and truncated. The text must not quote anybody.
    pub fn with_detail(fault: FaultKind, detail: &str) -> Self {
        let detail = detail
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_DETAIL_CHARS)
            .collect::<String>();
        Self {
            detail: detail.trim().to_owned(),
            ..Self::new(fault)
        }
    }

    /// The text for logs. Replaces a provider's text, which may quote the visitor, by its code.
    pub fn log_safe(&self) -> String {
        match (self.is_provider_text, self.code.as_str()) {
            (false, _) => self.to_string(),
            (true, "") => self.fault.to_string(),
            (true, code) => format!("{} ({code})", self.fault),
        }
    }
}

/// Returns `true` for a short identifier. Some providers send a sentence in the code field.
pub fn is_error_code(text: &str) -> bool {
    let is_code_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.len() <= MAX_CODE_CHARS && text.bytes().all(is_code_byte)
}

/// The outcome of an attempt in `done.tried` and in metrics: `ok`, `stopped` or a fault's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AttemptOutcome(&'static str);

impl AttemptOutcome {
    pub const OK: Self = Self("ok");
    /// The visitor cancelled, or no follower was left.
    pub const STOPPED: Self = Self("stopped");

    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<FaultKind> for AttemptOutcome {
    fn from(fault: FaultKind) -> Self {
        Self(fault.wire_name())
    }
}

impl<'de> Deserialize<'de> for AttemptOutcome {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        let known = FaultKind::ALL
            .into_iter()
            .map(Self::from)
            .chain([Self::OK, Self::STOPPED]);
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
        for fault in FaultKind::ALL {
            assert!(REASONS.contains(&fault.wire_name()), "{fault:?}");
        }
    }

    #[test]
    fn request_faults_do_not_affect_the_breaker() {
        for fault in FaultKind::ALL {
            let is_request_fault = matches!(
                fault.recovery(),
                Recovery::LargerContext | Recovery::ContentFilter | Recovery::CallerError
            );
            if is_request_fault {
                assert_eq!(fault.breaker_impact(), BreakerImpact::Ignored, "{fault:?}");
            }
            assert_eq!(
                fault.recovery() == Recovery::Block,
                fault.breaker_impact() == BreakerImpact::Block,
                "{fault:?}"
            );
        }
    }

    #[test]
    fn provider_text_is_not_logged_but_its_code_is() {
        for fault in FaultKind::ALL {
            let failure = Failure::from_provider(fault, "it said this", &["", "its_Code2"]);
            assert_eq!(
                (failure.detail.as_str(), failure.code.as_str()),
                ("it said this", "its_Code2")
            );
            assert_eq!(failure.log_safe(), format!("{fault} (its_Code2)"));
            assert_eq!(
                Failure::from_provider(fault, "it said this", &[]).log_safe(),
                fault.to_string()
            );
            assert_eq!(
                Failure::with_detail(fault, "we say this").log_safe(),
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
                Failure::from_provider(FaultKind::BadRequest, "", &[code]).code,
                "",
                "{code}"
            );
        }
    }

    #[test]
    fn detail_is_truncated_and_has_no_control_characters() {
        let failure = Failure::with_detail(
            FaultKind::ServerError,
            &format!("a\nb\u{7}{}", "x".repeat(1000)),
        );
        assert_eq!(failure.detail.chars().count(), 300);
        assert!(!failure.detail.contains(['\n', '\u{7}']));
        assert_eq!(
            Failure::new(FaultKind::Reset).to_string(),
            "connection reset"
        );
    }
}
