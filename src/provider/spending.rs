//! What a provider's answers cost, and what is left of its day. Pure: the moment is an argument.
//!
//! A day is one of UTC. Whose budget is spent is passed over until the next one; what is under way at that moment is still paid, so a day
//! may cost more than its budget by the answers that ran at its end. Tokens that a provider does not report are estimated, and the sum says so.

use std::cmp::Ordering;

use crate::chat::{At, Usage};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Prices and limit of one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// USD per million tokens, in and out; without them nothing is known to cost anything.
    pub prices: Option<(f64, f64)>,
    /// USD a day; none for no limit.
    pub daily_budget_usd: Option<f64>,
}

/// What these tokens cost at these prices (USD per million, in and out).
pub fn cost((input, output): (f64, f64), usage: Usage) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "no answer has 2^53 tokens")]
    let cost = usage.input_tokens as f64 * input + usage.output_tokens as f64 * output;
    cost / 1_000_000.0
}

/// What was used since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// What they cost, as far as prices are known.
    pub cost_usd: f64,
    /// Whether some of it is an estimate.
    pub estimated: bool,
}

/// What one day cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// The day, counted from 1970.
    pub day: u64,
    /// USD.
    pub usd: f64,
    /// Whether some of it is an estimate.
    pub estimated: bool,
}

impl Spent {
    /// Counts a cost to the day of `now`; another day's is forgotten.
    pub fn add(&mut self, usd: f64, estimated: bool, now: At) {
        if self.day != day_of(now) {
            *self = Self {
                day: day_of(now),
                usd: 0.0,
                estimated: false,
            };
        }
        self.usd += usd;
        self.estimated |= estimated;
    }

    /// This and what others spent on the same day; of different days the later one.
    pub fn with(self, others: Self) -> Self {
        match self.day.cmp(&others.day) {
            Ordering::Greater => self,
            Ordering::Less => others,
            Ordering::Equal => Self {
                day: self.day,
                usd: self.usd + others.usd,
                estimated: self.estimated || others.estimated,
            },
        }
    }

    /// When a provider with this budget may be asked again; none where it may be now.
    pub fn until(&self, budget: Option<f64>, now: At) -> Option<At> {
        let today = if self.day == day_of(now) {
            self.usd
        } else {
            0.0
        };
        let spent = budget.is_some_and(|budget| today >= budget);
        spent.then(|| At(day_of(now).saturating_add(1).saturating_mul(DAY_MS)))
    }
}

/// The day of UTC that `now` is in, counted from 1970.
pub fn day_of(now: At) -> u64 {
    now.0 / DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: At = At(20_000 * DAY_MS + DAY_MS / 2);
    const MIDNIGHT: At = At(20_001 * DAY_MS);

    fn used(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage {
            input_tokens,
            output_tokens,
            estimated: false,
        }
    }

    #[test]
    fn prices_are_for_a_million() {
        for (prices, usage, usd) in [
            ((0.15, 0.60), used(1_000_000, 1_000_000), 0.75),
            ((3.0, 15.0), used(1_000, 200), 0.006),
            ((0.0, 0.0), used(u64::MAX, u64::MAX), 0.0),
            ((3.0, 15.0), used(0, 0), 0.0),
        ] {
            assert!(
                (cost(prices, usage) - usd).abs() < 1e-12,
                "{prices:?} {usage:?}"
            );
        }
    }

    #[test]
    fn a_spent_budget_is_spent_until_midnight() {
        let mut spent = Spent::default();
        let budget = Some(1.0);
        assert_eq!(spent.until(budget, NOON), None);
        spent.add(0.75, false, NOON);
        assert_eq!(spent.until(budget, NOON), None);
        spent.add(0.25, false, NOON);
        assert_eq!(spent.until(budget, NOON), Some(MIDNIGHT));
        assert_eq!(spent.until(budget, At(MIDNIGHT.0 - 1)), Some(MIDNIGHT));
        assert_eq!(spent.until(budget, MIDNIGHT), None, "a new day");
        assert_eq!(spent.until(None, NOON), None, "no budget is never spent");
    }

    #[test]
    fn a_new_day_begins_with_nothing() {
        let mut spent = Spent::default();
        spent.add(5.0, true, NOON);
        assert_eq!(
            spent,
            Spent {
                day: 20_000,
                usd: 5.0,
                estimated: true
            }
        );
        spent.add(0.5, false, MIDNIGHT);
        assert_eq!(
            spent,
            Spent {
                day: 20_001,
                usd: 0.5,
                estimated: false
            }
        );
        // A clock that is set back counts the day anew, rather than for ever to one that is not yet.
        spent.add(0.25, false, NOON);
        assert_eq!(spent.until(Some(1.0), NOON), None);
    }

    #[test]
    fn one_estimate_makes_the_sum_an_estimate() {
        let mut spent = Spent::default();
        for (estimated, sum) in [(false, false), (true, true), (false, true)] {
            spent.add(0.1, estimated, NOON);
            assert_eq!(spent.estimated, sum);
        }
    }

    #[test]
    fn others_costs_of_the_same_day_count_too() {
        let day = |day, usd| Spent {
            day,
            usd,
            estimated: false,
        };
        for (own, others, sum) in [
            (day(20_000, 0.75), day(20_000, 0.5), day(20_000, 1.25)),
            (day(20_000, 0.75), day(19_999, 0.5), day(20_000, 0.75)),
            (day(19_999, 0.75), day(20_000, 0.5), day(20_000, 0.5)),
            (day(20_000, 0.75), Spent::default(), day(20_000, 0.75)),
        ] {
            assert_eq!(own.with(others), sum);
        }
        assert_eq!(
            day(20_000, 0.75)
                .with(day(20_000, 0.25))
                .until(Some(1.0), NOON),
            Some(MIDNIGHT)
        );
    }

    #[test]
    fn no_moment_panics() {
        let mut spent = Spent::default();
        spent.add(f64::MAX, false, At(u64::MAX));
        assert!(spent.until(Some(1.0), At(u64::MAX)).is_some());
    }
}
