//! Exact counts over a sliding window of time: so many calls, so many of them bad. Pure.
//!
//! Ten buckets, each a tenth of the window, and no moving average: an average lets a burst of good calls hide an outage that
//! follows it. A count leaves with its bucket, so that what is summed up is never older than the window and never leaves out
//! what is younger than nine tenths of it.

use std::collections::VecDeque;
use std::time::Duration;

/// Into how many parts a window is cut: it moves on by a tenth at a time.
const BUCKETS: u128 = 10;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub all: u32,
    /// Those that were bad.
    pub bad: u32,
}

impl Tally {
    /// Are there at least `min` (one, where it is zero), and is the share of bad ones at least `rate` (0 to 1)?
    ///
    /// Divides instead of multiplying: 3 of 10 is then exactly the 0.3 that a configuration says.
    pub fn reaches(self, rate: f64, min: u32) -> bool {
        self.all >= min.max(1) && f64::from(self.bad) / f64::from(self.all) >= rate
    }
}

/// Counts of the last `length` of time. At most ten buckets of memory.
#[derive(Clone, Debug)]
pub struct Window {
    /// Nanoseconds a bucket spans; never zero.
    width: u128,
    /// Buckets that were written to, oldest first, each with its number since time zero.
    buckets: VecDeque<(u128, Tally)>,
}

impl Window {
    /// An empty window of this length.
    pub fn new(length: Duration) -> Self {
        Self {
            width: (length.as_nanos() / BUCKETS).max(1),
            buckets: VecDeque::new(),
        }
    }

    /// Counts one at `now`. A `now` earlier than the last counts as the last.
    pub fn record(&mut self, now: Duration, bad: bool) {
        let last = self.buckets.back().map_or(0, |(number, _)| *number);
        let current = self.number(now).max(last);
        self.buckets
            .retain(|(number, _)| current - number < BUCKETS);
        if self
            .buckets
            .back()
            .is_none_or(|(number, _)| *number != current)
        {
            self.buckets.push_back((current, Tally::default()));
        }
        if let Some((_, tally)) = self.buckets.back_mut() {
            tally.all = tally.all.saturating_add(1);
            tally.bad = tally.bad.saturating_add(u32::from(bad));
        }
    }

    /// What was counted within the window that ends at `now`.
    pub fn tally(&self, now: Duration) -> Tally {
        let current = self.number(now);
        let within = |number: u128| current.saturating_sub(number) < BUCKETS;
        self.buckets
            .iter()
            .filter(|(number, _)| within(*number))
            .fold(Tally::default(), |sum, (_, tally)| Tally {
                all: sum.all.saturating_add(tally.all),
                bad: sum.bad.saturating_add(tally.bad),
            })
    }

    fn number(&self, now: Duration) -> u128 {
        now.as_nanos() / self.width
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
    fn counts_leave_when_the_window_has_passed_and_not_before() {
        let mut window = Window::new(LENGTH);
        window.record(at(999), true);
        window.record(at(1_000), false);
        for (now, all, bad) in [
            (1_000, 2, 1),
            (9_999, 2, 1),
            (10_000, 1, 0),
            (10_999, 1, 0),
            (11_000, 0, 0),
        ] {
            assert_eq!(window.tally(at(now)), Tally { all, bad }, "at {now}");
        }
    }

    #[test]
    fn a_rate_needs_its_minimum_and_is_exact() {
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
                Tally { all, bad }.reaches(rate, min),
                reached,
                "{bad} of {all}"
            );
        }
    }

    #[test]
    fn memory_is_ten_buckets() {
        let mut window = Window::new(LENGTH);
        for ms in 0..100_000 {
            window.record(at(ms), false);
        }
        assert_eq!(window.buckets.len(), 10);
        assert_eq!(window.tally(at(99_999)).all, 10_000);
    }

    #[test]
    fn no_length_and_no_time_panics() {
        for length in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let mut window = Window::new(length);
            for now in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
                window.record(now, true);
            }
            // The first is gone; the last, out of order, counts as late as the one before.
            assert_eq!(window.tally(Duration::MAX).bad, 2);
        }
    }

    proptest! {
        /// Against a list of all that was ever counted.
        #[test]
        fn counts_what_a_list_counts(steps in prop::collection::vec((0u64..4_000, any::<bool>()), 0..60)) {
            let mut window = Window::new(LENGTH);
            let (mut list, mut now) = (Vec::new(), 0);
            for (step, bad) in steps {
                now += step;
                window.record(at(now), bad);
                list.push((now, bad));
                let within = |then: u64| now / 1_000 - then / 1_000 < 10;
                let all = list.iter().filter(|(then, _)| within(*then)).count();
                let bad = list.iter().filter(|(then, bad)| *bad && within(*then)).count();
                let tally = window.tally(at(now));
                prop_assert_eq!((tally.all as usize, tally.bad as usize), (all, bad));
            }
        }
    }
}
