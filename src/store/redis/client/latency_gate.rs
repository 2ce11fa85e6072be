//! Decides from command and ping latencies whether hot paths may use Redis. Pure.

use std::time::Duration;

/// Bounds of the backoff of hot paths. It starts at the second late reply in a row and doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Pings in a row without a late reply after which Redis no longer counts as slow.
const GOOD_PINGS: u32 = 3;

/// Observations between two pings and by the later one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LatencySample {
    /// A hot-path command was late. Several that were late together count as one.
    pub(super) had_late_reply: bool,
    pub(super) had_timely_reply: bool,
    /// The ping took longer than the timeout of hot paths.
    pub(super) is_ping_late: bool,
}

/// Tracks late replies and decides when hot paths back off.
#[derive(Debug, Default)]
pub(super) struct LatencyGate {
    late_in_row: u32,
    good_pings: u32,
    slow: bool,
}

impl LatencyGate {
    /// Records a ping. Returns how long hot paths back off, or `None` if they may use Redis.
    ///
    /// A single late reply may be due to a busy machine and causes no backoff.
    pub(super) fn on_ping(&mut self, seen: LatencySample) -> Option<Duration> {
        if seen.had_timely_reply {
            self.late_in_row = 0;
        }
        self.late_in_row = self
            .late_in_row
            .saturating_add(u32::from(seen.had_late_reply));
        self.slow |= self.late_in_row > 1;
        self.good_pings = if seen.had_late_reply || seen.is_ping_late {
            0
        } else {
            self.good_pings.saturating_add(1)
        };
        if self.good_pings >= GOOD_PINGS {
            *self = Self {
                good_pings: self.good_pings,
                ..Self::default()
            };
        }
        (seen.had_late_reply && self.late_in_row > 1).then(|| backoff(self.late_in_row))
    }

    /// `true` until Redis has answered [`GOOD_PINGS`] pings in a row without a late reply.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }
}

fn backoff(row: u32) -> Duration {
    MIN_BACKOFF
        .saturating_mul(1 << row.saturating_sub(2).min(10))
        .min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: LatencySample = LatencySample {
        had_late_reply: true,
        had_timely_reply: false,
        is_ping_late: false,
    };
    const NOTHING: LatencySample = LatencySample {
        had_late_reply: false,
        had_timely_reply: false,
        is_ping_late: false,
    };
    const TIMELY: LatencySample = LatencySample {
        had_late_reply: false,
        had_timely_reply: true,
        is_ping_late: false,
    };

    #[test]
    fn backoff_doubles_with_every_late_reply_in_a_row() {
        let mut gate = LatencyGate::default();
        let waits: Vec<_> = (0..8)
            .map(|_| gate.on_ping(LATE).map_or(0, |backoff| backoff.as_millis()))
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }

    #[test]
    fn single_late_reply_is_not_slow() {
        let mut gate = LatencyGate::default();
        for _ in 0..5 {
            assert_eq!((gate.on_ping(LATE), gate.is_slow()), (None, false));
            assert_eq!((gate.on_ping(TIMELY), gate.is_slow()), (None, false));
        }
    }

    #[test]
    fn redis_stays_slow_while_every_attempt_is_late() {
        for late_look in [false, true] {
            let mut gate = LatencyGate::default();
            gate.on_ping(LATE);
            for _ in 0..100 {
                assert!(
                    gate.on_ping(LatencySample {
                        is_ping_late: late_look,
                        ..LATE
                    })
                    .is_some()
                );
                assert!(gate.is_slow());
                // The backoff is over, and hot paths may try again.
                assert_eq!(
                    gate.on_ping(LatencySample {
                        is_ping_late: late_look,
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
        let mut gate = LatencyGate::default();
        gate.on_ping(LATE);
        gate.on_ping(LATE);
        for _ in 0..100 {
            gate.on_ping(TIMELY);
            // A single late reply after a timely one causes no backoff.
            assert_eq!(
                gate.on_ping(LatencySample {
                    had_timely_reply: true,
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
            let mut gate = LatencyGate::default();
            gate.on_ping(LATE);
            gate.on_ping(LATE);
            gate.on_ping(LatencySample {
                is_ping_late: true,
                ..calm
            });
            let slow = [(); 4].map(|()| {
                assert_eq!(gate.on_ping(calm), None);
                gate.is_slow()
            });
            assert_eq!(slow, [true, true, false, false]);
            // Earlier late replies no longer count.
            assert_eq!((gate.on_ping(LATE), gate.is_slow()), (None, false));
        }
    }

    #[test]
    fn late_pings_alone_do_not_make_redis_slow() {
        let mut gate = LatencyGate::default();
        for _ in 0..10 {
            assert_eq!(
                gate.on_ping(LatencySample {
                    is_ping_late: true,
                    ..NOTHING
                }),
                None
            );
            assert!(!gate.is_slow());
        }
    }
}
