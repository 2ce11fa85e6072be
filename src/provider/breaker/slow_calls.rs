//! Detection of slow first tokens: the provider answers, but many times later than before.

use std::collections::VecDeque;
use std::time::Duration;

use super::BreakerConfig;
use crate::provider::sliding_window::SlidingWindow;

/// No faster first token counts as slow, however fast the others were: no visitor waits long for
/// it.
const MIN_SLOW_LATENCY: Duration = Duration::from_secs(1);

/// The latest first tokens per window that are kept; more would not improve the median.
const MAX_SAMPLES: usize = 128;

/// First-token latencies, compared with the median of the previous window.
///
/// The baseline is learned only from first tokens that were not slow; otherwise a slow provider
/// would soon become its own baseline. A baseline takes effect when its window has passed with at
/// least `min_calls` samples. Before the first baseline nothing is slow.
#[derive(Clone, Debug)]
pub(super) struct SlowCallDetector {
    baseline_median: Option<Duration>,
    /// The samples of the next baseline, oldest first.
    next_samples: VecDeque<Duration>,
    sampling_since: Duration,
    /// The first tokens that were compared with a baseline, with the slow ones as failures.
    compared: SlidingWindow,
}

impl SlowCallDetector {
    pub(super) fn new(rules: &BreakerConfig) -> Self {
        Self {
            baseline_median: None,
            next_samples: VecDeque::new(),
            sampling_since: Duration::ZERO,
            compared: SlidingWindow::new(rules.window),
        }
    }

    /// Records a first token. Returns `true` if this one is slow and makes the share of slow ones
    /// too high.
    pub(super) fn record(
        &mut self,
        latency: Duration,
        now: Duration,
        rules: &BreakerConfig,
    ) -> bool {
        self.roll_baseline(now, rules);
        let is_slow = self
            .baseline_median
            .is_some_and(|baseline| latency >= slow_threshold(baseline, rules.slow_factor));
        if self.baseline_median.is_some() {
            self.compared.record(now, is_slow);
        }
        if !is_slow {
            self.add_sample(latency, now);
        }
        is_slow
            && self
                .compared
                .counts(now)
                .rate_reaches(rules.slow_rate, rules.min_calls)
    }

    fn add_sample(&mut self, latency: Duration, now: Duration) {
        if self.next_samples.is_empty() {
            self.sampling_since = now;
        }
        if self.next_samples.len() == MAX_SAMPLES {
            self.next_samples.pop_front();
        }
        self.next_samples.push_back(latency);
    }

    /// Makes the samples the baseline, once they span a window and are enough.
    fn roll_baseline(&mut self, now: Duration, rules: &BreakerConfig) {
        let min_samples = usize::try_from(rules.min_calls)
            .unwrap_or(MAX_SAMPLES)
            .clamp(1, MAX_SAMPLES);
        if self.next_samples.len() >= min_samples
            && now.saturating_sub(self.sampling_since) >= rules.window
        {
            let middle = self.next_samples.len() / 2;
            let (_, median, _) = self
                .next_samples
                .make_contiguous()
                .select_nth_unstable(middle);
            self.baseline_median = Some(*median);
            self.next_samples.clear();
        }
    }
}

/// Returns the latency from which a first token is slow. A factor that is not usable makes nothing
/// slow.
fn slow_threshold(baseline: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(baseline.as_secs_f64() * factor)
        .map_or(Duration::MAX, |limit| limit.max(MIN_SLOW_LATENCY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A detector with this baseline, and the time at which the baseline takes effect.
    fn with_baseline(baseline: u64, rules: &BreakerConfig) -> (SlowCallDetector, Duration) {
        let mut slow = SlowCallDetector::new(rules);
        for step in 0..120 {
            assert!(!slow.record(ms(baseline), ms(step * 500), rules));
        }
        (slow, ms(60_000))
    }

    #[test]
    fn slow_is_five_times_the_baseline_and_at_least_a_second() {
        let rules = BreakerConfig::default();
        for (baseline, latency, is_slow) in [
            (300, 1_499, false),
            (300, 1_500, true),
            (20, 999, false),
            (20, 1_000, true),
        ] {
            let (mut slow, now) = with_baseline(baseline, &rules);
            slow.record(ms(latency), now, &rules);
            assert_eq!(
                slow.compared.counts(now).failed == 1,
                is_slow,
                "{latency} with baseline {baseline}"
            );
        }
    }

    #[test]
    fn nothing_is_slow_without_a_baseline() {
        let rules = BreakerConfig::default();
        let mut slow = SlowCallDetector::new(&rules);
        // Too few samples in their window: the window is extended until they are enough.
        for step in 0..9 {
            assert!(!slow.record(ms(100), ms(step * 60_000), &rules));
        }
        assert!(!slow.record(ms(90_000), ms(600_000), &rules));
        assert_eq!(slow.compared.counts(ms(600_000)).total, 0);
        assert_eq!(slow.baseline_median, None);
        slow.record(ms(100), ms(660_000), &rules);
        assert_eq!(slow.baseline_median, Some(ms(100)));
    }

    #[test]
    fn ten_times_slower_trips_within_a_minute() {
        let rules = BreakerConfig::default();
        for per_call in [200, 500, 2_000, 5_000] {
            let (mut slow, start) = with_baseline(300, &rules);
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
                "a call every {per_call} ms"
            );
        }
    }

    #[test]
    fn eight_slow_of_ten_trip_and_fewer_do_not() {
        let rules = BreakerConfig::default();
        for (good, tripped) in [(2, true), (3, false)] {
            let (mut slow, now) = with_baseline(300, &rules);
            (0..good).for_each(|_| assert!(!slow.record(ms(300), now, &rules)));
            let last = (0..8).map(|_| slow.record(ms(5_000), now, &rules)).last();
            assert_eq!(last, Some(tripped), "{good} fast ones");
        }
    }

    #[test]
    fn slow_first_tokens_do_not_become_the_baseline() {
        let rules = BreakerConfig::default();
        let (mut slow, start) = with_baseline(300, &rules);
        // Seven in ten are slow for ten minutes: too few to trip, and still no new baseline.
        for call in 0..1_200 {
            let latency = if call % 10 >= 3 { 9_000 } else { 300 };
            assert!(!slow.record(ms(latency), start + ms(call * 500), &rules));
        }
        assert_eq!(slow.baseline_median, Some(ms(300)));
        for call in 1_200..1_600 {
            slow.record(ms(100), start + ms(call * 500), &rules);
        }
        assert_eq!(slow.baseline_median, Some(ms(100)));
        assert!(slow.next_samples.len() <= MAX_SAMPLES);
    }

    #[test]
    fn extreme_factors_do_not_panic() {
        for factor in [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MAX] {
            let rules = BreakerConfig {
                slow_factor: factor,
                ..BreakerConfig::default()
            };
            let (mut slow, now) = with_baseline(300, &rules);
            slow.record(Duration::MAX, now, &rules);
        }
    }
}
