//! This instance's share of a day's cost, and what the others' is. Pure: the moment is an argument.
//!
//! In Redis stands, for each provider and day, what each instance spent since it started, and the sum of it. An instance writes its whole
//! share each time, so that a write that is made twice, or lost, or a Redis that begins anew, does no harm.

use crate::chat::At;
use crate::provider::spending::{self, Spent};

/// USD in the unit of account: whole numbers, because sums of fractions drift.
const NANOS: f64 = 1_000_000_000.0;

/// What was spent before this instance began to count, which other instances, or this one under an earlier name, have written already.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    before: Spent,
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The day.
    pub day: u64,
    /// What this instance spent on it since it started, in billionths of a dollar.
    pub nanos: u64,
}

impl Share {
    /// Counts from here: `before` is what the day had cost when this instance started, as far as it remembers.
    pub fn new(before: Spent) -> Self {
        Self { before }
    }

    /// What to write of `spent`, which is this instance's own count, at `now`.
    pub fn written(&self, spent: Spent, now: At) -> Written {
        let day = spending::day_of(now);
        let today = if spent.day == day { spent.usd } else { 0.0 };
        Written {
            day,
            nanos: nanos(today - self.remembered(day)),
        }
    }

    /// What the others spent beyond what this instance counts itself, where all together have written `sum`.
    pub fn elsewhere(&self, written: Written, sum: u64) -> Spent {
        let others = sum.saturating_sub(written.nanos);
        // What this instance remembers of its own past is in the others' sum, under an earlier name.
        let beyond = others.saturating_sub(nanos(self.remembered(written.day)));
        Spent {
            day: written.day,
            usd: beyond as f64 / NANOS,
            estimated: false,
        }
    }

    fn remembered(&self, day: u64) -> f64 {
        if self.before.day == day {
            self.before.usd
        } else {
            0.0
        }
    }
}

/// Less than nothing, and what is no number, is nothing.
fn nanos(usd: f64) -> u64 {
    (usd.max(0.0) * NANOS).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 20_000;
    const NOON: At = At(DAY * 86_400_000 + 43_200_000);

    fn spent(day: u64, usd: f64) -> Spent {
        Spent {
            day,
            usd,
            estimated: false,
        }
    }

    #[test]
    fn what_was_spent_before_the_start_is_not_written_twice() {
        let share = Share::new(spent(DAY, 0.3));
        let written = share.written(spent(DAY, 0.4), NOON);
        assert_eq!(
            written,
            Written {
                day: DAY,
                nanos: 100_000_000
            }
        );
        // 0.3 under the earlier name, 0.1 of now, 0.5 of others.
        let elsewhere = share.elsewhere(written, 900_000_000);
        assert_eq!(elsewhere, spent(DAY, 0.5));
        assert_eq!(spent(DAY, 0.4).with(elsewhere), spent(DAY, 0.9));
        // A Redis that begins anew knows of nothing: what is remembered here stands.
        assert_eq!(share.elsewhere(written, 100_000_000), spent(DAY, 0.0));
    }

    #[test]
    fn another_day_begins_with_nothing() {
        let share = Share::new(spent(DAY - 1, 5.0));
        assert_eq!(
            share.written(spent(DAY - 1, 7.0), NOON),
            Written { day: DAY, nanos: 0 }
        );
        assert_eq!(
            share.written(spent(DAY, 0.25), NOON),
            Written {
                day: DAY,
                nanos: 250_000_000
            }
        );
    }

    #[test]
    fn what_is_no_sum_is_nothing() {
        let share = Share::new(Spent::default());
        assert_eq!(share.written(spent(DAY, f64::NAN), NOON).nanos, 0);
        assert_eq!(share.written(spent(DAY, -1.0), NOON).nanos, 0);
        assert_eq!(share.elsewhere(Written { day: DAY, nanos: 9 }, 3).usd, 0.0);
    }

    proptest! {
        /// However many instances spend, and restart: each knows the sum of all, to a millionth of a dollar.
        #[test]
        fn everyone_knows_the_sum(
            spends in prop::collection::vec((0_usize..4, 0.0_f64..0.01, any::<bool>()), 1..60),
        ) {
            let mut own = [0.0_f64; 4];
            let mut shares = [Share::new(Spent::default()); 4];
            // Names that write no more, after a restart.
            let mut past = 0;
            let mut written = [0_u64; 4];
            let mut all = 0.0;
            for (who, usd, restart) in spends {
                if restart {
                    past += written[who];
                    shares[who] = Share::new(spent(DAY, own[who]));
                }
                own[who] += usd;
                all += usd;
                written[who] = shares[who].written(spent(DAY, own[who]), NOON).nanos;
            }
            let sum = past + written.iter().sum::<u64>();
            for who in 0..4 {
                let elsewhere = shares[who].elsewhere(Written { day: DAY, nanos: written[who] }, sum);
                let known = spent(DAY, own[who]).with(elsewhere).usd;
                prop_assert!((known - all).abs() < 1e-6, "{known} of {all}");
            }
        }
    }
}
