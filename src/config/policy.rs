//! Policies of routing, timeouts, breaker, retries and health checks. A provider can override most.

use super::enums::{MidStream, ProbeKind, RoutingStrategy};
use std::time::Duration;

/// `[routing]`: the order of providers and the reaction to failures.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingSettings {
    /// The order in which providers are tried.
    pub strategy: RoutingStrategy,
    /// The maximum number of attempts per turn, retries included. At least 1.
    pub max_attempts: u32,
    /// The reaction to a provider that fails after part of its answer was shown.
    pub mid_stream: MidStream,
    /// A second provider is started if no token has arrived by then. Zero disables hedging.
    pub hedge_after: Duration,
}

impl Default for RoutingSettings {
    fn default() -> Self {
        Self {
            strategy: RoutingStrategy::Priority,
            max_attempts: 4,
            mid_stream: MidStream::Restart,
            hedge_after: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct TimeoutSettings {
    /// The global limits of a single call. Each provider has its own effective copy.
    pub call: CallTimeouts,
    /// The limit of the whole turn, all attempts included.
    pub turn: Duration,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            call: CallTimeouts::default(),
            turn: Duration::from_secs(120),
        }
    }
}

/// Limits of a single call to a provider. All are above zero.
#[derive(Debug, Clone, PartialEq)]
pub struct CallTimeouts {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// The wait for the first token, by the number of earlier attempts in the turn. Never empty;
    /// the last value repeats.
    pub first_token: Vec<Duration>,
    /// The longest gap between two tokens.
    pub stall: Duration,
    /// The whole attempt.
    pub attempt: Duration,
}

impl Default for CallTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_token: [5, 10, 15].map(Duration::from_secs).to_vec(),
            stall: Duration::from_secs(15),
            attempt: Duration::from_secs(90),
        }
    }
}

impl CallTimeouts {
    /// The wait for the first token after `attempts` earlier attempts.
    pub fn first_token_timeout(&self, attempts: usize) -> Duration {
        self.first_token
            .get(attempts)
            .or(self.first_token.last())
            .copied()
            .unwrap_or(self.attempt)
    }
}

/// `[breaker]`: the conditions that stop calls to a provider, and the duration.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// The number of consecutive failures that opens the breaker. At least 1.
    pub consecutive_failures: u32,
    /// The share of failed calls, 0 to 1, that opens the breaker.
    pub failure_rate: f64,
    /// The number of calls in the window below which rates are ignored. At least 1.
    pub min_calls: u32,
    /// The period over which rates are measured.
    pub window: Duration,
    /// A first token counts as slow if it takes this many times longer than in the window before.
    /// At least 1.
    pub slow_factor: f64,
    /// The share of slow first tokens, 0 to 1, that opens the breaker.
    pub slow_rate: f64,
    /// The share of answers that break off after their start, 0 to 1, that opens the breaker.
    pub stream_failure_rate: f64,
    /// The time for which the breaker stays open at first. Doubles with each failed probe.
    pub open_for: Duration,
    /// The maximum time the breaker stays open. At least `open_for`.
    pub open_max: Duration,
    /// The interval between probes of a provider with a rejected key or an exhausted quota.
    pub blocked_for: Duration,
    /// The number of concurrent calls while half-open. At least 1.
    pub probes: u32,
}

impl Default for BreakerSettings {
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
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// The global retry policy. Each provider has its own effective copy.
    pub call: CallRetry,
    /// Retries on the same provider, hedges and follow-ups per turn, on average over all turns.
    /// At least 0.
    pub budget: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            call: CallRetry::default(),
            budget: 0.2,
        }
    }
}

/// Retries on the same provider.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRetry {
    /// The number of retries after a quick transient error. Only before any text was shown.
    pub same_provider: u32,
    /// The first back-off. Doubles with each retry, with full jitter.
    pub base: Duration,
    /// The maximum back-off. At least `base`.
    pub max: Duration,
    /// The service waits for a `Retry-After` up to this long.
    pub max_retry_after: Duration,
}

impl Default for CallRetry {
    fn default() -> Self {
        Self {
            same_provider: 1,
            base: Duration::from_millis(200),
            max: Duration::from_secs(2),
            max_retry_after: Duration::from_secs(2),
        }
    }
}

/// `[health]`: health checks of idle providers.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthSettings {
    /// The time between two checks.
    pub interval: Duration,
    /// The time limit of a check.
    pub timeout: Duration,
    /// The kind of request.
    pub probe: ProbeKind,
    /// Probe an open breaker with a one-token completion instead of a visitor's turn.
    pub recovery_probe: bool,
    /// The time for which a result stays valid.
    pub expire: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(2),
            probe: ProbeKind::Models,
            recovery_probe: true,
            expire: Duration::from_secs(5 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_token_timeout_repeats_its_last_value() {
        let timeouts = CallTimeouts::default();
        let seconds: Vec<u64> = (0..5)
            .map(|attempts| timeouts.first_token_timeout(attempts).as_secs())
            .collect();
        assert_eq!(seconds, [5, 10, 15, 15, 15]);
    }
}
