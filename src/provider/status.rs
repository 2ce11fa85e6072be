//! The published status of a provider. Pure.

use std::time::Duration;

use super::cost::{DailySpend, UsageTotals};
use super::health::HealthCheck;
use super::latency::LatencyPercentiles;
use crate::domain::{FaultKind, ProviderState, Timestamp};

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

/// A difference up to this keeps the published time. Both clocks are never read at the same
/// instant, and nobody notices less.
const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(1);

/// A monotonic moment and the wall-clock time published for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StableRetryAt(Option<(Duration, Timestamp)>);

impl StableRetryAt {
    pub(super) fn new(moment: Duration, published: Timestamp) -> Self {
        Self(Some((moment, published)))
    }

    /// Returns the time to publish for `moment`. `wall` is its wall-clock time by the present
    /// clocks.
    pub(super) fn resolve(&mut self, moment: Duration, wall: Timestamp) -> Timestamp {
        let known = self.0.filter(|(known, published)| {
            let drift = published.since(wall).max(wall.since(*published));
            *known == moment && drift <= MAX_CLOCK_DRIFT
        });
        let published = known.map_or(wall, |(_, published)| published);
        *self = Self::new(moment, published);
        published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_time_is_stable_until_a_clock_is_set() {
        let mut stable = StableRetryAt::default();
        let first = Duration::from_secs(10);
        let second = Duration::from_secs(11);
        let steps = [
            (first, 5_000, 5_000),
            (first, 5_001, 5_000),
            (first, 4_999, 5_000),
            (first, 6_000, 5_000),
            (first, 6_001, 6_001),
            (first, 6_000, 6_001),
            (second, 6_002, 6_002),
            (first, 6_000, 6_000),
            (first, 3_600_000, 3_600_000),
            (first, 0, 0),
        ];
        for (moment, wall, expected) in steps {
            assert_eq!(
                stable.resolve(moment, Timestamp(wall)),
                Timestamp(expected),
                "{moment:?}, {wall}"
            );
        }
        assert_eq!(
            StableRetryAt::new(first, Timestamp(5)).resolve(first, Timestamp(9)),
            Timestamp(5)
        );
    }
}
