//! Random durations between two bounds, so that callers that stopped together do not restart
//! together. Pure.

use std::time::Duration;

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
    }
}
