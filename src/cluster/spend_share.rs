//! This instance's share of a day's cost, and that of its peers. Pure: the current time is passed
//! in.
//!
//! Redis holds, for each provider and day, what each instance spent since its start, and the sum.
//! An instance always writes its whole share, so a repeated or lost write, or an empty Redis, does
//! no harm.

use crate::domain::Timestamp;
use crate::provider::cost::{self, DailySpend};

/// Costs are stored as integers, because sums of fractions drift.
const NANOS_PER_USD: f64 = 1_000_000_000.0;

/// Separates what this instance spent since its start from what it had spent before, which Redis
/// already has under the instance's earlier name.
#[derive(Clone, Copy, Debug)]
pub struct SpendShare {
    baseline: DailySpend,
}

/// The day's cost of this instance, as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSpend {
    pub day: u64,
    /// Spent by this instance since its start, in billionths of a dollar.
    pub nanos: u64,
}

impl SpendShare {
    /// `before` is the day's cost when this instance started, as restored from the store.
    pub fn new(before: DailySpend) -> Self {
        Self { baseline: before }
    }

    /// The value to publish. `spent` is this instance's own total.
    pub fn own_share(&self, spent: DailySpend, now: Timestamp) -> PublishedSpend {
        let day = cost::utc_day(now);
        let today = if spent.day == day { spent.usd } else { 0.0 };
        PublishedSpend {
            day,
            nanos: to_nanos(today - self.baseline_on(day)),
        }
    }

    /// The peers' spending beyond this instance's own total. `sum` is the published sum of all.
    pub fn peers_share(&self, written: PublishedSpend, sum: u64) -> DailySpend {
        let others = sum.saturating_sub(written.nanos);
        // The baseline is part of the others' sum, under this instance's earlier name.
        let peers = others.saturating_sub(to_nanos(self.baseline_on(written.day)));
        DailySpend {
            day: written.day,
            usd: peers as f64 / NANOS_PER_USD,
            estimated: false,
        }
    }

    fn baseline_on(&self, day: u64) -> f64 {
        if self.baseline.day == day {
            self.baseline.usd
        } else {
            0.0
        }
    }
}

/// Negative values and NaN become 0.
fn to_nanos(usd: f64) -> u64 {
    (usd.max(0.0) * NANOS_PER_USD).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 20_000;
    const NOON: Timestamp = Timestamp(DAY * 86_400_000 + 43_200_000);

    fn spent(day: u64, usd: f64) -> DailySpend {
        DailySpend {
            day,
            usd,
            estimated: false,
        }
    }

    #[test]
    fn costs_before_the_start_are_not_published_twice() {
        let share = SpendShare::new(spent(DAY, 0.3));
        let written = share.own_share(spent(DAY, 0.4), NOON);
        assert_eq!(
            written,
            PublishedSpend {
                day: DAY,
                nanos: 100_000_000
            }
        );
        // 0.3 under the earlier name, 0.1 since the start, 0.5 by peers.
        let elsewhere = share.peers_share(written, 900_000_000);
        assert_eq!(elsewhere, spent(DAY, 0.5));
        assert_eq!(spent(DAY, 0.4).merged_with(elsewhere), spent(DAY, 0.9));
        // With an empty Redis the own total remains.
        assert_eq!(share.peers_share(written, 100_000_000), spent(DAY, 0.0));
    }

    #[test]
    fn a_new_day_starts_at_zero() {
        let share = SpendShare::new(spent(DAY - 1, 5.0));
        assert_eq!(
            share.own_share(spent(DAY - 1, 7.0), NOON),
            PublishedSpend { day: DAY, nanos: 0 }
        );
        assert_eq!(
            share.own_share(spent(DAY, 0.25), NOON),
            PublishedSpend {
                day: DAY,
                nanos: 250_000_000
            }
        );
    }

    #[test]
    fn invalid_sums_count_as_zero() {
        let share = SpendShare::new(DailySpend::default());
        assert_eq!(share.own_share(spent(DAY, f64::NAN), NOON).nanos, 0);
        assert_eq!(share.own_share(spent(DAY, -1.0), NOON).nanos, 0);
        assert_eq!(
            share
                .peers_share(PublishedSpend { day: DAY, nanos: 9 }, 3)
                .usd,
            0.0
        );
    }

    proptest! {
        /// With any number of instances and restarts, each knows the total to a millionth of a
        /// dollar.
        #[test]
        fn every_instance_knows_the_total(
            spends in prop::collection::vec((0_usize..4, 0.0_f64..0.01, any::<bool>()), 1..60),
        ) {
            let mut own = [0.0_f64; 4];
            let mut shares = [SpendShare::new(DailySpend::default()); 4];
            // Published under the names of restarted instances.
            let mut earlier = 0;
            let mut written = [0_u64; 4];
            let mut total = 0.0;
            for (instance, usd, restart) in spends {
                if restart {
                    earlier += written[instance];
                    shares[instance] = SpendShare::new(spent(DAY, own[instance]));
                }
                own[instance] += usd;
                total += usd;
                written[instance] = shares[instance].own_share(spent(DAY, own[instance]), NOON).nanos;
            }
            let sum = earlier + written.iter().sum::<u64>();
            for instance in 0..4 {
                let elsewhere = shares[instance].peers_share(PublishedSpend { day: DAY, nanos: written[instance] }, sum);
                let known = spent(DAY, own[instance]).merged_with(elsewhere).usd;
                prop_assert!((known - total).abs() < 1e-6, "{known} of {total}");
            }
        }
    }
}
