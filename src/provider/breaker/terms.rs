//! The words spoken with a breaker: what it is told, what it answers, what it reports.

use std::fmt;
use std::time::Duration;

use crate::chat::{Fault, ProviderState};

/// Who wants to call the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A visitor's turn.
    Visitor,
    /// The owner's own one-token completion.
    Probe,
}

/// Leave to make one call, to be settled once. Of the state it was given in: a verdict that comes when the breaker has moved on
/// changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) generation: u64,
    pub(super) id: u64,
}

/// Why a call is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The breaker's state. `Closed`: a rate limit is waited out (or a probe was to be sent, and none is needed).
    pub state: ProviderState,
    /// From when on it is worth asking again; none where that hangs on a probe under way.
    pub retry_at: Option<Duration>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole answer came.
    Whole,
    /// It failed.
    Failed {
        /// How.
        fault: Fault,
        /// Whether text had come: then its first token was reported, and this is an answer that broke.
        started: bool,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It was dropped: stopped by its visitor, a hedge that lost, a task that ended. Nothing is known.
    Abandoned,
}

/// What made a breaker open or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Failures in a row.
    Run,
    /// The failure rate.
    Rate,
    /// Slow first tokens.
    Slow,
    /// Answers that broke after they had started.
    Streams,
    /// A refused key or a spent quota.
    Key,
    /// A failed probe: it was open before.
    Probe,
    /// One failure, when another instance had warned of the provider, or had only just found it well again.
    Warned,
    /// It was so before a restart, or another instance says so.
    Told,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Run => "failures in a row",
            Cause::Rate => "too many failures",
            Cause::Slow => "slow first tokens",
            Cause::Streams => "answers that broke off",
            Cause::Key => "key or quota refused",
            Cause::Probe => "probe failed",
            Cause::Warned => "a failure after a warning",
            Cause::Told => "known from before, or from another instance",
        })
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state that ended.
    pub from: ProviderState,
    /// The state that began.
    pub to: ProviderState,
    /// When it is tried again; none while it is closed, or being tried.
    pub retry_at: Option<Duration>,
    /// The fault it is in for: none for slow first tokens, and on closing.
    pub fault: Option<Fault>,
    /// What made it so; none on closing, but where another instance said so.
    pub cause: Option<Cause>,
}

/// A breaker at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its state. Never `Disabled`: that is not its to know.
    pub state: ProviderState,
    /// From when on it is tried again, or, closed, until when a rate limit is waited out. None where neither is to come.
    pub retry_at: Option<Duration>,
    /// Probes that failed since it opened.
    pub strikes: u32,
    /// The fault it is in for; none while it is closed.
    pub fault: Option<Fault>,
    /// What made it so; none while it is closed.
    pub cause: Option<Cause>,
    /// Since when it is in this state.
    pub since: Duration,
}

/// What is to be known of a breaker that was not closed, to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Probes that failed since it opened.
    pub strikes: u32,
    /// When it is to be tried; a moment in the past is now.
    pub until: Duration,
    /// Whether it was blocked.
    pub blocked: bool,
    /// The fault it was in for, if that was kept.
    pub fault: Option<Fault>,
}

impl View {
    /// What to keep of it; nothing where it is closed. Its moments are this process's, and no other's.
    pub fn saved(&self) -> Option<Saved> {
        (self.state != ProviderState::Closed).then_some(Saved {
            strikes: self.strikes,
            until: self.retry_at.unwrap_or(self.since),
            blocked: self.state == ProviderState::Blocked,
            fault: self.fault,
        })
    }
}
