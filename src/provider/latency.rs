//! How long a provider's recent calls took. Pure: time since the start of the process is an argument.
//!
//! Two windows overlap: every call is counted in both, one is read, and each [`WINDOW`] the younger takes the place of the older. So what
//! is read is never older than two windows, and holds at least the whole of the last one. A provider that nobody asks becomes unknown
//! again, which is what makes the fastest strategy look at it anew.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::backend::Latency;

/// The least time for which a call is remembered; twice that is the most.
pub const WINDOW: Duration = Duration::from_secs(5 * 60);

/// The longest that is told apart, in milliseconds: no attempt is allowed to take longer.
const LONGEST_MS: u64 = 600_000;

/// The times of recent calls, of fixed size: two significant digits from 1 ms to ten minutes (HdrHistogram).
#[derive(Debug, Default)]
pub struct Latencies {
    /// What is read: all that came since the younger window was begun, and the window before.
    read: Option<Histogram<u32>>,
    /// All that came since `begun`.
    younger: Option<Histogram<u32>>,
    begun: Duration,
}

impl Latencies {
    /// Counts one call.
    pub fn record(&mut self, took: Duration, now: Duration) {
        self.turn_over(now);
        let ms = u64::try_from(took.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(1, LONGEST_MS);
        for window in [&mut self.read, &mut self.younger] {
            if window.is_none() {
                *window = Histogram::new_with_bounds(1, LONGEST_MS, 2).ok();
            }
            if let Some(window) = window {
                window.saturating_record(ms);
            }
        }
    }

    /// Where the recent calls stand; none where there were none.
    pub fn recent(&mut self, now: Duration) -> Option<Latency> {
        self.turn_over(now);
        let read = self.read.as_ref().filter(|read| !read.is_empty())?;
        let within = |share| read.value_at_quantile(share).min(LONGEST_MS);
        Some(Latency {
            p50: within(0.5),
            p95: within(0.95),
            p99: within(0.99),
        })
    }

    fn turn_over(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.begun);
        if passed < WINDOW {
            return;
        }
        self.read = if passed < WINDOW * 2 {
            self.younger.take()
        } else {
            None
        };
        self.younger = None;
        // Windows begin at whole multiples, so that a rare call does not stretch the one it falls into.
        let windows = now.as_secs() / WINDOW.as_secs();
        self.begun = WINDOW.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn quantiles_are_right_to_two_digits() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|tens| latencies.record(ms(tens * 10), s(1)));
        let Latency { p50, p95, p99 } = latencies.recent(s(1)).unwrap();
        for (found, right) in [(p50, 500), (p95, 950), (p99, 990)] {
            assert!(found.abs_diff(right) <= right / 50, "{found} for {right}");
        }
    }

    #[test]
    fn nothing_is_too_long_to_count() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX, s(0));
        assert_eq!(latencies.recent(s(0)).unwrap().p99, LONGEST_MS);
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_is_recent_is_not() {
        let mut latencies = Latencies::default();
        latencies.record(ms(1_000), s(10));
        latencies.record(ms(10), s(290));
        latencies.record(ms(10), s(310));
        let mut median = |at| latencies.recent(s(at)).map(|one| one.p50);
        assert_eq!(median(599), Some(10), "two of three");
        assert_eq!(median(600), Some(10), "the last window alone");
        assert_eq!(median(899), Some(10));
        assert_eq!(median(900), None, "unknown again");
    }

    #[test]
    fn a_provider_that_became_fast_is_soon_known_as_fast() {
        let mut latencies = Latencies::default();
        (0..300).for_each(|at| latencies.record(ms(5_000), s(at)));
        (600..610).for_each(|at| latencies.record(ms(100), s(at)));
        assert!(latencies.recent(s(610)).is_some_and(|one| one.p99 < 110));
    }

    proptest! {
        /// Nothing of the last window is left out, and nothing older than two is read.
        #[test]
        fn reads_between_one_and_two_windows(steps in prop::collection::vec((0u64..400, 1u64..120), 1..40)) {
            let mut latencies = Latencies::default();
            let (mut all, mut now) = (Vec::new(), 0);
            for (step, took) in steps {
                now += step;
                latencies.record(ms(took), s(now));
                all.push((now, took));
                let longest = |since: u64| {
                    all.iter().filter(|(at, _)| at + since > now).map(|(_, took)| *took).max().unwrap_or(0)
                };
                let found = latencies.recent(s(now)).unwrap().p99;
                prop_assert!(found >= longest(WINDOW.as_secs()) && found <= longest(2 * WINDOW.as_secs()));
            }
        }
    }
}
