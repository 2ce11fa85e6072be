//! The retry budget: extra calls (retries at the same provider, hedges, late answers) may be a share of the turns, so that an
//! outage is not made worse by those who suffer from it. Pure.
//!
//! After the retry budgets of Finagle (`com.twitter.finagle.service.RetryBudget`) and tower (`retry::budget`): every turn
//! deposits a part of an extra call, a few are free, and both deposits and withdrawals are forgotten after a minute. So at
//! every moment the extra calls of the last minute are at most ten and the share of that minute's turns. A wealth of quiet hours
//! cannot be spent in one bad minute. Going to a provider not yet tried is no extra call: it asks no budget.

use std::time::Duration;

use crate::provider::window::Window;

/// How long deposits and withdrawals are remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// Extra calls that need no deposit, in every [`MEMORY`]: who has few visitors may retry too.
const FREE: u64 = 10;

/// An extra call in the unit of account. Whole numbers, because sums of 0.2 are not exact in floating point.
const CALL: u64 = 1_000;

/// Whether another extra call is affordable.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What a turn deposits, in thousandths of a call.
    share: u64,
    turns: Window,
    spent: Window,
    /// Of the spent ones, those for late answers.
    late: Window,
}

impl Budget {
    /// A budget of `share` extra calls per turn: 0.2 allows one for five turns. Counted in thousandths, at most 1,000 calls a
    /// turn; less than 0 or not a number is 0, which leaves the free ones.
    pub fn new(share: f64) -> Self {
        Self {
            share: thousandths(share),
            turns: Window::new(MEMORY),
            spent: Window::new(MEMORY),
            late: Window::new(MEMORY),
        }
    }

    /// Changes the share, for turns already counted too.
    pub fn set_share(&mut self, share: f64) {
        self.share = thousandths(share);
    }

    /// A turn began.
    pub fn deposit(&mut self, now: Duration) {
        self.turns.record(now, false);
    }

    /// Takes one extra call, if there is one to take.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        let (credit, debit) = self.account(now);
        let affordable = credit >= debit + CALL;
        if affordable {
            self.spent.record(now, false);
        }
        affordable
    }

    /// Takes one extra call for a late answer, if there is one to take: these may be half of all that could be made, so that visitors who
    /// wait find the other half.
    pub fn withdraw_late(&mut self, now: Duration) -> bool {
        let (credit, _) = self.account(now);
        let late = u64::from(self.late.tally(now).all);
        let affordable = credit >= 2 * (late + 1) * CALL && self.withdraw(now);
        if affordable {
            self.late.record(now, false);
        }
        affordable
    }

    /// Extra calls that could be made now: 0 or more, with a fraction. For showing.
    pub fn balance(&self, now: Duration) -> f64 {
        let (credit, debit) = self.account(now);
        credit.saturating_sub(debit) as f64 / CALL as f64
    }

    fn account(&self, now: Duration) -> (u64, u64) {
        let turns = u64::from(self.turns.tally(now).all);
        let spent = u64::from(self.spent.tally(now).all);
        (FREE * CALL + turns * self.share, spent * CALL)
    }
}

fn thousandths(share: f64) -> u64 {
    // What is not a number stays so when clamped, and is cast to 0.
    (share.clamp(0.0, 1_000.0) * CALL as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn taken(budget: &mut Budget, now: Duration) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn ten_a_minute_are_free() {
        let mut budget = Budget::new(0.2);
        assert_eq!(taken(&mut budget, at(0)), 10);
        assert_eq!(taken(&mut budget, at(53)), 0);
        assert_eq!(taken(&mut budget, at(60)), 10);
    }

    #[test]
    fn five_turns_pay_for_one() {
        let mut budget = Budget::new(0.2);
        assert_eq!(taken(&mut budget, at(0)), 10);
        for turn in 1..=15 {
            budget.deposit(at(1));
            assert_eq!(budget.withdraw(at(1)), turn % 5 == 0, "turn {turn}");
        }
    }

    #[test]
    fn what_was_saved_is_forgotten_after_a_minute() {
        let mut budget = Budget::new(1.0);
        (0..1_000).for_each(|_| budget.deposit(at(0)));
        assert_eq!(budget.balance(at(53)), 1_010.0);
        assert_eq!(taken(&mut budget, at(3_600)), 10);
    }

    #[test]
    fn a_share_that_is_none_leaves_the_free_ones() {
        for share in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            let mut budget = Budget::new(share);
            (0..100).for_each(|_| budget.deposit(at(0)));
            assert_eq!(taken(&mut budget, at(0)), 10, "share {share}");
        }
        let mut budget = Budget::new(f64::INFINITY);
        budget.deposit(at(0));
        assert_eq!(budget.balance(at(0)), 1_010.0);
    }

    #[test]
    fn late_answers_take_half_and_no_more() {
        let late = |budget: &mut Budget, now| {
            (0..10_000)
                .take_while(|_| budget.withdraw_late(now))
                .count()
        };
        let mut budget = Budget::new(0.2);
        assert_eq!(late(&mut budget, at(0)), 5);
        assert_eq!(
            taken(&mut budget, at(0)),
            5,
            "the other half is there for who waits"
        );
        assert_eq!(late(&mut budget, at(60)), 5);
        (0..50).for_each(|_| budget.deposit(at(61)));
        assert_eq!(late(&mut budget, at(61)), 5);
        assert_eq!(taken(&mut budget, at(61)), 10);
        // What others have taken is not there.
        assert_eq!(
            (taken(&mut budget, at(180)), late(&mut budget, at(180))),
            (10, 0)
        );
    }

    #[test]
    fn a_new_share_counts_at_once() {
        let mut budget = Budget::new(0.0);
        (0..10).for_each(|_| budget.deposit(at(0)));
        budget.set_share(0.5);
        assert_eq!(taken(&mut budget, at(0)), 15);
    }

    proptest! {
        /// The extra calls of the last minute are at most ten and the share of its turns, whenever one was made; and one is
        /// refused only where one more would break that.
        #[test]
        fn is_exact(
            share in 0u32..=20,
            steps in prop::collection::vec((0u64..20, any::<bool>()), 0..200),
        ) {
            let mut budget = Budget::new(f64::from(share) / 10.0);
            let (mut turns, mut extra, mut now) = (Vec::new(), Vec::new(), 0);
            for (step, deposit) in steps {
                now += step;
                let recent = |then: &&u64| now / 6 - **then / 6 < 10;
                if deposit {
                    budget.deposit(at(now));
                    turns.push(now);
                    continue;
                }
                let allowed = 100 + turns.iter().filter(recent).count() * share as usize;
                let made = extra.iter().filter(recent).count() * 10;
                let before = budget.balance(at(now));
                prop_assert_eq!(before, allowed.saturating_sub(made) as f64 / 10.0);
                let taken = budget.withdraw(at(now));
                prop_assert_eq!(taken, made + 10 <= allowed);
                if taken {
                    extra.push(now);
                }
            }
        }
    }
}
