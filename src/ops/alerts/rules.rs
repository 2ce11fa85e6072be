//! What is told when. Pure: the moment is an argument.
//!
//! A cause that becomes worse is told at once, unless that level of it was told within the interval: then the change is only counted. A cause that
//! was told to be bad and is well again is told at once: so an interval has at most one alert of a level, and its recovery. When the interval is
//! over, what was counted is summed up once, with how things stand then: as an alert where it is worse than was told, else as `Flapped`.
//!
//! What an outage drill brings about is a matter of its own: it holds no alert back that is none of its doing, and where trouble goes on without the
//! drill that was told to be behind it, that is told anew.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cause::{Cause, Finding, Level, WORST};

/// What is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// How it was found.
    pub found: Finding,
    /// The level that was told before.
    pub before: Level,
    /// How often it became bad without being told since the last alert of it.
    pub muted: u32,
    /// Whether an outage drill brings it about, or brought about what is over.
    pub staged: bool,
}

impl Told {
    /// What kind of news it is.
    pub fn news(&self) -> News {
        match self.found.level.cmp(&self.before) {
            std::cmp::Ordering::Greater => News::Worse,
            std::cmp::Ordering::Less => News::Better,
            std::cmp::Ordering::Equal => News::Flapped,
        }
    }
}

/// A kind of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// An alert.
    Worse,
    /// The recovery that follows one.
    Better,
    /// It became bad and well again since, more often than was told.
    Flapped,
}

/// What is known of a cause.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    level: Level,
    told: Level,
    /// When levels 1 and 2 were told last, and when as a drill's doing.
    alerted: [Times; 2],
    muted: u32,
    /// Whether what was told was a drill's doing.
    staged: bool,
}

type Times = [Option<Duration>; WORST as usize];

impl Track {
    /// Whether nothing of this level was told within `interval`, as a drill's doing or else.
    fn is_due(&self, level: Level, staged: bool, interval: Duration, now: Duration) -> bool {
        let [real, rehearsed] = &self.alerted;
        let times = if staged { rehearsed } else { real };
        let told = usize::from(level)
            .checked_sub(1)
            .and_then(|at| times.get(at).copied().flatten());
        told.is_none_or(|told| now.saturating_sub(told) >= interval)
    }

    fn told_at(&mut self, level: Level, staged: bool, now: Duration) {
        let [real, rehearsed] = &mut self.alerted;
        let times = if staged { rehearsed } else { real };
        if let Some(place) = usize::from(level)
            .checked_sub(1)
            .and_then(|at| times.get_mut(at))
        {
            *place = Some(now);
        }
    }
}

/// The rules, and what was told. As many causes as providers, twice, and six.
#[derive(Debug)]
pub struct Rules {
    interval: Duration,
    tracks: BTreeMap<Cause, Track>,
}

impl Rules {
    /// At most one alert of a level of a cause within `interval`; nothing was told yet.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            tracks: BTreeMap::new(),
        }
    }

    /// From now on with this interval.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// An earlier process told this, at this moment of our clock.
    pub fn recall(&mut self, cause: Cause, level: Level, staged: bool, told: Duration) {
        let level = level.min(WORST);
        let track = self.tracks.entry(cause).or_default();
        (track.level, track.told, track.staged) = (level, level, staged);
        track.told_at(level, staged, told);
    }

    /// Forgets the providers that are not among these: they are not asked any more, so nothing comes back.
    pub fn keep<'p>(&mut self, providers: impl Iterator<Item = &'p str> + Clone) {
        self.tracks.retain(|cause, _| {
            cause
                .provider()
                .is_none_or(|name| providers.clone().any(|kept| *kept == **name))
        });
    }

    /// A look at a cause; to be called again and again, also while nothing changes, since what was held back is told later.
    pub fn see(&mut self, found: &Finding, now: Duration) -> Option<Told> {
        let interval = self.interval;
        let track = self.tracks.entry(found.cause.clone()).or_default();
        let level = found.level.min(WORST);
        let worsened = level > std::mem::replace(&mut track.level, level);
        // To who was told of a drill, what goes on without one is new.
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
                let (muted, staged) = (std::mem::take(&mut track.muted), found.staged);
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
            let (news, staged) = (level == 0 || found.cause.tells_steps(), track.staged);
            return news.then(|| {
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
        let due = |track: &Track, level| {
            [true, false]
                .iter()
                .all(|staged| track.is_due(level, *staged, interval, now))
        };
        let over = (1..=WORST).all(|level| due(track, level));
        if track.muted == 0 || !over {
            return None;
        }
        // It is an alert too: the next one waits for the interval again.
        (1..=WORST).for_each(|level| track.told_at(level, found.staged, now));
        let (muted, staged) = (std::mem::take(&mut track.muted), found.staged);
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

    fn found(cause: &Cause, level: Level) -> Finding {
        Finding {
            cause: cause.clone(),
            level,
            reason: None,
            words: String::new(),
            staged: false,
        }
    }

    fn provider() -> Cause {
        Cause::Provider("a".into())
    }

    /// What comes of these levels at these seconds: the news, the level, and what was muted.
    fn told(cause: &Cause, steps: &[(u64, Level)]) -> Vec<(u64, News, Level, u32)> {
        let mut rules = Rules::new(INTERVAL);
        let look = |&(at, level): &(u64, Level)| {
            let told = rules.see(&found(cause, level), Duration::from_secs(at))?;
            Some((at, told.news(), told.found.level, told.muted))
        };
        steps.iter().filter_map(look).collect()
    }

    #[test]
    fn a_change_is_told_once_and_its_end_once() {
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
            told(&provider(), &steps),
            [(1, News::Worse, 1, 0), (900, News::Better, 0, 0)]
        );
    }

    #[test]
    fn a_hundred_flaps_are_an_alert_a_recovery_and_one_sum() {
        let flaps = (0..200).map(|n| (n, u8::from(n % 2 == 0)));
        let quiet = (200..2_000).map(|n| (n, 0));
        let all: Vec<_> = flaps.chain(quiet).collect();
        let expected = [
            (0, News::Worse, 1, 0),
            (1, News::Better, 0, 0),
            (300, News::Flapped, 0, 99),
        ];
        assert_eq!(told(&provider(), &all), expected);
    }

    #[test]
    fn what_was_held_back_is_told_where_it_still_holds() {
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
        assert_eq!(told(&provider(), &steps), expected);
    }

    #[test]
    fn a_worse_level_is_news_within_the_interval() {
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
        assert_eq!(told(&Cause::Mode, &steps), mode);
        // Blocked, then merely down, then blocked again: that is one thing.
        let blocked = [
            (0, News::Worse, 1, 0),
            (10, News::Worse, 2, 0),
            (40, News::Better, 0, 0),
            (310, News::Worse, 1, 1),
        ];
        assert_eq!(told(&provider(), &steps), blocked);
    }

    #[test]
    fn an_earlier_process_told_it() {
        let mut rules = Rules::new(INTERVAL);
        rules.recall(provider(), 1, false, Duration::from_secs(100));
        let mut see = |level, at| {
            rules
                .see(&found(&provider(), level), Duration::from_secs(at))
                .map(|told| told.news())
        };
        assert_eq!(see(1, 200), None, "it was told");
        assert_eq!(see(0, 210), Some(News::Better));
        assert_eq!(
            see(1, 220),
            None,
            "within the interval of the earlier process"
        );
        assert_eq!(see(1, 400), Some(News::Worse));
    }

    #[test]
    fn a_drill_holds_no_real_trouble_back_and_what_goes_on_without_it_is_told() {
        let mut rules = Rules::new(INTERVAL);
        let mut see = |level, staged, at| {
            let found = Finding {
                staged,
                ..found(&provider(), level)
            };
            rules
                .see(&found, Duration::from_secs(at))
                .map(|told| (told.news(), told.staged))
        };
        assert_eq!(see(1, true, 1), Some((News::Worse, true)));
        assert_eq!(see(1, true, 2), None);
        assert_eq!(
            see(0, false, 3),
            Some((News::Better, true)),
            "what is over was a drill's"
        );
        assert_eq!(
            see(1, false, 4),
            Some((News::Worse, false)),
            "within the interval of what was none"
        );
        assert_eq!(see(1, true, 5), None, "a drill on top of it is no news");
        assert_eq!(see(0, false, 6), Some((News::Better, false)));
        assert_eq!(see(1, true, 302), Some((News::Worse, true)));
        assert_eq!(
            see(1, false, 400),
            Some((News::Worse, false)),
            "it goes on without the drill"
        );
        assert_eq!(see(0, false, 401), Some((News::Better, false)));
        rules.recall(provider(), 1, true, Duration::from_secs(500));
        let told = rules
            .see(&found(&provider(), 0), Duration::from_secs(501))
            .unwrap();
        assert_eq!(
            (told.news(), told.staged),
            (News::Better, true),
            "an earlier process told of a drill"
        );
    }

    #[test]
    fn providers_that_are_gone_are_forgotten() {
        let mut rules = Rules::new(INTERVAL);
        let (a, b) = (provider(), Cause::Provider("b".into()));
        for cause in [&a, &b, &Cause::Mode] {
            assert!(rules.see(&found(cause, 1), INTERVAL).is_some());
        }
        rules.keep(["b"].into_iter());
        assert_eq!(rules.tracks.keys().collect::<Vec<_>>(), [&b, &Cause::Mode]);
    }

    #[test]
    fn without_an_interval_all_is_told() {
        let mut rules = Rules::new(Duration::ZERO);
        let news = (0..10)
            .filter_map(|n| rules.see(&found(&provider(), n % 2), INTERVAL))
            .count();
        assert_eq!(news, 9);
    }

    proptest! {
        /// Whatever happens: alerts of one level keep the interval, nothing is over that was not told, and who listens knows how it stands in the end.
        #[test]
        fn the_promises_hold(steps in prop::collection::vec((0_u64..200, 0_u8..=2), 1..200), mode: bool) {
            let cause = if mode { Cause::Mode } else { provider() };
            let mut rules = Rules::new(INTERVAL);
            let (mut now, mut believed, mut last) = (0, 0, [None::<u64>; 3]);
            let settle = [(0, steps.last().unwrap().1), (301, steps.last().unwrap().1), (301, steps.last().unwrap().1)];
            for (wait, level) in steps.iter().copied().chain(settle) {
                now += wait;
                let Some(told) = rules.see(&found(&cause, level), Duration::from_secs(now)) else { continue };
                prop_assert_eq!(told.before, believed);
                match told.news() {
                    News::Worse => {
                        let at = usize::from(told.found.level);
                        prop_assert!(last[at].is_none_or(|last| now - last >= 300));
                        last[at] = Some(now);
                    }
                    News::Better => prop_assert!(believed > told.found.level),
                    News::Flapped => {
                        prop_assert!(told.muted > 0 && last.iter().flatten().all(|last| now - last >= 300));
                        last = [Some(now); 3];
                    }
                }
                believed = told.found.level;
            }
            let level = steps.last().unwrap().1;
            let known = believed == level || (!mode && level > 0 && believed > level);
            prop_assert!(known, "believed {believed}, is {level}");
        }
    }
}
