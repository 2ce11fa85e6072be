//! How long a provider's calls took.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::backend::Latency;

/// The longest that is told apart, in milliseconds: no attempt is allowed to take longer.
const LONGEST_MS: u64 = 600_000;

/// A histogram of some calls' times, of fixed size: two significant digits from 1 ms to ten minutes (HdrHistogram).
#[derive(Debug, Default)]
pub struct Latencies(Option<Histogram<u32>>);

impl Latencies {
    /// Counts one call, and says where they stand.
    pub fn record(&mut self, took: Duration) -> Option<Latency> {
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, LONGEST_MS, 2).ok();
        }
        let histogram = self.0.as_mut()?;
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        histogram.saturating_record(ms.clamp(1, LONGEST_MS));
        let within = |share| histogram.value_at_quantile(share).min(LONGEST_MS);
        Some(Latency { p50: within(0.5), p95: within(0.95), p99: within(0.99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_two_digits() {
        let mut latencies = Latencies::default();
        let last = (1..=100).filter_map(|ms| latencies.record(Duration::from_millis(ms * 10))).last();
        let Latency { p50, p95, p99 } = last.unwrap();
        for (found, right) in [(p50, 500), (p95, 950), (p99, 990)] {
            assert!(found.abs_diff(right) <= right / 50, "{found} for {right}");
        }
    }

    #[test]
    fn nothing_is_too_long_to_count() {
        let found = Latencies::default().record(Duration::MAX).unwrap();
        assert_eq!(found.p99, LONGEST_MS);
    }
}
