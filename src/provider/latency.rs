//! Percentiles of a provider's recent call durations. Pure: time since process start is an
//! argument.
//!
//! Two windows overlap: every call is counted in both, one is reported, and after each
//! [`LATENCY_WINDOW`] the younger one replaces the older. So a report covers at least the last
//! window and at most two. A provider without calls becomes unknown again, so that the `fastest`
//! strategy measures it anew.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The minimum time for which a call is counted; the maximum is twice that.
pub const LATENCY_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Longer calls are counted as this long. No attempt may take longer.
const MAX_LATENCY_MS: u64 = 600_000;

/// Percentiles of call durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyPercentiles {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

/// Durations of recent calls, in HdrHistograms of two significant digits from 1 ms to 10 min.
#[derive(Debug, Default)]
pub struct RecentLatency {
    /// The calls of the current window and of the one before.
    reported: Option<Histogram<u32>>,
    current: Option<Histogram<u32>>,
    current_since: Duration,
}

impl RecentLatency {
    pub fn record(&mut self, took: Duration, now: Duration) {
        self.rotate(now);
        let ms = u64::try_from(took.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(1, MAX_LATENCY_MS);
        for window in [&mut self.reported, &mut self.current] {
            if window.is_none() {
                *window = Histogram::new_with_bounds(1, MAX_LATENCY_MS, 2).ok();
            }
            if let Some(window) = window {
                window.saturating_record(ms);
            }
        }
    }

    pub fn percentiles(&mut self, now: Duration) -> Option<LatencyPercentiles> {
        self.rotate(now);
        let reported = self.reported.as_ref().filter(|window| !window.is_empty())?;
        let quantile = |share| reported.value_at_quantile(share).min(MAX_LATENCY_MS);
        Some(LatencyPercentiles {
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
        })
    }

    fn rotate(&mut self, now: Duration) {
        let age = now.saturating_sub(self.current_since);
        if age < LATENCY_WINDOW {
            return;
        }
        self.reported = if age < LATENCY_WINDOW * 2 {
            self.current.take()
        } else {
            None
        };
        self.current = None;
        // Windows start at multiples of their length, so that rare calls do not stretch a window.
        let windows = now.as_secs() / LATENCY_WINDOW.as_secs();
        self.current_since =
            LATENCY_WINDOW.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX));
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
        let mut latencies = RecentLatency::default();
        (1..=100).for_each(|tens| latencies.record(ms(tens * 10), s(1)));
        let LatencyPercentiles { p50, p95, p99 } = latencies.percentiles(s(1)).unwrap();
        for (found, expected) in [(p50, 500), (p95, 950), (p99, 990)] {
            assert!(
                found.abs_diff(expected) <= expected / 50,
                "{found} for {expected}"
            );
        }
    }

    #[test]
    fn longest_durations_are_clamped() {
        let mut latencies = RecentLatency::default();
        latencies.record(Duration::MAX, s(0));
        assert_eq!(latencies.percentiles(s(0)).unwrap().p99, MAX_LATENCY_MS);
    }

    #[test]
    fn old_calls_expire_and_recent_ones_count() {
        let mut latencies = RecentLatency::default();
        latencies.record(ms(1_000), s(10));
        latencies.record(ms(10), s(290));
        latencies.record(ms(10), s(310));
        let mut median = |at| latencies.percentiles(s(at)).map(|latency| latency.p50);
        assert_eq!(median(599), Some(10), "two of three");
        assert_eq!(median(600), Some(10), "the last window alone");
        assert_eq!(median(899), Some(10));
        assert_eq!(median(900), None, "unknown again");
    }

    #[test]
    fn a_provider_that_became_fast_is_soon_reported_as_fast() {
        let mut latencies = RecentLatency::default();
        (0..300).for_each(|at| latencies.record(ms(5_000), s(at)));
        (600..610).for_each(|at| latencies.record(ms(100), s(at)));
        assert!(
            latencies
                .percentiles(s(610))
                .is_some_and(|latency| latency.p99 < 110)
        );
    }

    proptest! {
        /// A report covers the last window and nothing older than two.
        #[test]
        fn report_covers_between_one_and_two_windows(steps in prop::collection::vec((0u64..400, 1u64..120), 1..40)) {
            let mut latencies = RecentLatency::default();
            let mut calls = Vec::new();
            let mut now = 0;
            for (step, took) in steps {
                now += step;
                latencies.record(ms(took), s(now));
                calls.push((now, took));
                let longest = |since: u64| {
                    calls.iter().filter(|(at, _)| at + since > now).map(|(_, took)| *took).max().unwrap_or(0)
                };
                let found = latencies.percentiles(s(now)).unwrap().p99;
                prop_assert!(found >= longest(LATENCY_WINDOW.as_secs()) && found <= longest(2 * LATENCY_WINDOW.as_secs()));
            }
        }
    }
}
