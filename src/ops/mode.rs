//! Derives the service's mode from its providers' states, and debounces it so that a flapping
//! provider does not make the status page flap. Pure.

use std::time::Duration;

use crate::config::RoutingStrategy;
use crate::domain::{ProviderState, ServiceMode, Timestamp};
use crate::provider::status::ProviderStatus;

/// A worse mode is shown once it has lasted this long.
pub const WORSEN_DELAY: Duration = Duration::from_secs(2);

/// A better mode is shown once it has lasted this long.
pub const RECOVER_DELAY: Duration = Duration::from_secs(10);

/// Returns the mode at this moment.
///
/// `Outage` if no enabled provider is available. Otherwise `Normal` if the first enabled provider
/// is available (strategy `priority`) or all of them are (the other strategies use them all).
pub fn current_mode<'a>(
    strategy: RoutingStrategy,
    provider_status: impl IntoIterator<Item = &'a ProviderStatus>,
    now: Timestamp,
) -> ServiceMode {
    let enabled = provider_status
        .into_iter()
        .filter(|provider| provider.state != ProviderState::Disabled);
    let available: Vec<bool> = enabled.map(|provider| provider.is_available(now)).collect();
    let normal = match strategy {
        RoutingStrategy::Priority => available.first() == Some(&true),
        RoutingStrategy::Weighted
        | RoutingStrategy::RoundRobin
        | RoutingStrategy::Fastest
        | RoutingStrategy::Cheapest => !available.contains(&false),
    };
    match available.contains(&true) {
        false => ServiceMode::Outage,
        true if normal => ServiceMode::Normal,
        true => ServiceMode::Degraded,
    }
}

/// Delays changes of the mode that is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModeDebouncer {
    shown: ServiceMode,
    /// For each of `WORSE_MODES`, since when that mode or a worse one has been seen.
    worse_since: [Option<Duration>; 2],
    /// For each of `BETTER_MODES`, since when that mode or a better one has been seen.
    better_since: [Option<Duration>; 2],
}

/// The modes the service can fall to, worst first.
const WORSE_MODES: [ServiceMode; 2] = [ServiceMode::Outage, ServiceMode::Degraded];

/// The modes the service can rise to, best first.
const BETTER_MODES: [ServiceMode; 2] = [ServiceMode::Normal, ServiceMode::Degraded];

impl ModeDebouncer {
    pub fn starting_at(shown: ServiceMode) -> Self {
        Self {
            shown,
            ..Self::default()
        }
    }

    /// Records the mode seen at `now` and returns the mode to show.
    ///
    /// That is the worst mode that lasted for [`WORSEN_DELAY`] if it is worse than the shown one,
    /// else the best mode that lasted for [`RECOVER_DELAY`], else the shown one.
    pub fn update(&mut self, seen: ServiceMode, now: Duration) -> ServiceMode {
        update_since(
            &mut self.worse_since,
            WORSE_MODES.map(|mode| seen >= mode),
            now,
        );
        update_since(
            &mut self.better_since,
            BETTER_MODES.map(|mode| seen <= mode),
            now,
        );
        let shown = self.shown;
        let worse = lasting_modes(WORSE_MODES, self.worse_since, now, WORSEN_DELAY)
            .find(|mode| *mode > shown);
        let better = lasting_modes(BETTER_MODES, self.better_since, now, RECOVER_DELAY)
            .find(|mode| *mode < shown);
        self.shown = worse.or(better).unwrap_or(shown);
        self.shown
    }
}

fn update_since(since: &mut [Option<Duration>; 2], seen: [bool; 2], now: Duration) {
    for (since, seen) in since.iter_mut().zip(seen) {
        *since = seen.then(|| since.unwrap_or(now));
    }
}

fn lasting_modes(
    modes: [ServiceMode; 2],
    since: [Option<Duration>; 2],
    now: Duration,
    hold: Duration,
) -> impl Iterator<Item = ServiceMode> {
    let has_lasted =
        move |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) >= hold);
    modes
        .into_iter()
        .zip(since)
        .filter(move |(_, since)| has_lasted(*since))
        .map(|(mode, _)| mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigEnum as _;

    const NOW: Timestamp = Timestamp(1_000);

    fn provider_status(state: ProviderState) -> ProviderStatus {
        ProviderStatus {
            state,
            ..ProviderStatus::default()
        }
    }

    #[test]
    fn priority_needs_the_first_enabled_provider_and_other_strategies_all() {
        use ProviderState::{Blocked, Closed, Disabled, HalfOpen, Open};
        for (states, by_priority, by_another) in [
            (
                &[Closed, Closed][..],
                ServiceMode::Normal,
                ServiceMode::Normal,
            ),
            (&[Closed, Open], ServiceMode::Normal, ServiceMode::Degraded),
            (
                &[Disabled, Closed],
                ServiceMode::Normal,
                ServiceMode::Normal,
            ),
            (
                &[Open, Closed],
                ServiceMode::Degraded,
                ServiceMode::Degraded,
            ),
            (
                &[HalfOpen, Blocked, Closed],
                ServiceMode::Degraded,
                ServiceMode::Degraded,
            ),
            (
                &[Open, HalfOpen, Blocked],
                ServiceMode::Outage,
                ServiceMode::Outage,
            ),
            (&[Disabled], ServiceMode::Outage, ServiceMode::Outage),
            (&[], ServiceMode::Outage, ServiceMode::Outage),
        ] {
            let providers: Vec<_> = states.iter().copied().map(provider_status).collect();
            for strategy in RoutingStrategy::ALL {
                let mode = if *strategy == RoutingStrategy::Priority {
                    by_priority
                } else {
                    by_another
                };
                assert_eq!(
                    current_mode(*strategy, &providers, NOW),
                    mode,
                    "{states:?} by {strategy}"
                );
            }
        }
    }

    #[test]
    fn rate_limited_and_over_budget_providers_are_unavailable() {
        let later = Some(Timestamp(NOW.0 + 1));
        let limited = ProviderStatus {
            retry_at: later,
            ..provider_status(ProviderState::Closed)
        };
        let spent = ProviderStatus {
            budget_resets_at: later,
            ..provider_status(ProviderState::Closed)
        };
        for provider in [limited, spent] {
            assert_eq!(
                current_mode(RoutingStrategy::Priority, [&provider], NOW),
                ServiceMode::Outage
            );
            assert_eq!(
                current_mode(RoutingStrategy::Priority, [&provider], Timestamp(NOW.0 + 1)),
                ServiceMode::Normal
            );
        }
    }

    #[test]
    fn mode_changes_are_delayed() {
        let at = Duration::from_millis;
        let mut debouncer = ModeDebouncer::default();
        assert_eq!(
            debouncer.update(ServiceMode::Degraded, at(0)),
            ServiceMode::Normal
        );
        assert_eq!(
            debouncer.update(ServiceMode::Outage, at(1_999)),
            ServiceMode::Normal
        );
        assert_eq!(
            debouncer.update(ServiceMode::Outage, at(2_000)),
            ServiceMode::Degraded,
            "at least degraded since 0"
        );
        assert_eq!(
            debouncer.update(ServiceMode::Outage, at(3_998)),
            ServiceMode::Degraded
        );
        assert_eq!(
            debouncer.update(ServiceMode::Outage, at(3_999)),
            ServiceMode::Outage,
            "since 1,999"
        );
        assert_eq!(
            debouncer.update(ServiceMode::Degraded, at(5_000)),
            ServiceMode::Outage
        );
        assert_eq!(
            debouncer.update(ServiceMode::Outage, at(9_000)),
            ServiceMode::Outage,
            "the delay starts again"
        );
        assert_eq!(
            debouncer.update(ServiceMode::Normal, at(10_000)),
            ServiceMode::Outage
        );
        assert_eq!(
            debouncer.update(ServiceMode::Degraded, at(19_999)),
            ServiceMode::Outage
        );
        assert_eq!(
            debouncer.update(ServiceMode::Normal, at(20_000)),
            ServiceMode::Degraded,
            "degraded or better since 10,000"
        );
        assert_eq!(
            debouncer.update(ServiceMode::Normal, at(30_000)),
            ServiceMode::Normal
        );
    }

    #[test]
    fn a_flapping_provider_does_not_change_the_mode() {
        let mut debouncer = ModeDebouncer::default();
        for second in 0..60 {
            let seen = if second % 2 == 0 {
                ServiceMode::Outage
            } else {
                ServiceMode::Normal
            };
            assert_eq!(
                debouncer.update(seen, Duration::from_secs(second)),
                ServiceMode::Normal
            );
        }
    }
}
