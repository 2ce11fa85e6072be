//! The service's mode from its providers' vitals, and the holds that keep a flapping provider from flapping every page. Pure.

use std::time::Duration;

use crate::chat::{At, Mode, ProviderState};
use crate::provider::backend::Vitals;
use crate::settings::Strategy;

/// How long a worse mode must last before it is shown.
pub const HOLD_DOWN: Duration = Duration::from_secs(2);

/// How long a better mode must last before it is shown.
pub const HOLD_UP: Duration = Duration::from_secs(10);

/// The mode as it is at this moment: an outage where no enabled provider can be asked, normal where the first one can; under another strategy
/// than priority, which has use for all, where all can.
pub fn mode_of<'a>(
    strategy: Strategy,
    vitals: impl IntoIterator<Item = &'a Vitals>,
    now: At,
) -> Mode {
    let enabled = vitals
        .into_iter()
        .filter(|one| one.state != ProviderState::Disabled);
    let can: Vec<bool> = enabled.map(|one| one.can_be_asked(now)).collect();
    let normal = match strategy {
        Strategy::Priority => can.first() == Some(&true),
        Strategy::Weighted | Strategy::RoundRobin | Strategy::Fastest | Strategy::Cheapest => {
            !can.contains(&false)
        }
    };
    match can.contains(&true) {
        false => Mode::Outage,
        true if normal => Mode::Normal,
        true => Mode::Degraded,
    }
}

/// The mode that is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    shown: Mode,
    /// Since when each of [`BAD`] has been seen, or worse.
    bad: [Option<Duration>; 2],
    /// Since when each of [`GOOD`] has been seen, or better.
    good: [Option<Duration>; 2],
}

/// Modes to fall to, the worst first.
const BAD: [Mode; 2] = [Mode::Outage, Mode::Degraded];

/// Modes to rise to, the best first.
const GOOD: [Mode; 2] = [Mode::Normal, Mode::Degraded];

impl Held {
    /// Shows this mode to begin with: what was shown before a restart.
    pub fn showing(shown: Mode) -> Self {
        Self {
            shown,
            ..Self::default()
        }
    }

    /// Takes note of the mode that is seen at `now`, and says which is to be shown: the worst that has lasted for [`HOLD_DOWN`] where that is
    /// worse than the shown, else the best that has lasted for [`HOLD_UP`].
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
    let held =
        move |since: Option<Duration>| since.is_some_and(|since| now.saturating_sub(since) >= hold);
    modes
        .into_iter()
        .zip(since)
        .filter(move |(_, since)| held(*since))
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
    fn the_first_enabled_provider_makes_it_normal_or_all_of_them() {
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
            let all: Vec<_> = states.iter().copied().map(vitals).collect();
            for strategy in Strategy::ALL {
                let mode = if *strategy == Strategy::Priority {
                    by_priority
                } else {
                    by_another
                };
                assert_eq!(
                    mode_of(*strategy, &all, NOW),
                    mode,
                    "{states:?} by {strategy}"
                );
            }
        }
    }

    #[test]
    fn a_rate_limit_being_waited_out_and_a_spent_budget_count_as_not_to_be_asked() {
        let later = Some(At(NOW.0 + 1));
        let limited = Vitals {
            retry_at: later,
            ..vitals(ProviderState::Closed)
        };
        let spent = Vitals {
            budget_until: later,
            ..vitals(ProviderState::Closed)
        };
        for one in [limited, spent] {
            assert_eq!(mode_of(Strategy::Priority, [&one], NOW), Mode::Outage);
            assert_eq!(
                mode_of(Strategy::Priority, [&one], At(NOW.0 + 1)),
                Mode::Normal
            );
        }
    }

    #[test]
    fn changes_are_held_back() {
        let at = Duration::from_millis;
        let mut held = Held::default();
        assert_eq!(held.see(Mode::Degraded, at(0)), Mode::Normal);
        assert_eq!(held.see(Mode::Outage, at(1_999)), Mode::Normal);
        assert_eq!(
            held.see(Mode::Outage, at(2_000)),
            Mode::Degraded,
            "at least that since 0"
        );
        assert_eq!(held.see(Mode::Outage, at(3_998)), Mode::Degraded);
        assert_eq!(
            held.see(Mode::Outage, at(3_999)),
            Mode::Outage,
            "since 1,999"
        );
        assert_eq!(held.see(Mode::Degraded, at(5_000)), Mode::Outage);
        assert_eq!(
            held.see(Mode::Outage, at(9_000)),
            Mode::Outage,
            "begins anew"
        );
        assert_eq!(held.see(Mode::Normal, at(10_000)), Mode::Outage);
        assert_eq!(held.see(Mode::Degraded, at(19_999)), Mode::Outage);
        assert_eq!(
            held.see(Mode::Normal, at(20_000)),
            Mode::Degraded,
            "at least so good since 10,000"
        );
        assert_eq!(held.see(Mode::Normal, at(30_000)), Mode::Normal);
    }

    #[test]
    fn a_flapping_provider_shows_nothing() {
        let mut held = Held::default();
        for second in 0..60 {
            let seen = if second % 2 == 0 {
                Mode::Outage
            } else {
                Mode::Normal
            };
            assert_eq!(held.see(seen, Duration::from_secs(second)), Mode::Normal);
        }
    }
}
