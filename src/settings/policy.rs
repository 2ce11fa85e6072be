//! How providers are chosen, waited for, retried and given up: the tables that a provider may also carry for itself.

use super::choice::{MidStream, ProbeKind, Strategy};
use std::time::Duration;

/// `[routing]`: the order of providers and what happens when one fails.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingSettings {
    /// Who is tried first.
    pub strategy: Strategy,
    /// Most attempts per turn, retries included; at least 1.
    pub max_attempts: u32,
    /// What follows when an answer breaks after part of it was shown.
    pub mid_stream: MidStream,
    /// When a second provider is started if nothing has come by then; zero: never.
    pub hedge_after: Duration,
}

impl Default for RoutingSettings {
    fn default() -> Self {
        Self {
            strategy: Strategy::Priority,
            max_attempts: 4,
            mid_stream: MidStream::Restart,
            hedge_after: Duration::ZERO,
        }
    }
}

/// `[timeouts]`: those of one call, and of the whole turn.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeoutSettings {
    /// Those of one call; a provider carries its own effective ones.
    pub call: CallTimeouts,
    /// The whole turn, all attempts together.
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

/// How long one call to a provider may take in each of its parts. All are above zero.
#[derive(Debug, Clone, PartialEq)]
pub struct CallTimeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// To the first token, by the number of attempts made before; never empty, the last one repeats.
    pub first_token: Vec<Duration>,
    /// Between two tokens.
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
    /// The wait for a first token after `made` attempts; with an empty ladder that of the whole attempt.
    pub fn first_token_after(&self, made: usize) -> Duration {
        self.first_token
            .get(made)
            .or(self.first_token.last())
            .copied()
            .unwrap_or(self.attempt)
    }
}

/// `[breaker]`: when a provider is given a rest, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least 1.
    pub consecutive_failures: u32,
    /// Share of failed calls, 0 to 1, that opens it.
    pub failure_rate: f64,
    /// Calls there must be in the window before a rate counts; at least 1.
    pub min_calls: u32,
    /// How far back rates look.
    pub window: Duration,
    /// How many times slower than in the window before a first token counts as slow; at least 1.
    pub slow_factor: f64,
    /// Share of slow first tokens, 0 to 1, that opens it.
    pub slow_rate: f64,
    /// Share of started answers that broke, 0 to 1, that opens it.
    pub stream_failure_rate: f64,
    /// How long it stays open the first time; it doubles with each failed probe.
    pub open_for: Duration,
    /// The longest it stays open; never below `open_for`.
    pub open_max: Duration,
    /// Time between the probes of a provider that refused the key or whose quota is spent.
    pub blocked_for: Duration,
    /// Calls let through at once while half-open; at least 1.
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

/// `[retry]`: the tries on one provider, and the budget over all turns.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// The tries on one provider; a provider carries its own effective ones.
    pub call: CallRetry,
    /// Same-provider retries, hedges and late answers per turn over all turns; 0 or more.
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

/// When and how often a provider is tried again at once.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRetry {
    /// Further tries after a quick transient error, before any text.
    pub same_provider: u32,
    /// First back-off; it doubles, with full jitter.
    pub base: Duration,
    /// Longest back-off; never below `base`.
    pub max: Duration,
    /// A Retry-After up to this is waited for.
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

/// `[health]`: looking into providers that nobody is asking.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthSettings {
    /// Time between two looks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// What is asked.
    pub probe: ProbeKind,
    /// Whether an open breaker is tried by a one-token completion of our own, rather than by a visitor's turn.
    pub recovery_probe: bool,
    /// How long a result is believed.
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
    fn the_ladder_repeats_its_last_step() {
        let timeouts = CallTimeouts::default();
        let seconds: Vec<u64> = (0..5)
            .map(|made| timeouts.first_token_after(made).as_secs())
            .collect();
        assert_eq!(seconds, [5, 10, 15, 15, 15]);
    }
}
