//! What a breaker goes by: its limits, and the lengths of its waits.

use std::time::Duration;

use crate::chat::Fault;
use crate::provider::jitter;

/// The longest that a provider's own `Retry-After` is waited for after a rate limit or an overload. Longer ones exist (86,400 s
/// and 114 h were seen); beyond a day it is cheaper to ask than to believe.
pub const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that any other fault's `Retry-After` keeps a breaker open or blocked: a server in trouble guesses, and a probe
/// costs one token.
pub const LONGEST_FLOOR: Duration = Duration::from_secs(5 * 60);

/// The limits of one breaker. A limit of zero counts as one; a rate that is not a number never trips.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Hard failures in a row, before any text, that open it.
    pub consecutive_failures: u32,
    /// Share (0 to 1) of calls that failed before any text that opens it.
    pub failure_rate: f64,
    /// The least number of calls, first tokens or ended streams in the window before a rate of theirs means anything.
    pub min_calls: u32,
    /// Over how long rates are counted, and first tokens compared.
    pub window: Duration,
    /// First tokens that take this many times the median of the window before are slow.
    pub slow_factor: f64,
    /// Share (0 to 1) of slow first tokens that opens it.
    pub slow_rate: f64,
    /// Share (0 to 1) of started answers that broke that opens it.
    pub stream_failure_rate: f64,
    /// How long it stays open at first; doubles with each failed probe.
    pub open_for: Duration,
    /// The longest it stays open.
    pub open_max: Duration,
    /// Time between probes while the key or the quota is refused.
    pub blocked_for: Duration,
    /// Probes let through at once while half-open, and the good ones needed to close it.
    pub probes: u32,
    /// Whether the owner's own one-token completion is the probe (and no visitor is), or a visitor's turn.
    pub recovery_probe: bool,
    /// After how long a probe that was never settled gives its place back. Longer than an attempt may take, or a probe may
    /// still be under way when the next is let through.
    pub probe_lease: Duration,
}

impl Default for Rules {
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

impl Rules {
    /// How long it stays open after `strikes` failed probes: doubled that often up to `open_max`, then anything from a fifth
    /// less to a fifth more, but never beyond `open_max`.
    ///
    /// The draw is over what is left below `open_max` instead of being cut there, or else half of all breakers would
    /// probe at the same moment once they have reached it.
    pub(super) fn open_time(&self, strikes: u32, chance: f64) -> Duration {
        let doubled = self.open_for.saturating_mul(2_u32.saturating_pow(strikes));
        let middle = doubled.min(self.open_max);
        let fifth = middle / 5;
        jitter::between(
            middle - fifth,
            middle.saturating_add(fifth).min(self.open_max),
            chance,
        )
    }

    /// The least time to leave the provider alone when it said so itself: what it asked for, clamped, and up to a fifth of
    /// `open_for` more, because everyone it told comes back at that moment. Zero where it asked for nothing.
    pub(super) fn floor(
        &self,
        fault: Fault,
        retry_after: Option<Duration>,
        chance: f64,
    ) -> Duration {
        match asked(fault, retry_after) {
            Duration::ZERO => Duration::ZERO,
            asked => {
                asked.saturating_add(jitter::between(Duration::ZERO, self.open_for / 5, chance))
            }
        }
    }

    /// How long to leave a blocked provider alone: `blocked_for`, and longer only where it asks for that itself.
    pub(super) fn blocked_time(
        &self,
        fault: Fault,
        retry_after: Option<Duration>,
        chance: f64,
    ) -> Duration {
        self.floor(fault, retry_after, chance).max(self.blocked_for)
    }

    /// Probes at once; never none.
    pub(super) fn probes(&self) -> u32 {
        self.probes.max(1)
    }
}

/// What a provider asks for, within reason.
pub(super) fn asked(fault: Fault, retry_after: Option<Duration>) -> Duration {
    let longest = if is_limit(fault) {
        LONGEST_HOLD
    } else {
        LONGEST_FLOOR
    };
    retry_after.unwrap_or_default().min(longest)
}

/// Does the fault tell of a provider at work that wants less of it?
pub(super) fn is_limit(fault: Fault) -> bool {
    matches!(fault, Fault::RateLimited | Fault::Overloaded)
}
