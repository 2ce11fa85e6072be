//! Random delays, so that callers that stopped together do not restart together. Pure.
//!
//! The delay before a retry has full jitter: it is drawn from zero up to the doubled delay, which
//! spreads retries that failed together further than any narrower range (Marc Brooker, "Exponential
//! Backoff And Jitter", and "Timeouts, retries and backoff with jitter" in the Amazon Builders'
//! Library).

use std::time::Duration;

/// Delays between attempts at one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest delay before the first retry; doubles with each further retry.
    pub base: Duration,
    /// The cap of the doubling.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            max: Duration::from_secs(2),
        }
    }
}

impl Backoff {
    /// Returns the delay before retry number `retry`, counted from 0. `random` is in 0..1.
    pub fn delay(&self, retry: u32, random: f64) -> Duration {
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(retry));
        between(Duration::ZERO, doubled.min(self.max), random)
    }
}

/// Returns the duration at the fraction `random` (0 to 1) of the way from `low` to `high`.
///
/// The result is never outside the bounds: a `random` below 0 or NaN counts as 0, above 1 as 1. If
/// `high` is below `low`, the result is `high`.
pub fn between(low: Duration, high: Duration, random: f64) -> Duration {
    let random = if random > 0.0 { random.min(1.0) } else { 0.0 };
    let width = high.saturating_sub(low).as_secs_f64();
    let step = Duration::try_from_secs_f64(width * random).unwrap_or(Duration::MAX);
    low.saturating_add(step).min(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn delay_doubles_up_to_max() {
        let backoff = Backoff::default();
        for (retry, longest) in [
            (0, 200),
            (1, 400),
            (2, 800),
            (3, 1_600),
            (4, 2_000),
            (5, 2_000),
            (u32::MAX, 2_000),
        ] {
            assert_eq!(
                backoff.delay(retry, 1.0),
                Duration::from_millis(longest),
                "retry {retry}"
            );
            assert_eq!(
                backoff.delay(retry, 0.5),
                Duration::from_millis(longest / 2),
                "retry {retry}"
            );
            assert_eq!(backoff.delay(retry, 0.0), Duration::ZERO, "retry {retry}");
        }
    }

    #[test]
    fn between_interpolates_and_clamps() {
        let low = Duration::from_secs(8);
        let high = Duration::from_secs(12);
        assert_eq!(between(low, high, 0.0), low);
        assert_eq!(between(low, high, 0.25), Duration::from_secs(9));
        assert_eq!(between(low, high, 1.0), high);
        assert_eq!(between(low, high, f64::NAN), low);
        assert_eq!(between(high, low, 0.5), low);
    }

    proptest! {
        #[test]
        fn stays_between(low: Duration, high: Duration, random in prop::num::f64::ANY) {
            let drawn = between(low, high, random);
            prop_assert!(drawn <= high && drawn >= low.min(high));
        }

        #[test]
        fn delay_never_exceeds_max_and_grows_with_random(
            base: Duration,
            max: Duration,
            retry: u32,
            low in 0.0..=1.0,
            high in 0.0..=1.0,
        ) {
            let backoff = Backoff { base, max };
            prop_assert!(backoff.delay(retry, high) <= max);
            if low <= high {
                prop_assert!(backoff.delay(retry, low) <= backoff.delay(retry, high));
                prop_assert!(backoff.delay(retry, high) <= backoff.delay(retry.saturating_add(1), high));
            }
        }
    }
}
