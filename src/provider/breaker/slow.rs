//! Slow first tokens: a provider that answers, but many times later than it used to.

use std::collections::VecDeque;
use std::time::Duration;

use super::Rules;
use crate::provider::window::Window;

/// No first token that comes sooner is slow, however fast the others were: nobody waits long for it.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// First tokens kept of a window, the latest ones: the median of so many is as good as that of all.
const SAMPLES: usize = 128;

/// What first tokens took, compared with the window before.
///
/// The measure is learnt from first tokens that were not slow, or else a slow provider would soon be its own measure. It is
/// taken over when its window has passed and there were at least `min_calls` in it; before the first one nothing is slow.
#[derive(Clone, Debug)]
pub(super) struct Slow {
    /// The median of the window before.
    usual: Option<Duration>,
    /// What will be the next, oldest first, and when the first of it came.
    learning: VecDeque<Duration>,
    began: Duration,
    /// All that were compared, and those that were slow.
    compared: Window,
}

impl Slow {
    /// With everything to learn.
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            usual: None,
            learning: VecDeque::new(),
            began: Duration::ZERO,
            compared: Window::new(rules.window),
        }
    }

    /// A first token came after `latency`. Is that one too many slow ones?
    pub(super) fn record(&mut self, latency: Duration, now: Duration, rules: &Rules) -> bool {
        self.take_over(now, rules);
        let slow = self
            .usual
            .is_some_and(|usual| latency >= limit(usual, rules.slow_factor));
        if self.usual.is_some() {
            self.compared.record(now, slow);
        }
        if !slow {
            self.learn(latency, now);
        }
        slow && self
            .compared
            .tally(now)
            .reaches(rules.slow_rate, rules.min_calls)
    }

    fn learn(&mut self, latency: Duration, now: Duration) {
        if self.learning.is_empty() {
            self.began = now;
        }
        if self.learning.len() == SAMPLES {
            self.learning.pop_front();
        }
        self.learning.push_back(latency);
    }

    /// Makes what was learnt the measure, once it spans a window and is enough.
    fn take_over(&mut self, now: Duration, rules: &Rules) {
        let enough = usize::try_from(rules.min_calls)
            .unwrap_or(SAMPLES)
            .clamp(1, SAMPLES);
        if self.learning.len() >= enough && now.saturating_sub(self.began) >= rules.window {
            let middle = self.learning.len() / 2;
            let (_, median, _) = self.learning.make_contiguous().select_nth_unstable(middle);
            self.usual = Some(*median);
            self.learning.clear();
        }
    }
}

/// From when on a first token is slow, where `usual` is usual. A factor that makes no sense makes nothing slow.
fn limit(usual: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(usual.as_secs_f64() * factor)
        .map_or(Duration::MAX, |limit| limit.max(NOTICEABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One that has learnt that `usual` is usual, and the time at which it had: a window of so many, then it is taken over.
    fn taught(usual: u64, rules: &Rules) -> (Slow, Duration) {
        let mut slow = Slow::new(rules);
        for step in 0..120 {
            assert!(!slow.record(ms(usual), ms(step * 500), rules));
        }
        (slow, ms(60_000))
    }

    #[test]
    fn slow_is_five_times_the_median_and_at_least_a_second() {
        let rules = Rules::default();
        for (usual, latency, is_slow) in [
            (300, 1_499, false),
            (300, 1_500, true),
            (20, 999, false),
            (20, 1_000, true),
        ] {
            let (mut slow, now) = taught(usual, &rules);
            slow.record(ms(latency), now, &rules);
            assert_eq!(
                slow.compared.tally(now).bad == 1,
                is_slow,
                "{latency} where {usual} is usual"
            );
        }
    }

    #[test]
    fn nothing_is_slow_before_anything_is_usual() {
        let rules = Rules::default();
        let mut slow = Slow::new(&rules);
        // Too few in their window to tell: the window is stretched until they are enough.
        for step in 0..9 {
            assert!(!slow.record(ms(100), ms(step * 60_000), &rules));
        }
        assert!(!slow.record(ms(90_000), ms(600_000), &rules));
        assert_eq!(slow.compared.tally(ms(600_000)).all, 0);
        assert_eq!(slow.usual, None);
        slow.record(ms(100), ms(660_000), &rules);
        assert_eq!(slow.usual, Some(ms(100)));
    }

    #[test]
    fn ten_times_slower_trips_within_a_minute() {
        let rules = Rules::default();
        for per_call in [200, 500, 2_000, 5_000] {
            let (mut slow, start) = taught(300, &rules);
            let times = (0..60_000 / per_call).map(|call| start + ms(call * per_call));
            for now in times.clone() {
                assert!(!slow.record(ms(300), now, &rules));
            }
            let onset = start + ms(60_000);
            let calls = times.map(|now| now + ms(60_000));
            let tripped = calls
                .into_iter()
                .find(|now| slow.record(ms(3_000), *now, &rules));
            assert!(
                tripped.is_some_and(|at| at - onset < ms(60_000)),
                "a call each {per_call} ms"
            );
        }
    }

    #[test]
    fn eight_of_ten_and_no_fewer() {
        let rules = Rules::default();
        for (good, tripped) in [(2, true), (3, false)] {
            let (mut slow, now) = taught(300, &rules);
            (0..good).for_each(|_| assert!(!slow.record(ms(300), now, &rules)));
            let last = (0..8).map(|_| slow.record(ms(5_000), now, &rules)).last();
            assert_eq!(last, Some(tripped), "{good} good ones");
        }
    }

    #[test]
    fn slow_ones_are_not_learnt_and_better_ones_are() {
        let rules = Rules::default();
        let (mut slow, start) = taught(300, &rules);
        // Seven in ten are slow, for ten minutes: too few to trip, and still no measure.
        for call in 0..1_200 {
            let latency = if call % 10 >= 3 { 9_000 } else { 300 };
            assert!(!slow.record(ms(latency), start + ms(call * 500), &rules));
        }
        assert_eq!(slow.usual, Some(ms(300)));
        for call in 1_200..1_600 {
            slow.record(ms(100), start + ms(call * 500), &rules);
        }
        assert_eq!(slow.usual, Some(ms(100)));
        assert!(slow.learning.len() <= SAMPLES);
    }

    #[test]
    fn no_factor_panics() {
        for factor in [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MAX] {
            let rules = Rules {
                slow_factor: factor,
                ..Rules::default()
            };
            let (mut slow, now) = taught(300, &rules);
            slow.record(Duration::MAX, now, &rules);
        }
    }
}
