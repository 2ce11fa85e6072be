//! Percentiles of a provider's recent call durations. Pure: time since process start is an
//! argument.
//!
//! Two windows overlap: every call is counted in both, one is reported, and after each
//! [`LATENCY_WINDOW`] the younger one replaces the older. So a report covers at least the last
//! window and at most two. A provider without calls becomes unknown again, so that the `fastest`
//! strategy measures it anew.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::backend::Latency;

/// The minimum time for which a call is counted; the maximum is twice that.
pub const WINDOW: Duration = Duration::from_secs(5 * 60);

/// Longer calls are counted as this long. No attempt may take longer.
const LONGEST_MS: u64 = 600_000;

/// Durations of recent calls, in HdrHistograms of two significant digits from 1 ms to 10 min.
#[derive(Debug, Default)]
pub struct Latencies {
    /// The calls of the current window and of the one before.
    read: Option<Histogram<u32>>,
    younger: Option<Histogram<u32>>,
    begun: Duration,
}

impl Latencies {
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

    pub fn recent(&mut self, now: Duration) -> Option<Latency> {
        self.turn_over(now);
        let reported = self.read.as_ref().filter(|window| !window.is_empty())?;
        let quantile = |share| reported.value_at_quantile(share).min(LONGEST_MS);
        Some(Latency {
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        })
    }

    fn turn_over(&mut self, now: Duration) {
        let age = now.saturating_sub(self.begun);
        if age < WINDOW {
            return;
        }
        self.read = if age < WINDOW * 2 {
            self.younger.take()
        } else {
            None
        };
        self.younger = None;
        // Windows start at multiples of their length, so that rare calls do not stretch a window.
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
    fn percentiles_have_two_significant_digits() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|tens| latencies.record(ms(tens * 10), s(1)));
        let Latency { p50, p95, p99 } = latencies.recent(s(1)).unwrap();
        for (found, expected) in [(p50, 500), (p95, 950), (p99, 990)] {
            assert!(
                found.abs_diff(expected) <= expected / 50,
                "{found} for {expected}"
            );
        }
    }

    #[test]
    fn longest_durations_are_clamped() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX, s(0));
        assert_eq!(latencies.recent(s(0)).unwrap().p99, LONGEST_MS);
    }

    #[test]
    fn old_calls_expire_and_recent_ones_count() {
        let mut latencies = Latencies::default();
        latencies.record(ms(1_000), s(10));
        latencies.record(ms(10), s(290));
        latencies.record(ms(10), s(310));
        let mut median = |at| latencies.recent(s(at)).map(|latency| latency.p50);
        assert_eq!(median(599), Some(10), "two of three");
        assert_eq!(median(600), Some(10), "the last window alone");
        assert_eq!(median(899), Some(10));
        assert_eq!(median(900), None, "unknown again");
    }

    #[test]
    fn a_provider_that_became_fast_is_soon_reported_as_fast() {
        let mut latencies = Latencies::default();
        (0..300).for_each(|at| latencies.record(ms(5_000), s(at)));
        (600..610).for_each(|at| latencies.record(ms(100), s(at)));
        assert!(
            latencies
                .recent(s(610))
                .is_some_and(|latency| latency.p99 < 110)
        );
    }

    proptest! {
        /// A report covers the last window and nothing older than two.
        #[test]
        fn report_covers_between_one_and_two_windows(steps in prop::collection::vec((0u64..400, 1u64..120), 1..40)) {
            let mut latencies = Latencies::default();
            let mut calls = Vec::new();
            let mut now = 0;
            for (step, took) in steps {
                now += step;
                latencies.record(ms(took), s(now));
                calls.push((now, took));
                let longest = |since: u64| {
                    calls.iter().filter(|(at, _)| at + since > now).map(|(_, took)| *took).max().unwrap_or(0)
                };
                let found = latencies.recent(s(now)).unwrap().p99;
                prop_assert!(found >= longest(WINDOW.as_secs()) && found <= longest(2 * WINDOW.as_secs()));
            }
        }
    }
}
