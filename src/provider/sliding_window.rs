//! Exact counts of calls and failures over a sliding time window. Pure.
//!
//! Ten buckets of a tenth of the window each. A moving average does not fit, because a burst of
//! successes would hide an outage that follows it. Counts expire by bucket, so a sum covers at
//! least nine tenths of the window and at most all of it.

use std::collections::VecDeque;
use std::time::Duration;

const BUCKET_COUNT: u128 = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounts {
    pub total: u32,
    pub failed: u32,
}

impl WindowCounts {
    /// Returns `true` if `total` is at least `min` (or 1) and the share of failures is at least
    /// `rate` (0 to 1).
    ///
    /// Divides instead of multiplying, so that 3 of 10 is exactly a configured 0.3.
    pub fn rate_reaches(self, rate: f64, min: u32) -> bool {
        self.total >= min.max(1) && f64::from(self.failed) / f64::from(self.total) >= rate
    }
}

/// The counts of the last `length` of time, in at most ten buckets.
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    /// Nanoseconds per bucket; never zero.
    bucket_nanos: u128,
    /// The non-empty buckets, oldest first, each with its number since time zero.
    buckets: VecDeque<(u128, WindowCounts)>,
}

impl SlidingWindow {
    pub fn new(length: Duration) -> Self {
        Self {
            bucket_nanos: (length.as_nanos() / BUCKET_COUNT).max(1),
            buckets: VecDeque::new(),
        }
    }

    /// Counts one call at `now`. A `now` before the last call counts as the time of the last call.
    pub fn record(&mut self, now: Duration, bad: bool) {
        let last = self.buckets.back().map_or(0, |(number, _)| *number);
        let current = self.bucket_number(now).max(last);
        self.buckets
            .retain(|(number, _)| current - number < BUCKET_COUNT);
        if self
            .buckets
            .back()
            .is_none_or(|(number, _)| *number != current)
        {
            self.buckets.push_back((current, WindowCounts::default()));
        }
        if let Some((_, tally)) = self.buckets.back_mut() {
            tally.total = tally.total.saturating_add(1);
            tally.failed = tally.failed.saturating_add(u32::from(bad));
        }
    }

    pub fn counts(&self, now: Duration) -> WindowCounts {
        let current = self.bucket_number(now);
        let is_recent = |number: u128| current.saturating_sub(number) < BUCKET_COUNT;
        self.buckets
            .iter()
            .filter(|(number, _)| is_recent(*number))
            .fold(WindowCounts::default(), |sum, (_, tally)| WindowCounts {
                total: sum.total.saturating_add(tally.total),
                failed: sum.failed.saturating_add(tally.failed),
            })
    }

    fn bucket_number(&self, now: Duration) -> u128 {
        now.as_nanos() / self.bucket_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn counts_expire_with_their_window() {
        let mut window = SlidingWindow::new(LENGTH);
        window.record(at(999), true);
        window.record(at(1_000), false);
        for (now, all, bad) in [
            (1_000, 2, 1),
            (9_999, 2, 1),
            (10_000, 1, 0),
            (10_999, 1, 0),
            (11_000, 0, 0),
        ] {
            assert_eq!(
                window.counts(at(now)),
                WindowCounts {
                    total: all,
                    failed: bad
                },
                "at {now}"
            );
        }
    }

    #[test]
    fn rate_needs_its_minimum_and_is_exact() {
        for (all, bad, rate, min, reached) in [
            (10, 5, 0.5, 10, true),
            (10, 4, 0.5, 10, false),
            (9, 9, 0.5, 10, false),
            (10, 3, 0.3, 10, true),
            (1_000, 299, 0.3, 10, false),
            (0, 0, 0.0, 0, false),
            (7, 7, f64::NAN, 1, false),
        ] {
            assert_eq!(
                WindowCounts {
                    total: all,
                    failed: bad
                }
                .rate_reaches(rate, min),
                reached,
                "{bad} of {all}"
            );
        }
    }

    #[test]
    fn a_window_has_at_most_ten_buckets() {
        let mut window = SlidingWindow::new(LENGTH);
        for ms in 0..100_000 {
            window.record(at(ms), false);
        }
        assert_eq!(window.buckets.len(), 10);
        assert_eq!(window.counts(at(99_999)).total, 10_000);
    }

    #[test]
    fn extreme_lengths_and_times_do_not_panic() {
        for length in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let mut window = SlidingWindow::new(length);
            for now in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
                window.record(now, true);
            }
            // The first call has expired; the last one is out of order and counts as late as the
            // one before.
            assert_eq!(window.counts(Duration::MAX).failed, 2);
        }
    }

    proptest! {
        /// Compares with a list of all calls.
        #[test]
        fn matches_a_list_of_calls(steps in prop::collection::vec((0u64..4_000, any::<bool>()), 0..60)) {
            let mut window = SlidingWindow::new(LENGTH);
            let mut list = Vec::new();
            let mut now = 0;
            for (step, bad) in steps {
                now += step;
                window.record(at(now), bad);
                list.push((now, bad));
                let within = |then: u64| now / 1_000 - then / 1_000 < 10;
                let all = list.iter().filter(|(then, _)| within(*then)).count();
                let bad = list.iter().filter(|(then, bad)| *bad && within(*then)).count();
                let tally = window.counts(at(now));
                prop_assert_eq!((tally.total as usize, tally.failed as usize), (all, bad));
            }
        }
    }
}
