//! Decides what is sent and when. Pure: the current time is passed in.
//!
//! A condition that gets worse is sent at once, unless its severity was sent within the interval;
//! then it is only counted. The recovery of a sent alert is sent at once. An interval therefore has
//! at most one alert per severity, and its recovery. After the interval, the suppressed changes are
//! summed up once: as an alert if the condition is worse than what was sent, else as `Flapped`.
//!
//! Conditions caused by an outage drill are limited separately: they suppress no real alert, and a
//! problem that continues without the drill is sent as new.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cause::{Cause, Finding, Level, WORST};

/// A change to send to the sinks.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub found: Finding,
    /// The severity that was sent before.
    pub before: Level,
    /// The number of times the condition became bad since its last alert but was not sent.
    pub muted: u32,
    /// A drill causes the condition, or caused the one that is over.
    pub staged: bool,
}

impl Told {
    pub fn news(&self) -> News {
        match self.found.level.cmp(&self.before) {
            std::cmp::Ordering::Greater => News::Worse,
            std::cmp::Ordering::Less => News::Better,
            std::cmp::Ordering::Equal => News::Flapped,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Worse,
    Better,
    /// The severity is as before, but changed in between without being sent.
    Flapped,
}

/// The current and the sent state of one subject.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    level: Level,
    told: Level,
    /// When severities 1 and 2 were last sent, first for real and then for drill conditions.
    alerted: [Times; 2],
    muted: u32,
    /// The sent condition was caused by a drill.
    staged: bool,
}

type Times = [Option<Duration>; WORST as usize];

impl Track {
    /// Returns `true` if this severity was not sent within `interval`, for real or for drills.
    fn is_due(&self, level: Level, staged: bool, interval: Duration, now: Duration) -> bool {
        let [real, drill] = &self.alerted;
        let times = if staged { drill } else { real };
        let sent = usize::from(level)
            .checked_sub(1)
            .and_then(|index| times.get(index).copied().flatten());
        sent.is_none_or(|sent| now.saturating_sub(sent) >= interval)
    }

    fn told_at(&mut self, level: Level, staged: bool, now: Duration) {
        let [real, drill] = &mut self.alerted;
        let times = if staged { drill } else { real };
        if let Some(last_sent) = usize::from(level)
            .checked_sub(1)
            .and_then(|index| times.get_mut(index))
        {
            *last_sent = Some(now);
        }
    }
}

/// The rate limit for alerts, and what was sent per subject.
#[derive(Debug)]
pub struct Rules {
    interval: Duration,
    tracks: BTreeMap<Cause, Track>,
}

impl Rules {
    /// At most one alert per subject and severity within `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            tracks: BTreeMap::new(),
        }
    }

    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Restores an alert sent by an earlier process. `sent_at` is on this process's clock.
    pub fn recall(&mut self, cause: Cause, level: Level, staged: bool, sent_at: Duration) {
        let level = level.min(WORST);
        let track = self.tracks.entry(cause).or_default();
        (track.level, track.told, track.staged) = (level, level, staged);
        track.told_at(level, staged, sent_at);
    }

    /// Drops the subjects of removed providers, which will never recover.
    pub fn keep<'p>(&mut self, providers: impl Iterator<Item = &'p str> + Clone) {
        self.tracks.retain(|cause, _| {
            cause
                .provider()
                .is_none_or(|name| providers.clone().any(|kept| *kept == **name))
        });
    }

    /// Records the current condition of a subject and returns the change to send, if any.
    ///
    /// Must be called repeatedly even while nothing changes: suppressed changes are sent later.
    pub fn see(&mut self, found: &Finding, now: Duration) -> Option<Told> {
        let interval = self.interval;
        let track = self.tracks.entry(found.cause.clone()).or_default();
        let level = found.level.min(WORST);
        let worsened = level > std::mem::replace(&mut track.level, level);
        // If only a drill was sent, a real condition is new.
        let before = if track.staged && !found.staged && level > 0 {
            0
        } else {
            track.told
        };
        let found = Finding {
            level,
            ..found.clone()
        };
        if level > before {
            if track.is_due(level, found.staged, interval, now) {
                (track.told, track.staged) = (level, found.staged);
                track.told_at(level, found.staged, now);
                let muted = std::mem::take(&mut track.muted);
                let staged = found.staged;
                return Some(Told {
                    found,
                    before,
                    muted,
                    staged,
                });
            }
            track.muted += u32::from(worsened);
            return None;
        }
        if level < before {
            let is_reported = level == 0 || found.cause.tells_steps();
            let staged = track.staged;
            return is_reported.then(|| {
                track.told = level;
                track.staged &= level > 0;
                Told {
                    found,
                    before,
                    muted: 0,
                    staged,
                }
            });
        }
        let may_send = |track: &Track, level| {
            [true, false]
                .iter()
                .all(|staged| track.is_due(level, *staged, interval, now))
        };
        let is_interval_over = (1..=WORST).all(|level| may_send(track, level));
        if track.muted == 0 || !is_interval_over {
            return None;
        }
        // The summary counts as an alert: the next one waits for the interval again.
        (1..=WORST).for_each(|level| track.told_at(level, found.staged, now));
        let muted = std::mem::take(&mut track.muted);
        let staged = found.staged;
        Some(Told {
            found,
            before,
            muted,
            staged,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    fn found(subject: &Cause, level: Level) -> Finding {
        Finding {
            cause: subject.clone(),
            level,
            reason: None,
            words: String::new(),
            staged: false,
        }
    }

    fn provider() -> Cause {
        Cause::Provider("a".into())
    }

    /// The changes sent for these `(second, severity)` steps, as `(second, change, severity,
    /// suppressed)`.
    fn changes(subject: &Cause, steps: &[(u64, Level)]) -> Vec<(u64, News, Level, u32)> {
        let mut rules = Rules::new(INTERVAL);
        let observe = |&(at, level): &(u64, Level)| {
            let notification = rules.see(&found(subject, level), Duration::from_secs(at))?;
            Some((
                at,
                notification.news(),
                notification.found.level,
                notification.muted,
            ))
        };
        steps.iter().filter_map(observe).collect()
    }

    #[test]
    fn an_alert_and_its_recovery_are_sent_once() {
        let steps = [
            (0, 0),
            (1, 1),
            (2, 1),
            (400, 1),
            (900, 0),
            (901, 0),
            (2_000, 0),
        ];
        assert_eq!(
            changes(&provider(), &steps),
            [(1, News::Worse, 1, 0), (900, News::Better, 0, 0)]
        );
    }

    #[test]
    fn a_hundred_flaps_yield_an_alert_a_recovery_and_a_summary() {
        let flaps = (0..200).map(|n| (n, u8::from(n % 2 == 0)));
        let quiet = (200..2_000).map(|n| (n, 0));
        let all: Vec<_> = flaps.chain(quiet).collect();
        let expected = [
            (0, News::Worse, 1, 0),
            (1, News::Better, 0, 0),
            (300, News::Flapped, 0, 99),
        ];
        assert_eq!(changes(&provider(), &all), expected);
    }

    #[test]
    fn a_suppressed_change_is_sent_after_the_interval_if_it_lasts() {
        let steps = [
            (0, 1),
            (10, 0),
            (20, 1),
            (299, 1),
            (300, 1),
            (301, 1),
            (400, 0),
        ];
        let expected = [
            (0, News::Worse, 1, 0),
            (10, News::Better, 0, 0),
            (300, News::Worse, 1, 1),
            (400, News::Better, 0, 0),
        ];
        assert_eq!(changes(&provider(), &steps), expected);
    }

    #[test]
    fn a_worse_severity_is_sent_within_the_interval() {
        let steps = [
            (0, 1),
            (10, 2),
            (20, 1),
            (30, 2),
            (40, 0),
            (50, 1),
            (310, 1),
        ];
        let mode = [
            (0, News::Worse, 1, 0),
            (10, News::Worse, 2, 0),
            (20, News::Better, 1, 0),
            (40, News::Better, 0, 0),
            (310, News::Worse, 1, 2),
        ];
        assert_eq!(changes(&Cause::Mode, &steps), mode);
        // For a provider, the step from blocked to down and back is not reported.
        let blocked = [
            (0, News::Worse, 1, 0),
            (10, News::Worse, 2, 0),
            (40, News::Better, 0, 0),
            (310, News::Worse, 1, 1),
        ];
        assert_eq!(changes(&provider(), &steps), blocked);
    }

    #[test]
    fn alerts_of_an_earlier_process_count() {
        let mut rules = Rules::new(INTERVAL);
        rules.recall(provider(), 1, false, Duration::from_secs(100));
        let mut observe = |level, at| {
            rules
                .see(&found(&provider(), level), Duration::from_secs(at))
                .map(|notification| notification.news())
        };
        assert_eq!(observe(1, 200), None, "already sent");
        assert_eq!(observe(0, 210), Some(News::Better));
        assert_eq!(
            observe(1, 220),
            None,
            "within the interval of the earlier process"
        );
        assert_eq!(observe(1, 400), Some(News::Worse));
    }

    #[test]
    fn drills_suppress_no_real_alert_and_remaining_problems_are_sent() {
        let mut rules = Rules::new(INTERVAL);
        let mut observe = |level, staged, at| {
            let found = Finding {
                staged,
                ..found(&provider(), level)
            };
            rules
                .see(&found, Duration::from_secs(at))
                .map(|notification| (notification.news(), notification.staged))
        };
        assert_eq!(observe(1, true, 1), Some((News::Worse, true)));
        assert_eq!(observe(1, true, 2), None);
        assert_eq!(
            observe(0, false, 3),
            Some((News::Better, true)),
            "the drill is over"
        );
        assert_eq!(
            observe(1, false, 4),
            Some((News::Worse, false)),
            "the interval of the drill does not count"
        );
        assert_eq!(observe(1, true, 5), None, "a drill on top changes nothing");
        assert_eq!(observe(0, false, 6), Some((News::Better, false)));
        assert_eq!(observe(1, true, 302), Some((News::Worse, true)));
        assert_eq!(
            observe(1, false, 400),
            Some((News::Worse, false)),
            "the problem continues without the drill"
        );
        assert_eq!(observe(0, false, 401), Some((News::Better, false)));
        rules.recall(provider(), 1, true, Duration::from_secs(500));
        let notification = rules
            .see(&found(&provider(), 0), Duration::from_secs(501))
            .unwrap();
        assert_eq!(
            (notification.news(), notification.staged),
            (News::Better, true),
            "the earlier alert was a drill"
        );
    }

    #[test]
    fn removed_providers_are_dropped() {
        let mut rules = Rules::new(INTERVAL);
        let a = provider();
        let b = Cause::Provider("b".into());
        for subject in [&a, &b, &Cause::Mode] {
            assert!(rules.see(&found(subject, 1), INTERVAL).is_some());
        }
        rules.keep(["b"].into_iter());
        assert_eq!(rules.tracks.keys().collect::<Vec<_>>(), [&b, &Cause::Mode]);
    }

    #[test]
    fn without_an_interval_every_change_is_sent() {
        let mut rules = Rules::new(Duration::ZERO);
        let changes = (0..10)
            .filter_map(|n| rules.see(&found(&provider(), n % 2), INTERVAL))
            .count();
        assert_eq!(changes, 9);
    }

    proptest! {
        /// For any sequence: alerts of one severity respect the interval, only sent conditions
        /// recover, and the receiver ends up with the current state.
        #[test]
        fn guarantees_hold(steps in prop::collection::vec((0_u64..200, 0_u8..=2), 1..200), mode: bool) {
            let subject = if mode { Cause::Mode } else { provider() };
            let mut rules = Rules::new(INTERVAL);
            let mut now = 0;
            let mut believed = 0;
            let mut last = [None::<u64>; 3];
            let settling = [(0, steps.last().unwrap().1), (301, steps.last().unwrap().1), (301, steps.last().unwrap().1)];
            for (wait, level) in steps.iter().copied().chain(settling) {
                now += wait;
                let Some(notification) = rules.see(&found(&subject, level), Duration::from_secs(now)) else { continue };
                prop_assert_eq!(notification.before, believed);
                match notification.news() {
                    News::Worse => {
                        let index = usize::from(notification.found.level);
                        prop_assert!(last[index].is_none_or(|last| now - last >= 300));
                        last[index] = Some(now);
                    }
                    News::Better => prop_assert!(believed > notification.found.level),
                    News::Flapped => {
                        prop_assert!(notification.muted > 0 && last.iter().flatten().all(|last| now - last >= 300));
                        last = [Some(now); 3];
                    }
                }
                believed = notification.found.level;
            }
            let level = steps.last().unwrap().1;
            let is_current = believed == level || (!mode && level > 0 && believed > level);
            prop_assert!(is_current, "believed {believed}, is {level}");
        }
    }
}
