//! A length of time drawn between two bounds, so that what was stopped together does not start together. Pure.

use std::time::Duration;

/// The length of time at `chance` (0 to 1) of the way from `low` to `high`.
///
/// Never outside the two bounds, whatever `chance` is: less than 0 or not a number counts as 0, more than 1 as 1. Where
/// `high` is below `low`, it is `high`.
pub fn between(low: Duration, high: Duration, chance: f64) -> Duration {
    let chance = if chance > 0.0 { chance.min(1.0) } else { 0.0 };
    let width = high.saturating_sub(low).as_secs_f64();
    let step = Duration::try_from_secs_f64(width * chance).unwrap_or(Duration::MAX);
    low.saturating_add(step).min(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_as_far_between_as_chance_says() {
        let (low, high) = (Duration::from_secs(8), Duration::from_secs(12));
        assert_eq!(between(low, high, 0.0), low);
        assert_eq!(between(low, high, 0.25), Duration::from_secs(9));
        assert_eq!(between(low, high, 1.0), high);
        assert_eq!(between(low, high, f64::NAN), low);
        assert_eq!(between(high, low, 0.5), low);
    }

    proptest! {
        #[test]
        fn stays_between(low: Duration, high: Duration, chance in prop::num::f64::ANY) {
            let drawn = between(low, high, chance);
            prop_assert!(drawn <= high && drawn >= low.min(high));
        }
    }
}
