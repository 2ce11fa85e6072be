//! A rate limiter that uses the generic cell rate algorithm (GCRA, ITU-T I.371). The only state is
//! the time at which the bucket will be full again. Pure: time is an argument.
//!
//! Unlike the buckets of existing crates, it can be told that other instances took more from it
//! than it had. The debt is paid back before it gives anything. That makes the limit of a cluster
//! hold in the long run.

use std::time::Duration;

/// A number of messages per minute. As many may come at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    interval: Duration,
    burst: Duration,
}

impl Quota {
    /// A quota of zero counts as one.
    pub fn per_minute(count: u32) -> Self {
        let count = count.max(1);
        let interval = Duration::from_secs(60) / count;
        Self {
            interval,
            burst: interval * count,
        }
    }

    /// The time between two messages at the steady rate.
    pub fn interval(self) -> Duration {
        self.interval
    }

    /// The maximum debt: two minutes' worth. Usage by other instances beyond that is forgiven.
    pub fn max_debt(self) -> Duration {
        self.burst * 2
    }
}

/// The bucket of one key. The default is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcraBucket {
    full_at: Duration,
}

impl GcraBucket {
    /// Takes one message, or returns the time until one is available.
    pub fn check(&mut self, pace: Quota, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now).saturating_add(pace.interval);
        let debt = full_at.saturating_sub(now);
        if debt > pace.burst {
            return Err(debt - pace.burst);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Raises the debt to what all instances together took. It is never lowered.
    pub fn raise_debt(&mut self, debt: Duration, pace: Quota, now: Duration) {
        self.full_at = self
            .full_at
            .max(now.saturating_add(debt.min(pace.max_debt())));
    }

    /// Returns `true` if the bucket holds no state and can be dropped.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn take_all(bucket: &mut GcraBucket, pace: Quota, now: Duration) -> usize {
        (0..1_000)
            .take_while(|_| bucket.check(pace, now).is_ok())
            .count()
    }

    #[test]
    fn allows_a_minutes_burst_then_the_steady_rate() {
        let pace = Quota::per_minute(20);
        let mut bucket = GcraBucket::default();
        assert_eq!(take_all(&mut bucket, pace, s(100)), 20);
        assert_eq!(bucket.check(pace, s(100)), Err(s(3)));
        assert_eq!(bucket.check(pace, s(102)), Err(s(1)));
        assert_eq!(take_all(&mut bucket, pace, s(103)), 1);
        assert_eq!(take_all(&mut bucket, pace, s(133)), 10);
        assert!(!bucket.is_full(s(192)) && bucket.is_full(s(193)));
        assert_eq!(take_all(&mut bucket, pace, s(1_000_000)), 20);
    }

    #[test]
    fn zero_per_minute_counts_as_one() {
        assert_eq!(Quota::per_minute(0), Quota::per_minute(1));
        let mut bucket = GcraBucket::default();
        assert_eq!(take_all(&mut bucket, Quota::per_minute(0), s(0)), 1);
        assert_eq!(bucket.full_at, s(60));
    }

    #[test]
    fn usage_of_other_instances_is_paid_back() {
        let pace = Quota::per_minute(20);
        let mut bucket = GcraBucket::default();
        assert_eq!(take_all(&mut bucket, pace, s(0)), 20);
        // Other instances took five more at the same moment.
        bucket.raise_debt(s(75), pace, s(0));
        assert_eq!(bucket.check(pace, s(0)), Err(s(18)));
        bucket.raise_debt(s(3), pace, s(0));
        assert_eq!(
            bucket.check(pace, s(0)),
            Err(s(18)),
            "a smaller debt changes nothing"
        );
        assert_eq!(take_all(&mut bucket, pace, s(18)), 1);
        bucket.raise_debt(Duration::MAX, pace, s(18));
        assert_eq!(bucket.check(pace, s(18)), Err(s(63)), "the wait is bounded");
    }

    /// Several instances and the state they share, which the script in Redis computes.
    struct Cluster {
        pace: Quota,
        shared: GcraBucket,
        /// Each instance's bucket, and the messages that it has not yet reported.
        instances: Vec<(GcraBucket, u32)>,
    }

    impl Cluster {
        fn sync(&mut self, now: Duration) {
            for (bucket, unsynced) in &mut self.instances {
                let full_at = self.shared.full_at.max(now) + self.pace.interval * *unsynced;
                self.shared.full_at = full_at.min(now + self.pace.max_debt());
                *unsynced = 0;
                bucket.raise_debt(self.shared.full_at.saturating_sub(now), self.pace, now);
            }
        }
    }

    proptest! {
        /// Messages arrive at several instances that synchronise every 50 ms. Within any span of
        /// time the cluster lets through at most the limit, one burst, and once what the other
        /// instances let through in 50 ms.
        #[test]
        fn cluster_limit_holds_up_to_one_sync_interval(
            instances in 1_usize..6,
            limit in 1_u32..150,
            steps in prop::collection::vec((0_u64..400, 0_usize..6, 1_usize..30), 1..400),
        ) {
            let pace = Quota::per_minute(limit);
            let mut cluster = Cluster {
                pace,
                shared: GcraBucket::default(),
                instances: vec![(GcraBucket::default(), 0); instances],
            };
            let sync_interval = Duration::from_millis(50);
            let mut now = s(0);
            let mut synced_at = s(0);
            let mut passed: Vec<(Duration, usize)> = Vec::new();
            let mut since_sync = vec![0_usize; instances];
            let mut max_by_others = 0;
            for (pause, instance, tries) in steps {
                now += Duration::from_millis(pause);
                if now >= synced_at + sync_interval {
                    cluster.sync(now);
                    // In a second round the first instances learn what the last ones reported.
                    cluster.sync(now);
                    synced_at = now;
                    since_sync.fill(0);
                }
                let instance = instance % instances;
                let (bucket, unsynced) = &mut cluster.instances[instance];
                for _ in 0..tries {
                    if bucket.check(pace, now).is_ok() {
                        *unsynced += 1;
                        passed.push((now, instance));
                        since_sync[instance] += 1;
                    }
                }
                let total: usize = since_sync.iter().sum();
                let largest = since_sync.iter().max().copied().unwrap_or_default();
                max_by_others = max_by_others.max(total - largest);
            }
            for (from, (start, _)) in passed.iter().enumerate() {
                for (to, (end, _)) in passed.iter().enumerate().skip(from) {
                    let time = (*end - *start).as_secs_f64();
                    let allowed = f64::from(limit) * (1.0 + time / 60.0) + 1.0 + max_by_others as f64;
                    let count = (to - from + 1) as f64;
                    prop_assert!(count <= allowed, "{count} of {allowed} in {time} s");
                }
            }
        }
    }
}
