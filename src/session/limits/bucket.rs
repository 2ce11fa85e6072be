//! One bucket of a rate limit, by the generic cell rate algorithm (ITU-T I.371): the only thing to remember is the moment at which it is
//! whole again. Pure: time is an argument.
//!
//! Unlike a library's, it may be told that more was taken from it than it had: by other instances, at the same moment. It owes that,
//! and gives nothing until it is paid back. That is what makes the limit of a fleet hold in the long run.

use std::time::Duration;

/// So many a minute, and as many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    every: Duration,
    whole: Duration,
}

impl Pace {
    /// So many a minute; zero counts as one.
    pub fn per_minute(count: u32) -> Self {
        let count = count.max(1);
        let every = Duration::from_secs(60) / count;
        Self {
            every,
            whole: every * count,
        }
    }

    /// Between two, at the steady rate.
    pub fn every(self) -> Duration {
        self.every
    }

    /// The most that a bucket may owe and lack together: two minutes' worth. What others took beyond that is forgiven.
    pub fn most(self) -> Duration {
        self.whole * 2
    }
}

/// A bucket. The default is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    whole_at: Duration,
}

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, pace: Pace, now: Duration) -> Result<(), Duration> {
        let whole_at = self.whole_at.max(now).saturating_add(pace.every);
        let lacks = whole_at.saturating_sub(now);
        if lacks > pace.whole {
            return Err(lacks - pace.whole);
        }
        self.whole_at = whole_at;
        Ok(())
    }

    /// Hears that it lacks so much, as all instances together know. It never lacks less than it knows itself.
    pub fn lacks_at_least(&mut self, lacks: Duration, pace: Pace, now: Duration) {
        self.whole_at = self
            .whole_at
            .max(now.saturating_add(lacks.min(pace.most())));
    }

    /// Whether nothing is to be remembered of it.
    pub fn is_whole(&self, now: Duration) -> bool {
        self.whole_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn taken(bucket: &mut Bucket, pace: Pace, now: Duration) -> usize {
        (0..1_000)
            .take_while(|_| bucket.take(pace, now).is_ok())
            .count()
    }

    #[test]
    fn as_many_at_once_as_a_minute_and_then_one_after_the_other() {
        let (pace, mut bucket) = (Pace::per_minute(20), Bucket::default());
        assert_eq!(taken(&mut bucket, pace, s(100)), 20);
        assert_eq!(bucket.take(pace, s(100)), Err(s(3)));
        assert_eq!(bucket.take(pace, s(102)), Err(s(1)));
        assert_eq!(taken(&mut bucket, pace, s(103)), 1);
        assert_eq!(taken(&mut bucket, pace, s(133)), 10);
        assert!(!bucket.is_whole(s(192)) && bucket.is_whole(s(193)));
        assert_eq!(taken(&mut bucket, pace, s(1_000_000)), 20);
    }

    #[test]
    fn zero_a_minute_is_one() {
        assert_eq!(Pace::per_minute(0), Pace::per_minute(1));
        let mut bucket = Bucket::default();
        assert_eq!(
            (
                taken(&mut bucket, Pace::per_minute(0), s(0)),
                bucket.whole_at
            ),
            (1, s(60))
        );
    }

    #[test]
    fn what_others_took_is_owed_and_paid_back() {
        let (pace, mut bucket) = (Pace::per_minute(20), Bucket::default());
        assert_eq!(taken(&mut bucket, pace, s(0)), 20);
        // Others took five more at the same moment.
        bucket.lacks_at_least(s(75), pace, s(0));
        assert_eq!(bucket.take(pace, s(0)), Err(s(18)));
        bucket.lacks_at_least(s(3), pace, s(0));
        assert_eq!(
            bucket.take(pace, s(0)),
            Err(s(18)),
            "it knows better itself"
        );
        assert_eq!(taken(&mut bucket, pace, s(18)), 1);
        bucket.lacks_at_least(Duration::MAX, pace, s(18));
        assert_eq!(
            bucket.take(pace, s(18)),
            Err(s(63)),
            "no debt is longer than a minute"
        );
    }

    /// A store that all instances share, as the script in Redis keeps it.
    struct Fleet {
        pace: Pace,
        shared: Bucket,
        buckets: Vec<(Bucket, u32)>,
    }

    impl Fleet {
        fn refresh(&mut self, now: Duration) {
            for (bucket, fresh) in &mut self.buckets {
                let whole_at = self.shared.whole_at.max(now) + self.pace.every * *fresh;
                self.shared.whole_at = whole_at.min(now + self.pace.most());
                *fresh = 0;
                bucket.lacks_at_least(self.shared.whole_at.saturating_sub(now), self.pace, now);
            }
        }
    }

    proptest! {
        /// However the messages come over several instances that look every 50 ms: over every stretch of time no more are let through than the
        /// limit and a bucketful, and once what the others let through within one look of all.
        #[test]
        fn the_limit_of_a_fleet_holds_but_for_one_look(
            instances in 1_usize..6,
            limit in 1_u32..150,
            steps in prop::collection::vec((0_u64..400, 0_usize..6, 1_usize..30), 1..400),
        ) {
            let pace = Pace::per_minute(limit);
            let mut fleet = Fleet {
                pace,
                shared: Bucket::default(),
                buckets: vec![(Bucket::default(), 0); instances],
            };
            let look = Duration::from_millis(50);
            let (mut now, mut looked) = (s(0), s(0));
            let mut passed: Vec<(Duration, usize)> = Vec::new();
            let mut within_a_look = vec![0_usize; instances];
            let mut most_of_others = 0;
            for (pause, which, tries) in steps {
                now += Duration::from_millis(pause);
                if now >= looked + look {
                    fleet.refresh(now);
                    // A second round, in which the first hear of what the last told.
                    fleet.refresh(now);
                    looked = now;
                    within_a_look.fill(0);
                }
                let which = which % instances;
                let (bucket, fresh) = &mut fleet.buckets[which];
                for _ in 0..tries {
                    if bucket.take(pace, now).is_ok() {
                        *fresh += 1;
                        passed.push((now, which));
                        within_a_look[which] += 1;
                    }
                }
                let all: usize = within_a_look.iter().sum();
                let least = within_a_look.iter().max().copied().unwrap_or_default();
                most_of_others = most_of_others.max(all - least);
            }
            for (from, (begin, _)) in passed.iter().enumerate() {
                for (to, (end, _)) in passed.iter().enumerate().skip(from) {
                    let time = (*end - *begin).as_secs_f64();
                    let allowed = f64::from(limit) * (1.0 + time / 60.0) + 1.0 + most_of_others as f64;
                    let through = (to - from + 1) as f64;
                    prop_assert!(through <= allowed, "{through} of {allowed} in {time} s");
                }
            }
        }
    }
}
