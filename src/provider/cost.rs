//! The cost of a provider's answers, and its daily budget. Pure: the time is an argument.
//!
//! Days are UTC. A provider with a spent budget is skipped until the next day. Running answers are
//! still paid for, so a day may exceed its budget by the answers that ran when it was spent. Usage
//! that a provider does not report is estimated, and the sum is marked as an estimate.

use std::cmp::Ordering;

use crate::domain::{Timestamp, TokenUsage};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProviderPricing {
    /// USD per million input and output tokens. Without prices, no cost is known.
    pub prices: Option<(f64, f64)>,
    /// `None` means no limit.
    pub daily_budget_usd: Option<f64>,
}

/// Returns the cost in USD at these prices per million input and output tokens.
pub fn cost_usd((input, output): (f64, f64), usage: TokenUsage) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "no answer has 2^53 tokens")]
    let cost = usage.input_tokens as f64 * input + usage.output_tokens as f64 * output;
    cost / 1_000_000.0
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UsageTotals {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// As far as prices are known.
    pub cost_usd: f64,
    pub estimated: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DailySpend {
    /// Days since 1970-01-01 UTC.
    pub day: u64,
    pub usd: f64,
    pub estimated: bool,
}

impl DailySpend {
    /// Adds a cost to the day of `now`. The spend of any other day is discarded.
    pub fn add(&mut self, usd: f64, estimated: bool, now: Timestamp) {
        let day = utc_day(now);
        if self.day != day {
            *self = Self::default();
            self.day = day;
        }
        self.usd += usd;
        self.estimated |= estimated;
    }

    /// Adds the spend of other instances on the same day. Of different days the later one wins.
    pub fn merged_with(self, others: Self) -> Self {
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

    /// Returns when a provider with this budget may be called again, or `None` if it may be now.
    pub fn resets_at(&self, budget: Option<f64>, now: Timestamp) -> Option<Timestamp> {
        let day = utc_day(now);
        let today = if self.day == day { self.usd } else { 0.0 };
        let is_spent = budget.is_some_and(|budget| today >= budget);
        is_spent.then(|| Timestamp(day.saturating_add(1).saturating_mul(DAY_MS)))
    }
}

/// Returns the UTC day of `now`, in days since 1970-01-01.
pub fn utc_day(now: Timestamp) -> u64 {
    now.0 / DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(20_000 * DAY_MS + DAY_MS / 2);
    const MIDNIGHT: Timestamp = Timestamp(20_001 * DAY_MS);

    fn usage(input_tokens: u64, output_tokens: u64) -> TokenUsage {
        TokenUsage {
            input_tokens,
            output_tokens,
            estimated: false,
        }
    }

    #[test]
    fn prices_are_per_million_tokens() {
        for (prices, usage, usd) in [
            ((0.15, 0.60), usage(1_000_000, 1_000_000), 0.75),
            ((3.0, 15.0), usage(1_000, 200), 0.006),
            ((0.0, 0.0), usage(u64::MAX, u64::MAX), 0.0),
            ((3.0, 15.0), usage(0, 0), 0.0),
        ] {
            assert!(
                (cost_usd(prices, usage) - usd).abs() < 1e-12,
                "{prices:?} {usage:?}"
            );
        }
    }

    #[test]
    fn spent_budget_resets_at_midnight() {
        let mut spent = DailySpend::default();
        let budget = Some(1.0);
        assert_eq!(spent.resets_at(budget, NOON), None);
        spent.add(0.75, false, NOON);
        assert_eq!(spent.resets_at(budget, NOON), None);
        spent.add(0.25, false, NOON);
        assert_eq!(spent.resets_at(budget, NOON), Some(MIDNIGHT));
        assert_eq!(
            spent.resets_at(budget, Timestamp(MIDNIGHT.0 - 1)),
            Some(MIDNIGHT)
        );
        assert_eq!(spent.resets_at(budget, MIDNIGHT), None, "a new day");
        assert_eq!(spent.resets_at(None, NOON), None, "no budget");
    }

    #[test]
    fn a_new_day_starts_at_zero() {
        let mut spent = DailySpend::default();
        spent.add(5.0, true, NOON);
        assert_eq!(
            spent,
            DailySpend {
                day: 20_000,
                usd: 5.0,
                estimated: true
            }
        );
        spent.add(0.5, false, MIDNIGHT);
        assert_eq!(
            spent,
            DailySpend {
                day: 20_001,
                usd: 0.5,
                estimated: false
            }
        );
        // A clock set back starts its day anew, instead of adding to a day in the future for ever.
        spent.add(0.25, false, NOON);
        assert_eq!(spent.resets_at(Some(1.0), NOON), None);
    }

    #[test]
    fn one_estimate_marks_the_sum_as_an_estimate() {
        let mut spent = DailySpend::default();
        for (estimated, sum) in [(false, false), (true, true), (false, true)] {
            spent.add(0.1, estimated, NOON);
            assert_eq!(spent.estimated, sum);
        }
    }

    #[test]
    fn spend_of_other_instances_counts_for_the_same_day() {
        let day = |day, usd| DailySpend {
            day,
            usd,
            estimated: false,
        };
        for (own, others, sum) in [
            (day(20_000, 0.75), day(20_000, 0.5), day(20_000, 1.25)),
            (day(20_000, 0.75), day(19_999, 0.5), day(20_000, 0.75)),
            (day(19_999, 0.75), day(20_000, 0.5), day(20_000, 0.5)),
            (day(20_000, 0.75), DailySpend::default(), day(20_000, 0.75)),
        ] {
            assert_eq!(own.merged_with(others), sum);
        }
        assert_eq!(
            day(20_000, 0.75)
                .merged_with(day(20_000, 0.25))
                .resets_at(Some(1.0), NOON),
            Some(MIDNIGHT)
        );
    }

    #[test]
    fn extreme_times_do_not_panic() {
        let mut spent = DailySpend::default();
        spent.add(f64::MAX, false, Timestamp(u64::MAX));
        assert!(spent.resets_at(Some(1.0), Timestamp(u64::MAX)).is_some());
    }
}
