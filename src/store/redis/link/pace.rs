//! Whether Redis is quick enough for who waits for it, by what came of the commands of hot paths and of the keeper's looks. Pure.

use std::time::Duration;

/// How long hot paths leave it alone that was late for them twice; each further time in a row doubles it.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// So many looks in a row must find nothing late until it is no longer called slow.
const CALM: u32 = 3;

/// What was seen since the last look, and by this one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// A hot command was late. Of many that waited at once the first counts.
    pub(super) late: bool,
    /// A hot command was answered in time.
    pub(super) timely: bool,
    /// The look itself was answered later than a hot path waits.
    pub(super) late_look: bool,
}

/// The pace of Redis. By default it is well.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many hot commands were late in a row.
    row: u32,
    /// How many looks in a row found nothing late.
    calm: u32,
    slow: bool,
}

impl Pace {
    /// After a look: how long hot paths are to leave it alone; none: they may wait for it.
    ///
    /// Once late may be a busy machine. More than that in a row is paid for, each time once.
    pub(super) fn looked(&mut self, seen: Seen) -> Option<Duration> {
        if seen.timely {
            self.row = 0;
        }
        self.row = self.row.saturating_add(u32::from(seen.late));
        self.slow |= self.row > 1;
        self.calm = if seen.late || seen.late_look {
            0
        } else {
            self.calm.saturating_add(1)
        };
        if self.calm >= CALM {
            *self = Self {
                calm: self.calm,
                ..Self::default()
            };
        }
        (seen.late && self.row > 1).then(|| left_alone(self.row))
    }

    /// Whether it is to be called slow: also while it is tried again, which alone says nothing.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }
}

/// How long it is left alone that was late so many times in a row.
fn left_alone(row: u32) -> Duration {
    FIRST
        .saturating_mul(1 << row.saturating_sub(2).min(10))
        .min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Seen = Seen {
        late: true,
        timely: false,
        late_look: false,
    };
    const NOTHING: Seen = Seen {
        late: false,
        timely: false,
        late_look: false,
    };
    const TIMELY: Seen = Seen {
        late: false,
        timely: true,
        late_look: false,
    };

    #[test]
    fn what_is_late_again_and_again_is_left_alone_for_longer() {
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..8)
            .map(|_| pace.looked(LATE).map_or(0, |wait| wait.as_millis()))
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(left_alone(u32::MAX), LONGEST);
    }

    #[test]
    fn late_once_is_not_slow() {
        let mut pace = Pace::default();
        for _ in 0..5 {
            assert_eq!((pace.looked(LATE), pace.is_slow()), (None, false));
            assert_eq!((pace.looked(TIMELY), pace.is_slow()), (None, false));
        }
    }

    #[test]
    fn while_it_is_late_each_time_that_it_is_tried_it_stays_slow() {
        for late_look in [false, true] {
            let mut pace = Pace::default();
            pace.looked(LATE);
            for _ in 0..100 {
                assert!(pace.looked(Seen { late_look, ..LATE }).is_some());
                assert!(pace.is_slow());
                // It was left alone, and may be tried.
                assert_eq!(
                    pace.looked(Seen {
                        late_look,
                        ..NOTHING
                    }),
                    None
                );
                assert!(pace.is_slow());
            }
        }
    }

    #[test]
    fn one_that_wavers_is_called_slow_throughout() {
        let mut pace = Pace::default();
        pace.looked(LATE);
        pace.looked(LATE);
        for _ in 0..100 {
            pace.looked(TIMELY);
            // Late after one that was in time: who waits may try it at once.
            assert_eq!(
                pace.looked(Seen {
                    timely: true,
                    ..LATE
                }),
                None
            );
            assert!(pace.is_slow());
        }
    }

    #[test]
    fn it_is_well_when_some_looks_found_nothing_late() {
        for calm in [NOTHING, TIMELY] {
            let mut pace = Pace::default();
            pace.looked(LATE);
            pace.looked(LATE);
            pace.looked(Seen {
                late_look: true,
                ..calm
            });
            let slow = [(); 4].map(|()| {
                assert_eq!(pace.looked(calm), None);
                pace.is_slow()
            });
            assert_eq!(slow, [true, true, false, false]);
            // What was late before counts no more.
            assert_eq!((pace.looked(LATE), pace.is_slow()), (None, false));
        }
    }

    #[test]
    fn while_nobody_waits_for_it_looks_alone_make_nothing_slow() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            assert_eq!(
                pace.looked(Seen {
                    late_look: true,
                    ..NOTHING
                }),
                None
            );
            assert!(!pace.is_slow());
        }
    }
}
