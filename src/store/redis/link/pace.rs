//! Decides from command and ping latencies whether hot paths may use Redis. Pure.

use std::time::Duration;

/// Bounds of the backoff of hot paths. It starts at the second late reply in a row and doubles.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Pings in a row without a late reply after which Redis no longer counts as slow.
const CALM: u32 = 3;

/// Observations between two pings and by the later one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// A hot-path command was late. Several that were late together count as one.
    pub(super) late: bool,
    pub(super) timely: bool,
    /// The ping took longer than the timeout of hot paths.
    pub(super) late_look: bool,
}

/// Tracks late replies and decides when hot paths back off.
#[derive(Debug, Default)]
pub(super) struct Pace {
    row: u32,
    calm: u32,
    slow: bool,
}

impl Pace {
    /// Records a ping. Returns how long hot paths back off, or `None` if they may use Redis.
    ///
    /// A single late reply may be due to a busy machine and causes no backoff.
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

    /// `true` until Redis has answered [`GOOD_PINGS`] pings in a row without a late reply.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }
}

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
    fn backoff_doubles_with_every_late_reply_in_a_row() {
        let mut gate = Pace::default();
        let waits: Vec<_> = (0..8)
            .map(|_| gate.looked(LATE).map_or(0, |backoff| backoff.as_millis()))
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(left_alone(u32::MAX), LONGEST);
    }

    #[test]
    fn single_late_reply_is_not_slow() {
        let mut gate = Pace::default();
        for _ in 0..5 {
            assert_eq!((gate.looked(LATE), gate.is_slow()), (None, false));
            assert_eq!((gate.looked(TIMELY), gate.is_slow()), (None, false));
        }
    }

    #[test]
    fn redis_stays_slow_while_every_attempt_is_late() {
        for late_look in [false, true] {
            let mut gate = Pace::default();
            gate.looked(LATE);
            for _ in 0..100 {
                assert!(gate.looked(Seen { late_look, ..LATE }).is_some());
                assert!(gate.is_slow());
                // The backoff is over, and hot paths may try again.
                assert_eq!(
                    gate.looked(Seen {
                        late_look,
                        ..NOTHING
                    }),
                    None
                );
                assert!(gate.is_slow());
            }
        }
    }

    #[test]
    fn alternating_late_and_timely_replies_stay_slow() {
        let mut gate = Pace::default();
        gate.looked(LATE);
        gate.looked(LATE);
        for _ in 0..100 {
            gate.looked(TIMELY);
            // A single late reply after a timely one causes no backoff.
            assert_eq!(
                gate.looked(Seen {
                    timely: true,
                    ..LATE
                }),
                None
            );
            assert!(gate.is_slow());
        }
    }

    #[test]
    fn good_pings_end_slowness() {
        for calm in [NOTHING, TIMELY] {
            let mut gate = Pace::default();
            gate.looked(LATE);
            gate.looked(LATE);
            gate.looked(Seen {
                late_look: true,
                ..calm
            });
            let slow = [(); 4].map(|()| {
                assert_eq!(gate.looked(calm), None);
                gate.is_slow()
            });
            assert_eq!(slow, [true, true, false, false]);
            // Earlier late replies no longer count.
            assert_eq!((gate.looked(LATE), gate.is_slow()), (None, false));
        }
    }

    #[test]
    fn late_pings_alone_do_not_make_redis_slow() {
        let mut gate = Pace::default();
        for _ in 0..10 {
            assert_eq!(
                gate.looked(Seen {
                    late_look: true,
                    ..NOTHING
                }),
                None
            );
            assert!(!gate.is_slow());
        }
    }
}
