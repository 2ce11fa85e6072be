//! The breaker's configuration, and the durations that follow from it.

use std::time::Duration;

use crate::domain::{FaultKind, ProviderState};
use crate::provider::backoff;

/// The longest `Retry-After` that is respected after a rate limit or an overload. Longer ones exist
/// (86,400 s and 114 h were seen); after a day it is cheaper to try than to believe.
pub const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest `Retry-After` of any other fault that keeps a breaker open or blocked: a failing
/// server guesses, and a probe costs one token.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// The limits of one breaker. A limit of zero counts as one; a rate that is NaN never trips.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Consecutive hard failures without text that open the breaker.
    pub consecutive_failures: u32,
    /// Share (0 to 1) of calls failing without text that opens the breaker.
    pub failure_rate: f64,
    /// The minimum of calls, first tokens or ended streams in the window for their rate to count.
    pub min_calls: u32,
    /// The period over which rates are counted and first tokens are compared.
    pub window: Duration,
    /// First tokens are slow from this multiple of the median of the previous window.
    pub slow_factor: f64,
    /// Share (0 to 1) of slow first tokens that opens the breaker.
    pub slow_rate: f64,
    /// Share (0 to 1) of started answers breaking off that opens the breaker.
    pub stream_failure_rate: f64,
    /// The first open time; doubles with each failed probe.
    pub open_for: Duration,
    /// The longest open time.
    pub open_max: Duration,
    /// The time between probes while blocked.
    pub blocked_for: Duration,
    /// Concurrent probes while half-open, and the good probes needed to close.
    pub probes: u32,
    /// The ProviderActor's own one-token completion is the probe. If `false`, a visitor's turn is.
    pub recovery_probe: bool,
    /// A probe without an outcome releases its slot after this time. Must exceed the longest
    /// attempt, or the next probe may start while one is still running.
    pub probe_lease: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_rate: 0.5,
            min_calls: 10,
            window: Duration::from_secs(60),
            slow_factor: 5.0,
            slow_rate: 0.8,
            stream_failure_rate: 0.3,
            open_for: Duration::from_secs(10),
            open_max: Duration::from_secs(25),
            blocked_for: Duration::from_secs(60),
            probes: 1,
            recovery_probe: true,
            probe_lease: Duration::from_secs(100),
        }
    }
}

impl BreakerConfig {
    /// Returns the open time after `failed_probes` failed probes: doubled each time up to
    /// `open_max`, then plus or minus up to a fifth, but never above `open_max`.
    ///
    /// The jitter is drawn within `open_max` instead of being cut off there. Otherwise half of all
    /// breakers that reached it would probe at the same moment.
    pub(super) fn open_duration(&self, failed_probes: u32, random: f64) -> Duration {
        let factor = 2_u32.saturating_pow(failed_probes);
        let middle = self.open_for.saturating_mul(factor).min(self.open_max);
        let fifth = middle / 5;
        let longest = middle.saturating_add(fifth).min(self.open_max);
        backoff::between(middle - fifth, longest, random)
    }

    /// Returns the minimum open time that the provider asked for: its clamped `Retry-After` plus up
    /// to a fifth of `open_for`, because all its clients come back at that moment. Zero if it did
    /// not ask.
    pub(super) fn min_open_time(
        &self,
        fault: FaultKind,
        retry_after: Option<Duration>,
        random: f64,
    ) -> Duration {
        let retry_after = clamp_retry_after(fault, retry_after);
        if retry_after.is_zero() {
            return Duration::ZERO;
        }
        retry_after.saturating_add(self.random_delay(random))
    }

    /// Returns up to a fifth of `open_for`, on top of a time at which many callers come back.
    pub fn random_delay(&self, random: f64) -> Duration {
        backoff::between(Duration::ZERO, self.open_for / 5, random)
    }

    /// Returns the time between probes while blocked: `blocked_for`, or longer if the provider
    /// asks.
    pub(super) fn blocked_duration(
        &self,
        fault: FaultKind,
        retry_after: Option<Duration>,
        random: f64,
    ) -> Duration {
        self.min_open_time(fault, retry_after, random)
            .max(self.blocked_for)
    }

    /// Returns the good probes that close the breaker. A blocked one closes after the first.
    pub(super) fn probes_needed(&self, state: ProviderState) -> u32 {
        match state {
            ProviderState::Blocked => 1,
            _ => self.probes.max(1),
        }
    }
}

/// Limits a `Retry-After` to a plausible value, depending on the fault.
pub(super) fn clamp_retry_after(fault: FaultKind, retry_after: Option<Duration>) -> Duration {
    let max = if is_rate_limit(fault) {
        MAX_RATE_LIMIT_WAIT
    } else {
        MAX_RETRY_AFTER
    };
    retry_after.unwrap_or_default().min(max)
}

/// Returns `true` for faults of a working provider that wants fewer calls.
pub(super) fn is_rate_limit(fault: FaultKind) -> bool {
    matches!(fault, FaultKind::RateLimited | FaultKind::Overloaded)
}
