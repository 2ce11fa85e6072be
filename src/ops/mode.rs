//! Derives the service's mode from its providers' states, and debounces it so that a flapping
//! provider does not make the status page flap. Pure.

use std::time::Duration;

use crate::chat::{At, Mode, ProviderState};
use crate::provider::backend::Vitals;
use crate::settings::Strategy;

/// A worse mode is shown once it has lasted this long.
pub const HOLD_DOWN: Duration = Duration::from_secs(2);

/// A better mode is shown once it has lasted this long.
pub const HOLD_UP: Duration = Duration::from_secs(10);

/// Returns the mode at this moment.
///
/// `Outage` if no enabled provider is available. Otherwise `Normal` if the first enabled provider
/// is available (strategy `priority`) or all of them are (the other strategies use them all).
pub fn mode_of<'a>(
    strategy: Strategy,
    vitals: impl IntoIterator<Item = &'a Vitals>,
    now: At,
) -> Mode {
    let enabled = vitals
        .into_iter()
        .filter(|provider| provider.state != ProviderState::Disabled);
    let available: Vec<bool> = enabled.map(|provider| provider.can_be_asked(now)).collect();
    let normal = match strategy {
        Strategy::Priority => available.first() == Some(&true),
        Strategy::Weighted | Strategy::RoundRobin | Strategy::Fastest | Strategy::Cheapest => {
            !available.contains(&false)
        }
    };
    match available.contains(&true) {
        false => Mode::Outage,
        true if normal => Mode::Normal,
        true => Mode::Degraded,
    }
}

/// Delays changes of the mode that is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    shown: Mode,
    /// For each of `WORSE_MODES`, since when that mode or a worse one has been seen.
    bad: [Option<Duration>; 2],
    /// For each of `BETTER_MODES`, since when that mode or a better one has been seen.
    good: [Option<Duration>; 2],
}

/// The modes the service can fall to, worst first.
const BAD: [Mode; 2] = [Mode::Outage, Mode::Degraded];

/// The modes the service can rise to, best first.
const GOOD: [Mode; 2] = [Mode::Normal, Mode::Degraded];

impl Held {
    pub fn showing(shown: Mode) -> Self {
        Self {
            shown,
            ..Self::default()
        }
    }

    /// Records the mode seen at `now` and returns the mode to show.
    ///
    /// That is the worst mode that lasted for [`WORSEN_DELAY`] if it is worse than the shown one,
    /// else the best mode that lasted for [`RECOVER_DELAY`], else the shown one.
    pub fn see(&mut self, seen: Mode, now: Duration) -> Mode {
        note(&mut self.bad, BAD.map(|mode| seen >= mode), now);
        note(&mut self.good, GOOD.map(|mode| seen <= mode), now);
        let shown = self.shown;
        let worse = lasted(BAD, self.bad, now, HOLD_DOWN).find(|mode| *mode > shown);
        let better = lasted(GOOD, self.good, now, HOLD_UP).find(|mode| *mode < shown);
        self.shown = worse.or(better).unwrap_or(shown);
        self.shown
    }
}

fn note(since: &mut [Option<Duration>; 2], seen: [bool; 2], now: Duration) {
    for (since, seen) in since.iter_mut().zip(seen) {
        *since = seen.then(|| since.unwrap_or(now));
    }
}

fn lasted(
    modes: [Mode; 2],
    since: [Option<Duration>; 2],
    now: Duration,
    hold: Duration,
) -> impl Iterator<Item = Mode> {
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
    use crate::settings::Choice as _;

    const NOW: At = At(1_000);

    fn vitals(state: ProviderState) -> Vitals {
        Vitals {
            state,
            ..Vitals::default()
        }
    }

    #[test]
    fn priority_needs_the_first_enabled_provider_and_other_strategies_all() {
        use ProviderState::{Blocked, Closed, Disabled, HalfOpen, Open};
        for (states, by_priority, by_another) in [
            (&[Closed, Closed][..], Mode::Normal, Mode::Normal),
            (&[Closed, Open], Mode::Normal, Mode::Degraded),
            (&[Disabled, Closed], Mode::Normal, Mode::Normal),
            (&[Open, Closed], Mode::Degraded, Mode::Degraded),
            (&[HalfOpen, Blocked, Closed], Mode::Degraded, Mode::Degraded),
            (&[Open, HalfOpen, Blocked], Mode::Outage, Mode::Outage),
            (&[Disabled], Mode::Outage, Mode::Outage),
            (&[], Mode::Outage, Mode::Outage),
        ] {
            let providers: Vec<_> = states.iter().copied().map(vitals).collect();
            for strategy in Strategy::ALL {
                let mode = if *strategy == Strategy::Priority {
                    by_priority
                } else {
                    by_another
                };
                assert_eq!(
                    mode_of(*strategy, &providers, NOW),
                    mode,
                    "{states:?} by {strategy}"
                );
            }
        }
    }

    #[test]
    fn rate_limited_and_over_budget_providers_are_unavailable() {
        let later = Some(At(NOW.0 + 1));
        let limited = Vitals {
            retry_at: later,
            ..vitals(ProviderState::Closed)
        };
        let spent = Vitals {
            budget_until: later,
            ..vitals(ProviderState::Closed)
        };
        for provider in [limited, spent] {
            assert_eq!(mode_of(Strategy::Priority, [&provider], NOW), Mode::Outage);
            assert_eq!(
                mode_of(Strategy::Priority, [&provider], At(NOW.0 + 1)),
                Mode::Normal
            );
        }
    }

    #[test]
    fn mode_changes_are_delayed() {
        let at = Duration::from_millis;
        let mut debouncer = Held::default();
        assert_eq!(debouncer.see(Mode::Degraded, at(0)), Mode::Normal);
        assert_eq!(debouncer.see(Mode::Outage, at(1_999)), Mode::Normal);
        assert_eq!(
            debouncer.see(Mode::Outage, at(2_000)),
            Mode::Degraded,
            "at least degraded since 0"
        );
        assert_eq!(debouncer.see(Mode::Outage, at(3_998)), Mode::Degraded);
        assert_eq!(
            debouncer.see(Mode::Outage, at(3_999)),
            Mode::Outage,
            "since 1,999"
        );
        assert_eq!(debouncer.see(Mode::Degraded, at(5_000)), Mode::Outage);
        assert_eq!(
            debouncer.see(Mode::Outage, at(9_000)),
            Mode::Outage,
            "the delay starts again"
        );
        assert_eq!(debouncer.see(Mode::Normal, at(10_000)), Mode::Outage);
        assert_eq!(debouncer.see(Mode::Degraded, at(19_999)), Mode::Outage);
        assert_eq!(
            debouncer.see(Mode::Normal, at(20_000)),
            Mode::Degraded,
            "degraded or better since 10,000"
        );
        assert_eq!(debouncer.see(Mode::Normal, at(30_000)), Mode::Normal);
    }

    #[test]
    fn a_flapping_provider_does_not_change_the_mode() {
        let mut debouncer = Held::default();
        for second in 0..60 {
            let seen = if second % 2 == 0 {
                Mode::Outage
            } else {
                Mode::Normal
            };
            assert_eq!(
                debouncer.see(seen, Duration::from_secs(second)),
                Mode::Normal
            );
        }
    }
}
