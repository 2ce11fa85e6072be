//! One provider as the rest of the service sees it: how to call it, and how to reach its actor.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;
use tokio::time::Instant;

use super::actor::ProviderActor;
use super::cost::{self, DailySpend, UsageTotals};
use super::event::ProviderEvent;
use super::fault_injection::FaultSwitch;
use super::health::HealthCheck;
use super::stream_event::ProviderClient;
use crate::config::CallRetry;
use crate::domain::{FaultKind, ProviderState, Timestamp, TokenUsage};

/// The current address of an actor; `None` while it is being rebuilt after a panic.
pub type AddrWatch<A> = watch::Receiver<Option<Addr<A>>>;

/// One configured provider. It outlives its actor, which may be rebuilt at any time.
pub struct Provider {
    pub name: Arc<str>,
    pub model: Arc<str>,
    /// The name of the dialect, for the status.
    pub dialect: &'static str,
    /// The size of the context in tokens; 0 if unknown.
    pub context_tokens: u32,
    pub timeouts: AttemptTimeouts,
    pub retry: CallRetry,
    /// The provider continues a partial answer that it is given as prefill. Cleared when it
    /// refuses.
    pub supports_prefill: AtomicBool,
    /// Share of turns under the `weighted` strategy.
    pub weight: u32,
    /// USD per million input and output tokens.
    pub prices: Option<(f64, f64)>,
    pub has_daily_budget: bool,
    pub client: Arc<dyn ProviderClient>,
    pub actor: AddrWatch<ProviderActor>,
    /// Identifies account, address and model: instances with the same value share the provider's
    /// failures. 16 hexadecimal digits of a hash that does not reveal the key.
    pub account_id: Arc<str>,
    /// Events of this provider that other instances should know of.
    pub events: watch::Receiver<Option<ProviderEvent>>,
    /// The status that was published last. It is a hint for ranking; only
    /// [`TryAcquire`](super::actor::TryAcquire) decides on a call.
    pub status: watch::Receiver<ProviderStatus>,
    pub fault_switch: Arc<FaultSwitch>,
}

#[derive(Clone, Debug)]
pub struct AttemptTimeouts {
    /// Until the first token, by the number of attempts made in the turn; the last value repeats.
    pub first_token: Vec<Duration>,
    pub stall: Duration,
    pub total: Duration,
}

impl AttemptTimeouts {
    /// Returns the limit until the first token of attempt number `attempt`, counted from 1.
    pub fn first_token(&self, attempt: u32) -> Duration {
        let step = usize::try_from(attempt)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        self.first_token
            .get(step)
            .or(self.first_token.last())
            .copied()
            .unwrap_or(self.total)
    }
}

impl Provider {
    pub fn cost_usd(&self, usage: TokenUsage) -> Option<f64> {
        self.prices.map(|prices| cost::cost_usd(prices, usage))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderStatus {
    pub state: ProviderState,
    /// The time of the next probe or, if the breaker is closed, the end of a rate limit.
    pub retry_at: Option<Timestamp>,
    /// The fault that opened the breaker, or the last failure.
    pub last_fault: Option<FaultKind>,
    pub failed_probes: u32,
    pub in_flight: usize,
    /// Complete answers since the start.
    pub successes: u64,
    /// Failed attempts since the start.
    pub failures: u64,
    /// Failed attempts that had produced text.
    pub broken_streams: u64,
    /// `None` if the provider was not called recently.
    pub first_token_latency: Option<LatencyPercentiles>,
    pub total_latency: Option<LatencyPercentiles>,
    /// The end of the last attempt or health check.
    pub last_heard_at: Option<Timestamp>,
    pub last_check: Option<HealthCheck>,
    pub checks: u64,
    pub failed_checks: u64,
    /// Spend by this instance on the current day (UTC).
    pub spend_today: DailySpend,
    /// Spend by other instances on the same day, as far as known.
    pub peer_spend_today: DailySpend,
    pub budget_resets_at: Option<Timestamp>,
    pub usage_totals: UsageTotals,
    /// Quality of the answers, 0 to 1: a moving average over about the last twenty.
    pub quality_avg: Option<f64>,
}

impl ProviderStatus {
    /// Returns the end of a rate limit or of a spent budget, whichever is later.
    pub fn unavailable_until(&self) -> Option<Timestamp> {
        self.retry_at.max(self.budget_resets_at)
    }

    /// Returns `true` if the provider may be called at `now`.
    ///
    /// A provider at its concurrency limit counts as available, because it works.
    pub fn is_available(&self, now: Timestamp) -> bool {
        self.state == ProviderState::Closed && self.unavailable_until().is_none_or(|at| at <= now)
    }

    /// Returns `true` if the breaker is closed and the last health check did not fail, or has
    /// expired.
    pub fn is_healthy(&self, now: Timestamp) -> bool {
        self.state == ProviderState::Closed
            && self
                .last_check
                .is_none_or(|check| check.current_fault(now).is_none())
    }

    /// Returns the reason for being unavailable or unhealthy, or the last failure, as on the wire.
    pub fn reason(&self, now: Timestamp) -> Option<&'static str> {
        if self.is_over_budget(now) {
            Some("budget_spent")
        } else {
            self.current_fault(now).map(FaultKind::wire_name)
        }
    }

    /// Describes [`ProviderStatus::reason`] for people.
    ///
    /// The wire has one reason for an unreachable provider, an unknown model and a refused key, but
    /// an operator reacts differently to each.
    pub fn describe(&self, now: Timestamp) -> Option<&'static str> {
        if self.is_over_budget(now) {
            return Some("today's budget is spent");
        }
        self.current_fault(now).map(describe_fault)
    }

    pub fn is_over_budget(&self, now: Timestamp) -> bool {
        self.budget_resets_at.is_some_and(|until| until > now)
    }

    /// Returns the fault of the last health check if the breaker is closed, else the last failure.
    fn current_fault(&self, now: Timestamp) -> Option<FaultKind> {
        let check_fault = self.last_check.and_then(|check| check.current_fault(now));
        check_fault
            .filter(|_| self.state == ProviderState::Closed)
            .or(self.last_fault)
    }
}

pub const fn describe_fault(fault: FaultKind) -> &'static str {
    match fault {
        FaultKind::Unreachable => "it cannot be reached",
        FaultKind::Reset => "the connection broke",
        FaultKind::Stalled => "it fell silent in mid-answer",
        FaultKind::Truncated => "answers broke off",
        FaultKind::Timeout => "no answer in time",
        FaultKind::RateLimited => "its rate limit",
        FaultKind::ServerError => "errors of its server",
        FaultKind::Overloaded => "it is overloaded",
        FaultKind::Malformed | FaultKind::Empty | FaultKind::Poor => "answers that are none",
        FaultKind::Unauthorized => "it refuses our key",
        FaultKind::QuotaSpent => "its quota is spent",
        FaultKind::Misconfigured => "it knows no such model or address",
        FaultKind::TooLong | FaultKind::Policy | FaultKind::BadRequest | FaultKind::Diverged => {
            "it refused a request"
        }
    }
}

/// Percentiles of call durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyPercentiles {
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

    pub fn wall(&self) -> Timestamp {
        Timestamp::from_system_time(std::time::SystemTime::now())
    }

    /// Converts a monotonic time to wall time, by the present difference of the two clocks.
    pub fn wall_at(&self, moment: Duration) -> Timestamp {
        self.wall()
            .saturating_add(moment.saturating_sub(self.now()))
    }
}
