//! This instance's share of a day's cost, and that of its peers. Pure: the current time is passed
//! in.
//!
//! Redis holds, for each provider and day, what each instance spent since its start, and the sum.
//! An instance always writes its whole share, so a repeated or lost write, or an empty Redis, does
//! no harm.

use crate::chat::At;
use crate::provider::spending::{self, Spent};

/// Costs are stored as integers, because sums of fractions drift.
const NANOS: f64 = 1_000_000_000.0;

/// Separates what this instance spent since its start from what it had spent before, which Redis
/// already has under the instance's earlier name.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    before: Spent,
}

/// The day's cost of this instance, as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub day: u64,
    /// Spent by this instance since its start, in billionths of a dollar.
    pub nanos: u64,
}

impl Share {
    /// `before` is the day's cost when this instance started, as restored from the store.
    pub fn new(before: Spent) -> Self {
        Self { before }
    }

    /// The value to publish. `spent` is this instance's own total.
    pub fn written(&self, spent: Spent, now: At) -> Written {
        let day = spending::day_of(now);
        let today = if spent.day == day { spent.usd } else { 0.0 };
        Written {
            day,
            nanos: nanos(today - self.remembered(day)),
        }
    }

    /// The peers' spending beyond this instance's own total. `sum` is the published sum of all.
    pub fn elsewhere(&self, written: Written, sum: u64) -> Spent {
        let others = sum.saturating_sub(written.nanos);
        // The baseline is part of the others' sum, under this instance's earlier name.
        let peers = others.saturating_sub(nanos(self.remembered(written.day)));
        Spent {
            day: written.day,
            usd: peers as f64 / NANOS,
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

/// Negative values and NaN become 0.
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
    fn costs_before_the_start_are_not_published_twice() {
        let share = Share::new(spent(DAY, 0.3));
        let written = share.written(spent(DAY, 0.4), NOON);
        assert_eq!(
            written,
            Written {
                day: DAY,
                nanos: 100_000_000
            }
        );
        // 0.3 under the earlier name, 0.1 since the start, 0.5 by peers.
        let elsewhere = share.elsewhere(written, 900_000_000);
        assert_eq!(elsewhere, spent(DAY, 0.5));
        assert_eq!(spent(DAY, 0.4).with(elsewhere), spent(DAY, 0.9));
        // With an empty Redis the own total remains.
        assert_eq!(share.elsewhere(written, 100_000_000), spent(DAY, 0.0));
    }

    #[test]
    fn a_new_day_starts_at_zero() {
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
    fn invalid_sums_count_as_zero() {
        let share = Share::new(Spent::default());
        assert_eq!(share.written(spent(DAY, f64::NAN), NOON).nanos, 0);
        assert_eq!(share.written(spent(DAY, -1.0), NOON).nanos, 0);
        assert_eq!(share.elsewhere(Written { day: DAY, nanos: 9 }, 3).usd, 0.0);
    }

    proptest! {
        /// With any number of instances and restarts, each knows the total to a millionth of a
        /// dollar.
        #[test]
        fn every_instance_knows_the_total(
            spends in prop::collection::vec((0_usize..4, 0.0_f64..0.01, any::<bool>()), 1..60),
        ) {
            let mut own = [0.0_f64; 4];
            let mut shares = [Share::new(Spent::default()); 4];
            // Published under the names of restarted instances.
            let mut earlier = 0;
            let mut written = [0_u64; 4];
            let mut total = 0.0;
            for (instance, usd, restart) in spends {
                if restart {
                    earlier += written[instance];
                    shares[instance] = Share::new(spent(DAY, own[instance]));
                }
                own[instance] += usd;
                total += usd;
                written[instance] = shares[instance].written(spent(DAY, own[instance]), NOON).nanos;
            }
            let sum = earlier + written.iter().sum::<u64>();
            for instance in 0..4 {
                let elsewhere = shares[instance].elsewhere(Written { day: DAY, nanos: written[instance] }, sum);
                let known = spent(DAY, own[instance]).with(elsewhere).usd;
                prop_assert!((known - total).abs() < 1e-6, "{known} of {total}");
            }
        }
    }
}
