//! One provider as the rest of the service sees it: how to call it, and how to reach its actor.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;
use tokio::time::Instant;

use super::actor::ProviderActor;
use super::drill::Switch;
use super::health::Check;
use super::news::News;
use super::spending::{self, Spent, Used};
use super::upstream::Upstream;
use crate::chat::{At, Fault, ProviderState, Usage};
use crate::settings::CallRetry;

/// The current address of an actor; `None` while it is being rebuilt after a panic.
pub type Whereabouts<A> = watch::Receiver<Option<Addr<A>>>;

/// One configured provider. It outlives its actor, which may be rebuilt at any time.
pub struct Backend {
    pub name: Arc<str>,
    pub model: Arc<str>,
    /// The name of the dialect, for the status.
    pub dialect: &'static str,
    /// The size of the context in tokens; 0 if unknown.
    pub context_tokens: u32,
    pub patience: Patience,
    pub retry: CallRetry,
    /// The provider continues a partial answer that it is given as prefill. Cleared when it
    /// refuses.
    pub prefill: AtomicBool,
    /// Share of turns under the `weighted` strategy.
    pub weight: u32,
    /// USD per million input and output tokens.
    pub prices: Option<(f64, f64)>,
    pub is_budgeted: bool,
    pub upstream: Arc<dyn Upstream>,
    pub actor: Whereabouts<ProviderActor>,
    /// Identifies account, address and model: instances with the same value share the provider's
    /// failures. 16 hexadecimal digits of a hash that does not reveal the key.
    pub account: Arc<str>,
    /// Events of this provider that other instances should know of.
    pub voice: watch::Receiver<Option<News>>,
    /// The status that was published last. It is a hint for ranking; only
    /// [`TryAcquire`](super::actor::TryAcquire) decides on a call.
    pub vitals: watch::Receiver<Vitals>,
    pub drills: Arc<Switch>,
}

#[derive(Clone, Debug)]
pub struct Patience {
    /// Until the first token, by the number of attempts made in the turn; the last value repeats.
    pub first_token: Vec<Duration>,
    pub stall: Duration,
    pub attempt: Duration,
}

impl Patience {
    /// Returns the limit until the first token of attempt number `attempt`, counted from 1.
    pub fn first_token(&self, attempt: u32) -> Duration {
        let step = usize::try_from(attempt)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        self.first_token
            .get(step)
            .or(self.first_token.last())
            .copied()
            .unwrap_or(self.attempt)
    }
}

impl Backend {
    pub fn cost(&self, usage: Usage) -> Option<f64> {
        self.prices.map(|prices| spending::cost(prices, usage))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    pub state: ProviderState,
    /// The time of the next probe or, if the breaker is closed, the end of a rate limit.
    pub retry_at: Option<At>,
    /// The fault that opened the breaker, or the last failure.
    pub reason: Option<Fault>,
    pub strikes: u32,
    pub in_flight: usize,
    /// Complete answers since the start.
    pub successes: u64,
    /// Failed attempts since the start.
    pub failures: u64,
    /// Failed attempts that had produced text.
    pub restarts: u64,
    /// `None` if the provider was not called recently.
    pub first_token: Option<Latency>,
    pub total: Option<Latency>,
    /// The end of the last attempt or health check.
    pub checked_at: Option<At>,
    pub check: Option<Check>,
    pub checks: u64,
    pub checks_failed: u64,
    /// Spend by this instance on the current day (UTC).
    pub spent: Spent,
    /// Spend by other instances on the same day, as far as known.
    pub spent_elsewhere: Spent,
    pub budget_until: Option<At>,
    pub used: Used,
    /// Quality of the answers, 0 to 1: a moving average over about the last twenty.
    pub quality: Option<f64>,
}

impl Vitals {
    /// Returns the end of a rate limit or of a spent budget, whichever is later.
    pub fn waits_until(&self) -> Option<At> {
        self.retry_at.max(self.budget_until)
    }

    /// Returns `true` if the provider may be called at `now`.
    ///
    /// A provider at its concurrency limit counts as available, because it works.
    pub fn can_be_asked(&self, now: At) -> bool {
        self.state == ProviderState::Closed && self.waits_until().is_none_or(|at| at <= now)
    }

    /// Returns `true` if the breaker is closed and the last health check did not fail, or has
    /// expired.
    pub fn healthy(&self, now: At) -> bool {
        self.state == ProviderState::Closed
            && self.check.is_none_or(|check| check.fault(now).is_none())
    }

    /// Returns the reason for being unavailable or unhealthy, or the last failure, as on the wire.
    pub fn why(&self, now: At) -> Option<&'static str> {
        if self.is_over_budget(now) {
            Some("budget_spent")
        } else {
            self.trouble(now).map(Fault::reason)
        }
    }

    /// Describes [`ProviderStatus::reason`] for people.
    ///
    /// The wire has one reason for an unreachable provider, an unknown model and a refused key, but
    /// an operator reacts differently to each.
    pub fn words(&self, now: At) -> Option<&'static str> {
        if self.is_over_budget(now) {
            return Some("today's budget is spent");
        }
        self.trouble(now).map(trouble_in_words)
    }

    pub fn is_over_budget(&self, now: At) -> bool {
        self.budget_until.is_some_and(|until| until > now)
    }

    /// Returns the fault of the last health check if the breaker is closed, else the last failure.
    fn trouble(&self, now: At) -> Option<Fault> {
        let check_fault = self.check.and_then(|check| check.fault(now));
        check_fault
            .filter(|_| self.state == ProviderState::Closed)
            .or(self.reason)
    }
}

pub const fn trouble_in_words(fault: Fault) -> &'static str {
    match fault {
        Fault::Unreachable => "it cannot be reached",
        Fault::Reset => "the connection broke",
        Fault::Stalled => "it fell silent in mid-answer",
        Fault::Truncated => "answers broke off",
        Fault::Timeout => "no answer in time",
        Fault::RateLimited => "its rate limit",
        Fault::ServerError => "errors of its server",
        Fault::Overloaded => "it is overloaded",
        Fault::Malformed | Fault::Empty | Fault::Poor => "answers that are none",
        Fault::Unauthorized => "it refuses our key",
        Fault::QuotaSpent => "its quota is spent",
        Fault::Misconfigured => "it knows no such model or address",
        Fault::TooLong | Fault::Policy | Fault::BadRequest | Fault::Diverged => {
            "it refused a request"
        }
    }
}

/// Percentiles of call durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

/// The service's clocks: monotonic time for limits, wall time for display and storage.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub fn wall(&self) -> At {
        At::from_system(std::time::SystemTime::now())
    }

    /// Converts a monotonic time to wall time, by the present difference of the two clocks.
    pub fn wall_at(&self, moment: Duration) -> At {
        self.wall().plus(moment.saturating_sub(self.now()))
    }
}
