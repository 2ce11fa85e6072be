//! Inputs and outputs of the breaker.

use std::fmt;
use std::time::Duration;

use crate::domain::{FaultKind, ProviderState};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOrigin {
    Turn,
    /// The ProviderActor's own one-token completion.
    Probe,
}

/// The permission for one call, to be completed once. Bound to the state in which it was issued: an
/// outcome that arrives in a later state changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) generation: u64,
    pub(super) id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRejection {
    /// `Closed` means that a rate limit is being waited out, or that no probe is needed.
    pub state: ProviderState,
    /// The time from which a call is worth another try; `None` if that depends on a running probe.
    pub retry_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    Success,
    Failed {
        fault: FaultKind,
        /// Text had arrived: the first token was reported, and this is a broken stream.
        had_text: bool,
        /// The time that the provider asks for without calls.
        retry_after: Option<Duration>,
    },
    /// The call was dropped (stopped by the visitor, a losing hedge, an ended task). Nothing is
    /// known about the provider.
    Abandoned,
}

/// The rule or event that opened or blocked a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripReason {
    ConsecutiveFailures,
    FailureRate,
    SlowCalls,
    BrokenStreams,
    Blocked,
    /// A failed recovery probe; the breaker was open before.
    ProbeFailed,
    /// One failure, soon after a peer reported that it cannot reach the provider, or that the
    /// provider has just recovered.
    PeerWarning,
    /// The state was restored after a restart, or taken over from a peer.
    Restored,
}

impl fmt::Display for TripReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsecutiveFailures => "consecutive failures",
            Self::FailureRate => "failure rate",
            Self::SlowCalls => "slow first tokens",
            Self::BrokenStreams => "broken streams",
            Self::Blocked => "key or quota refused",
            Self::ProbeFailed => "probe failed",
            Self::PeerWarning => "failure after a peer's warning",
            Self::Restored => "restored, or reported by a peer",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: ProviderState,
    pub to: ProviderState,
    /// The time of the next probe; `None` if the breaker is closed or half-open.
    pub retry_at: Option<Duration>,
    /// `None` for slow first tokens, and on closing.
    pub fault: Option<FaultKind>,
    /// `None` on closing, unless a peer closed it.
    pub trip_reason: Option<TripReason>,
}

/// The breaker's state at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// Never `Disabled`, which the breaker does not know of.
    pub state: ProviderState,
    /// The time of the next probe or, if closed, the end of a rate limit. `None` if there is
    /// neither.
    pub retry_at: Option<Duration>,
    /// Failed probes since the breaker opened.
    pub failed_probes: u32,
    /// The fault that opened it; `None` if closed.
    pub fault: Option<FaultKind>,
    /// `None` if closed.
    pub trip_reason: Option<TripReason>,
    pub since: Duration,
}

/// The state of a breaker that is not closed, from which another one can continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// Failed probes since the breaker opened.
    pub failed_probes: u32,
    /// The time of the next probe; if past, at once.
    pub retry_at: Duration,
    pub is_blocked: bool,
    /// The fault that opened it, if known.
    pub fault: Option<FaultKind>,
}
