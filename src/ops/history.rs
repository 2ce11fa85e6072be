//! What was answered in each of the last hours, for a month. Pure.
//!
//! What a month brought is a sum over its hours, so it costs a few kilobytes and survives a restart: one note a day, of which there are as many
//! as days are looked back, used in turn.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::chat::At;
use crate::turn::counts::Served;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Hours of a day.
pub const DAY: u64 = 24;

/// Hours of the longest stretch that is told.
pub const MONTH: u64 = 30 * DAY;

/// Notes that are used in turn: one a day, and one more for the day under way.
pub const NOTES: u64 = 31;

/// How many attempts at a provider failed, by the protocol's words.
pub type Reasons = BTreeMap<Cow<'static, str>, u64>;

/// One hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hour {
    /// Counted from 1970.
    pub hour: u64,
    /// Answered by an AI, or by a fresh saved answer of one.
    pub ai: u64,
    /// Answered with less.
    pub degraded: u64,
    /// Not answered.
    pub lost: u64,
    /// USD.
    pub cost_usd: f64,
    /// Why attempts failed.
    #[serde(default, skip_serializing_if = "Reasons::is_empty")]
    pub reasons: Reasons,
}

/// What a stretch of time came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// Answered by an AI, or by a fresh saved answer of one.
    pub ai: u64,
    /// Answered with less.
    pub degraded: u64,
    /// Not answered.
    pub lost: u64,
    /// USD.
    pub cost_usd: f64,
    /// Why attempts failed.
    pub reasons: Reasons,
}

impl Sum {
    /// Messages that should have had an answer.
    pub fn total(&self) -> u64 {
        self.ai + self.degraded + self.lost
    }

    /// The share that had any answer; none where nothing was asked.
    pub fn answered(&self) -> Option<f64> {
        share(self.ai + self.degraded, self.total())
    }

    /// The share that an AI answered; none where nothing was asked.
    pub fn by_ai(&self) -> Option<f64> {
        share(self.ai, self.total())
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn merge(reasons: &mut Reasons, more: &Reasons) {
    for (reason, count) in more {
        *reasons.entry(reason.clone()).or_default() += count;
    }
}

/// The name of the note of the day that holds this hour.
pub fn note_of(hour: u64) -> String {
    note(hour / DAY % NOTES)
}

/// The name of a note.
pub fn note(number: u64) -> String {
    format!("history/{number}")
}

/// The last month, by the hour; hours without an answer are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    hours: VecDeque<Hour>,
}

impl History {
    /// What earlier processes noted, in any order.
    pub fn recalled(notes: impl IntoIterator<Item = Hour>, now: At) -> Self {
        let mut hours: Vec<Hour> = notes
            .into_iter()
            .filter(|one| one.hour <= now.0 / HOUR_MS)
            .collect();
        hours.sort_by_key(|one| one.hour);
        hours.dedup_by_key(|one| one.hour);
        let mut history = Self {
            hours: hours.into(),
        };
        history.forget(now);
        history
    }

    /// Counts what came just before `now`.
    pub fn add(&mut self, now: At, served: &Served, cost_usd: f64) {
        if served.total() == 0 && cost_usd <= 0.0 {
            return;
        }
        if let Some(hour) = self.hour(now) {
            hour.ai += served.ai;
            hour.degraded += served.degraded;
            hour.lost += served.lost;
            hour.cost_usd += cost_usd;
        }
    }

    /// Counts attempts that failed just before `now`.
    pub fn add_failed(&mut self, now: At, failed: Reasons) {
        if failed.is_empty() {
            return;
        }
        if let Some(hour) = self.hour(now) {
            merge(&mut hour.reasons, &failed);
        }
    }

    /// What is counted into at this moment.
    fn hour(&mut self, now: At) -> Option<&mut Hour> {
        let this = now.0 / HOUR_MS;
        // A clock that was set back counts to the last hour that there is.
        if self.hours.back().is_none_or(|last| last.hour < this) {
            self.hours.push_back(Hour {
                hour: this,
                ..Hour::default()
            });
            self.forget(now);
        }
        self.hours.back_mut()
    }

    /// The last so many hours, the one under way among them.
    pub fn last(&self, hours: u64, now: At) -> Sum {
        let first = (now.0 / HOUR_MS + 1).saturating_sub(hours);
        self.hours
            .iter()
            .filter(|one| one.hour >= first)
            .fold(Sum::default(), |mut sum, one| {
                merge(&mut sum.reasons, &one.reasons);
                Sum {
                    ai: sum.ai + one.ai,
                    degraded: sum.degraded + one.degraded,
                    lost: sum.lost + one.lost,
                    cost_usd: sum.cost_usd + one.cost_usd,
                    reasons: sum.reasons,
                }
            })
    }

    /// The hours of the day that was counted to last, and the name of their note; none where nothing was counted.
    pub fn newest_day(&self) -> Option<(String, Vec<Hour>)> {
        let day = self.hours.back()?.hour / DAY;
        let hours = self
            .hours
            .iter()
            .filter(|one| one.hour / DAY == day)
            .cloned()
            .collect();
        Some((note_of(day * DAY), hours))
    }

    fn forget(&mut self, now: At) {
        let first = (now.0 / HOUR_MS + 1).saturating_sub(MONTH);
        while self.hours.front().is_some_and(|one| one.hour < first) {
            self.hours.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(ai: u64, degraded: u64, lost: u64) -> Served {
        Served {
            ai,
            degraded,
            lost,
            ..Served::default()
        }
    }

    fn at(hour: u64) -> At {
        At(hour * HOUR_MS + 5)
    }

    #[test]
    fn sums_are_of_the_last_hours() {
        let mut history = History::default();
        history.add(at(1_000), &served(10, 0, 0), 1.0);
        history.add(at(1_023), &served(7, 2, 1), 0.5);
        history.add(at(1_023), &served(1, 0, 0), 0.25);
        let day = history.last(DAY, at(1_023));
        assert_eq!(
            (day.total(), day.ai, day.degraded, day.lost),
            (21, 18, 2, 1)
        );
        assert_eq!(
            (day.answered(), day.by_ai()),
            (Some(20.0 / 21.0), Some(18.0 / 21.0))
        );
        assert!((day.cost_usd - 1.75).abs() < 1e-9);
        assert_eq!(
            history.last(DAY, at(1_024)).total(),
            11,
            "the first is too long ago"
        );
        assert_eq!(history.last(MONTH, at(1_024)).total(), 21);
        assert_eq!(history.last(DAY, at(9_999)).answered(), None);
    }

    #[test]
    fn a_month_is_bounded_and_comes_back_from_its_notes() {
        let mut history = History::default();
        let mut notes = std::collections::BTreeMap::new();
        for hour in 0..2_000 {
            history.add(at(hour), &served(1, 0, 0), 0.0);
            let (name, hours) = history.newest_day().unwrap();
            notes.insert(name, hours);
        }
        assert_eq!(history.hours.len() as u64, MONTH);
        assert_eq!(notes.len() as u64, NOTES);
        let back = History::recalled(notes.into_values().flatten(), at(1_999));
        assert_eq!(back, history);
    }

    #[test]
    fn reasons_are_summed_up_and_an_hour_of_an_earlier_version_has_none() {
        let failed = |of: &[(&'static str, u64)]| -> Reasons {
            of.iter()
                .map(|(reason, count)| (Cow::Borrowed(*reason), *count))
                .collect()
        };
        let mut history = History::default();
        history.add_failed(at(1_000), failed(&[("timeout", 1), ("reset", 2)]));
        history.add_failed(at(1_001), failed(&[("timeout", 4)]));
        history.add_failed(at(1_001), failed(&[]));
        assert_eq!(
            history.last(DAY, at(1_001)).reasons,
            failed(&[("reset", 2), ("timeout", 5)])
        );
        assert_eq!(
            history.last(1, at(1_001)).reasons,
            failed(&[("timeout", 4)])
        );
        let earlier = r#"[{"hour":1000,"ai":3,"degraded":0,"lost":0,"cost_usd":0.0}]"#;
        let hours: Vec<Hour> = serde_json::from_str(earlier).unwrap();
        assert_eq!((hours[0].ai, hours[0].reasons.len()), (3, 0));
        let text = serde_json::to_string(&history.newest_day().unwrap().1).unwrap();
        let back = History::recalled(serde_json::from_str::<Vec<Hour>>(&text).unwrap(), at(1_001));
        assert_eq!(back, history);
    }

    #[test]
    fn a_clock_that_was_set_back_loses_nothing() {
        let mut history = History::default();
        history.add(at(100), &served(1, 0, 0), 0.0);
        history.add(at(90), &served(1, 0, 0), 0.0);
        assert_eq!(history.last(DAY, at(100)).total(), 2);
        // What another clock noted for later is not believed.
        let later = Hour {
            hour: 500,
            ai: 1,
            ..Hour::default()
        };
        assert_eq!(History::recalled([later], at(100)), History::default());
    }
}
