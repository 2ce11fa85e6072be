//! The retry budget: extra calls (retries at the same provider, hedges, background attempts) are
//! limited to a share of the turns, so that retries do not make an outage worse. Pure.
//!
//! After the retry budgets of Finagle (`com.twitter.finagle.service.RetryBudget`) and tower
//! (`retry::budget`): every turn deposits a part of an extra call, a few are free, and both
//! deposits and withdrawals are forgotten after a minute. So at every moment the extra calls of the
//! last minute are at most ten plus the share of that minute's turns. Credit saved in quiet hours
//! cannot be spent in one bad minute. A call to an untried provider is no extra call and needs no
//! budget.

use std::time::Duration;

use crate::provider::sliding_window::SlidingWindow;

const BUDGET_WINDOW: Duration = Duration::from_secs(60);

/// Extra calls per [`BUDGET_WINDOW`] that need no deposit, so that services with few visitors retry
/// too.
const FREE_CALLS: u64 = 10;

/// One extra call in accounting units. Whole numbers, because sums of 0.2 are not exact in `f64`.
const UNITS_PER_CALL: u64 = 1_000;

#[derive(Clone, Debug)]
pub struct RetryBudget {
    units_per_turn: u64,
    turns: SlidingWindow,
    withdrawals: SlidingWindow,
    /// Also counted in `withdrawals`.
    background_withdrawals: SlidingWindow,
}

impl RetryBudget {
    /// Creates a budget of `share` extra calls per turn: 0.2 allows one call per five turns.
    ///
    /// `share` is rounded to thousandths and clamped to 0..=1,000. NaN counts as 0, which leaves
    /// the free calls.
    pub fn new(share: f64) -> Self {
        Self {
            units_per_turn: share_to_units(share),
            turns: SlidingWindow::new(BUDGET_WINDOW),
            withdrawals: SlidingWindow::new(BUDGET_WINDOW),
            background_withdrawals: SlidingWindow::new(BUDGET_WINDOW),
        }
    }

    /// Changes the share, also for deposits already made.
    pub fn set_share(&mut self, share: f64) {
        self.units_per_turn = share_to_units(share);
    }

    /// Adds one turn's share of an extra call.
    pub fn deposit(&mut self, now: Duration) {
        self.turns.record(now, false);
    }

    /// Takes one extra call. Returns `false` if the balance is less than one.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let (credit, debit) = self.totals(now);
        let is_affordable = credit >= debit + UNITS_PER_CALL;
        if is_affordable {
            self.withdrawals.record(now, false);
        }
        is_affordable
    }

    /// Takes one extra call for a background attempt.
    ///
    /// These get at most half of all extra calls, so that waiting visitors find the other half.
    pub fn withdraw_background(&mut self, now: Duration) -> bool {
        let (credit, _) = self.totals(now);
        let background = u64::from(self.background_withdrawals.counts(now).total);
        let is_affordable = credit >= 2 * (background + 1) * UNITS_PER_CALL && self.withdraw(now);
        if is_affordable {
            self.background_withdrawals.record(now, false);
        }
        is_affordable
    }

    /// Returns the extra calls that are available now, with a fraction; never negative. For
    /// display.
    pub fn balance(&self, now: Duration) -> f64 {
        let (credit, debit) = self.totals(now);
        credit.saturating_sub(debit) as f64 / UNITS_PER_CALL as f64
    }

    fn totals(&self, now: Duration) -> (u64, u64) {
        let turns = u64::from(self.turns.counts(now).total);
        let spent = u64::from(self.withdrawals.counts(now).total);
        (
            FREE_CALLS * UNITS_PER_CALL + turns * self.units_per_turn,
            spent * UNITS_PER_CALL,
        )
    }
}

fn share_to_units(share: f64) -> u64 {
    // NaN passes through `clamp`, and the cast makes it 0.
    (share.clamp(0.0, 1_000.0) * UNITS_PER_CALL as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn withdraw_all(budget: &mut RetryBudget, now: Duration) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn ten_calls_a_minute_are_free() {
        let mut budget = RetryBudget::new(0.2);
        assert_eq!(withdraw_all(&mut budget, at(0)), 10);
        assert_eq!(withdraw_all(&mut budget, at(53)), 0);
        assert_eq!(withdraw_all(&mut budget, at(60)), 10);
    }

    #[test]
    fn five_turns_pay_for_one_call() {
        let mut budget = RetryBudget::new(0.2);
        assert_eq!(withdraw_all(&mut budget, at(0)), 10);
        for turn in 1..=15 {
            budget.deposit(at(1));
            assert_eq!(budget.withdraw(at(1)), turn % 5 == 0, "turn {turn}");
        }
    }

    #[test]
    fn saved_credit_expires_after_a_minute() {
        let mut budget = RetryBudget::new(1.0);
        (0..1_000).for_each(|_| budget.deposit(at(0)));
        assert_eq!(budget.balance(at(53)), 1_010.0);
        assert_eq!(withdraw_all(&mut budget, at(3_600)), 10);
    }

    #[test]
    fn share_of_zero_or_nan_leaves_the_free_calls() {
        for share in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            let mut budget = RetryBudget::new(share);
            (0..100).for_each(|_| budget.deposit(at(0)));
            assert_eq!(withdraw_all(&mut budget, at(0)), 10, "share {share}");
        }
        let mut budget = RetryBudget::new(f64::INFINITY);
        budget.deposit(at(0));
        assert_eq!(budget.balance(at(0)), 1_010.0);
    }

    #[test]
    fn background_attempts_take_at_most_half() {
        let withdraw_all_background = |budget: &mut RetryBudget, now| {
            (0..10_000)
                .take_while(|_| budget.withdraw_background(now))
                .count()
        };
        let mut budget = RetryBudget::new(0.2);
        assert_eq!(withdraw_all_background(&mut budget, at(0)), 5);
        assert_eq!(
            withdraw_all(&mut budget, at(0)),
            5,
            "the other half is left for waiting visitors"
        );
        assert_eq!(withdraw_all_background(&mut budget, at(60)), 5);
        (0..50).for_each(|_| budget.deposit(at(61)));
        assert_eq!(withdraw_all_background(&mut budget, at(61)), 5);
        assert_eq!(withdraw_all(&mut budget, at(61)), 10);
        // Withdrawals for visitors reduce the share of background attempts.
        assert_eq!(withdraw_all(&mut budget, at(180)), 10);
        assert_eq!(withdraw_all_background(&mut budget, at(180)), 0);
    }

    #[test]
    fn new_share_applies_to_earlier_deposits() {
        let mut budget = RetryBudget::new(0.0);
        (0..10).for_each(|_| budget.deposit(at(0)));
        budget.set_share(0.5);
        assert_eq!(withdraw_all(&mut budget, at(0)), 15);
    }

    proptest! {
        /// A call is granted if and only if the extra calls of the last minute then stay within ten
        /// plus the share of its turns.
        #[test]
        fn withdraw_is_exact(
            share in 0u32..=20,
            steps in prop::collection::vec((0u64..20, any::<bool>()), 0..200),
        ) {
            let mut budget = RetryBudget::new(f64::from(share) / 10.0);
            let mut turns = Vec::new();
            let mut extra_calls = Vec::new();
            let mut now = 0;
            for (step, is_deposit) in steps {
                now += step;
                let is_recent = |then: &&u64| now / 6 - **then / 6 < 10;
                if is_deposit {
                    budget.deposit(at(now));
                    turns.push(now);
                    continue;
                }
                let allowed = 100 + turns.iter().filter(is_recent).count() * share as usize;
                let used = extra_calls.iter().filter(is_recent).count() * 10;
                let before = budget.balance(at(now));
                prop_assert_eq!(before, allowed.saturating_sub(used) as f64 / 10.0);
                let granted = budget.withdraw(at(now));
                prop_assert_eq!(granted, used + 10 <= allowed);
                if granted {
                    extra_calls.push(now);
                }
            }
        }
    }
}
