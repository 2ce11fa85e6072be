//! Answers, costs and failures per hour for the last 30 days. Pure.
//!
//! Each day is saved as one document, and [`DOCUMENT_COUNT`] documents are reused in turn, so the
//! history stays at a few kilobytes and survives restarts.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::turn::answer_counts::AnswerCounts;

const HOUR_MS: u64 = 60 * 60 * 1_000;

pub const HOURS_PER_DAY: u64 = 24;

pub const HOURS_PER_MONTH: u64 = 30 * HOURS_PER_DAY;

/// One document per day, and one more for the current day.
pub const DOCUMENT_COUNT: u64 = 31;

/// Failed attempts by reason, in the protocol's words.
pub type FaultCounts = BTreeMap<Cow<'static, str>, u64>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HourStats {
    /// Whole hours since 1970.
    pub hour: u64,
    /// Answered by an AI, or with a fresh cached answer of one.
    pub ai: u64,
    pub degraded: u64,
    pub lost: u64,
    pub cost_usd: f64,
    #[serde(default, skip_serializing_if = "FaultCounts::is_empty")]
    pub reasons: FaultCounts,
}

/// The sum over several hours. The fields are those of [`HourStats`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerTotals {
    pub ai: u64,
    pub degraded: u64,
    pub lost: u64,
    pub cost_usd: f64,
    pub reasons: FaultCounts,
}

impl AnswerTotals {
    pub fn total(&self) -> u64 {
        self.ai + self.degraded + self.lost
    }

    /// The ratio of messages that got any answer. `None` if there were no messages.
    pub fn answered_ratio(&self) -> Option<f64> {
        ratio(self.ai + self.degraded, self.total())
    }

    /// The ratio of messages that an AI answered. `None` if there were no messages.
    pub fn ai_ratio(&self) -> Option<f64> {
        ratio(self.ai, self.total())
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn merge_counts(reasons: &mut FaultCounts, more: &FaultCounts) {
    for (reason, count) in more {
        *reasons.entry(reason.clone()).or_default() += count;
    }
}

pub fn document_name_for(hour: u64) -> String {
    document_name(hour / HOURS_PER_DAY % DOCUMENT_COUNT)
}

pub fn document_name(number: u64) -> String {
    format!("history/{number}")
}

/// The hours of the last 30 days. Hours without an answer are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HourlyHistory {
    hours: VecDeque<HourStats>,
}

impl HourlyHistory {
    /// Restores saved hours, in any order. Hours after `now` are dropped.
    pub fn restore(hours: impl IntoIterator<Item = HourStats>, now: Timestamp) -> Self {
        let mut hours: Vec<HourStats> = hours
            .into_iter()
            .filter(|hour| hour.hour <= now.0 / HOUR_MS)
            .collect();
        hours.sort_by_key(|hour| hour.hour);
        hours.dedup_by_key(|hour| hour.hour);
        let mut history = Self {
            hours: hours.into(),
        };
        history.drop_old_hours(now);
        history
    }

    pub fn record_answers(&mut self, now: Timestamp, served: &AnswerCounts, cost_usd: f64) {
        if served.total() == 0 && cost_usd <= 0.0 {
            return;
        }
        if let Some(hour) = self.current_hour(now) {
            hour.ai += served.ai;
            hour.degraded += served.degraded;
            hour.lost += served.lost;
            hour.cost_usd += cost_usd;
        }
    }

    pub fn record_failures(&mut self, now: Timestamp, failed: FaultCounts) {
        if failed.is_empty() {
            return;
        }
        if let Some(hour) = self.current_hour(now) {
            merge_counts(&mut hour.reasons, &failed);
        }
    }

    fn current_hour(&mut self, now: Timestamp) -> Option<&mut HourStats> {
        let current = now.0 / HOUR_MS;
        // After a clock was set back, counts go to the latest hour there is.
        if self.hours.back().is_none_or(|last| last.hour < current) {
            self.hours.push_back(HourStats {
                hour: current,
                ..HourStats::default()
            });
            self.drop_old_hours(now);
        }
        self.hours.back_mut()
    }

    /// Totals of the last `hours` hours, including the current one.
    pub fn totals_for_last(&self, hours: u64, now: Timestamp) -> AnswerTotals {
        let first = (now.0 / HOUR_MS + 1).saturating_sub(hours);
        self.hours.iter().filter(|hour| hour.hour >= first).fold(
            AnswerTotals::default(),
            |mut sum, hour| {
                merge_counts(&mut sum.reasons, &hour.reasons);
                AnswerTotals {
                    ai: sum.ai + hour.ai,
                    degraded: sum.degraded + hour.degraded,
                    lost: sum.lost + hour.lost,
                    cost_usd: sum.cost_usd + hour.cost_usd,
                    reasons: sum.reasons,
                }
            },
        )
    }

    /// The hours of the newest day and the name of its document. `None` if nothing was counted.
    pub fn current_day(&self) -> Option<(String, Vec<HourStats>)> {
        let day = self.hours.back()?.hour / HOURS_PER_DAY;
        let hours = self
            .hours
            .iter()
            .filter(|hour| hour.hour / HOURS_PER_DAY == day)
            .cloned()
            .collect();
        Some((document_name_for(day * HOURS_PER_DAY), hours))
    }

    fn drop_old_hours(&mut self, now: Timestamp) {
        let first = (now.0 / HOUR_MS + 1).saturating_sub(HOURS_PER_MONTH);
        while self.hours.front().is_some_and(|hour| hour.hour < first) {
            self.hours.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(ai: u64, degraded: u64, lost: u64) -> AnswerCounts {
        AnswerCounts {
            ai,
            degraded,
            lost,
            ..AnswerCounts::default()
        }
    }

    fn at(hour: u64) -> Timestamp {
        Timestamp(hour * HOUR_MS + 5)
    }

    #[test]
    fn totals_cover_the_last_hours_only() {
        let mut history = HourlyHistory::default();
        history.record_answers(at(1_000), &served(10, 0, 0), 1.0);
        history.record_answers(at(1_023), &served(7, 2, 1), 0.5);
        history.record_answers(at(1_023), &served(1, 0, 0), 0.25);
        let day = history.totals_for_last(HOURS_PER_DAY, at(1_023));
        assert_eq!(
            (day.total(), day.ai, day.degraded, day.lost),
            (21, 18, 2, 1)
        );
        assert_eq!(
            (day.answered_ratio(), day.ai_ratio()),
            (Some(20.0 / 21.0), Some(18.0 / 21.0))
        );
        assert!((day.cost_usd - 1.75).abs() < 1e-9);
        assert_eq!(
            history.totals_for_last(HOURS_PER_DAY, at(1_024)).total(),
            11,
            "the first hour is too old"
        );
        assert_eq!(
            history.totals_for_last(HOURS_PER_MONTH, at(1_024)).total(),
            21
        );
        assert_eq!(
            history
                .totals_for_last(HOURS_PER_DAY, at(9_999))
                .answered_ratio(),
            None
        );
    }

    #[test]
    fn history_is_limited_to_a_month_and_restores_from_its_documents() {
        let mut history = HourlyHistory::default();
        let mut documents = std::collections::BTreeMap::new();
        for hour in 0..2_000 {
            history.record_answers(at(hour), &served(1, 0, 0), 0.0);
            let (name, hours) = history.current_day().unwrap();
            documents.insert(name, hours);
        }
        assert_eq!(history.hours.len() as u64, HOURS_PER_MONTH);
        assert_eq!(documents.len() as u64, DOCUMENT_COUNT);
        let restored = HourlyHistory::restore(documents.into_values().flatten(), at(1_999));
        assert_eq!(restored, history);
    }

    #[test]
    fn failures_are_summed_and_hours_of_older_versions_have_none() {
        let failed = |of: &[(&'static str, u64)]| -> FaultCounts {
            of.iter()
                .map(|(reason, count)| (Cow::Borrowed(*reason), *count))
                .collect()
        };
        let mut history = HourlyHistory::default();
        history.record_failures(at(1_000), failed(&[("timeout", 1), ("reset", 2)]));
        history.record_failures(at(1_001), failed(&[("timeout", 4)]));
        history.record_failures(at(1_001), failed(&[]));
        assert_eq!(
            history.totals_for_last(HOURS_PER_DAY, at(1_001)).reasons,
            failed(&[("reset", 2), ("timeout", 5)])
        );
        assert_eq!(
            history.totals_for_last(1, at(1_001)).reasons,
            failed(&[("timeout", 4)])
        );
        let earlier = r#"[{"hour":1000,"ai":3,"degraded":0,"lost":0,"cost_usd":0.0}]"#;
        let hours: Vec<HourStats> = serde_json::from_str(earlier).unwrap();
        assert_eq!((hours[0].ai, hours[0].reasons.len()), (3, 0));
        let text = serde_json::to_string(&history.current_day().unwrap().1).unwrap();
        let restored = HourlyHistory::restore(
            serde_json::from_str::<Vec<HourStats>>(&text).unwrap(),
            at(1_001),
        );
        assert_eq!(restored, history);
    }

    #[test]
    fn a_clock_set_back_loses_no_counts() {
        let mut history = HourlyHistory::default();
        history.record_answers(at(100), &served(1, 0, 0), 0.0);
        history.record_answers(at(90), &served(1, 0, 0), 0.0);
        assert_eq!(history.totals_for_last(HOURS_PER_DAY, at(100)).total(), 2);
        // Hours later than the clock are dropped at restore.
        let later = HourStats {
            hour: 500,
            ai: 1,
            ..HourStats::default()
        };
        assert_eq!(
            HourlyHistory::restore([later], at(100)),
            HourlyHistory::default()
        );
    }
}
