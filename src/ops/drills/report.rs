//! Reports of outage drills, and the slots they are saved in.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::domain::{DrillView, Timestamp};
use crate::turn::drill_impact::DrillImpact;

pub const MAX_REPORTS: usize = 50;

/// The report of a drill that ran, or of a scheduled one that was skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    pub id: String,
    #[serde(flatten)]
    pub drill: DrillView,
    /// `true` for a drill from `[[drills]]`, `false` for one started by an operator.
    pub scheduled: bool,
    /// The reason the drill was skipped. `None` if it ran.
    pub skipped: Option<String>,
    /// `None` while the drill runs, and if it was skipped.
    pub ended: Option<Timestamp>,
    pub ended_by: Option<EndedBy>,
    /// The provider's calls during the drill, including the service's own.
    pub calls: CallCounts,
    /// The result of every turn that was running at any time during the drill.
    pub turns: DrillImpact,
    pub breaker: BreakerTimeline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    Time,
    Operator,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    pub total: u64,
    #[serde(rename = "befallen")]
    pub affected: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerTimeline {
    /// The number of times the breaker opened or blocked.
    #[serde(rename = "opened")]
    pub times_opened: u64,
    /// From the start of the drill to the first time the breaker opened.
    pub opened_after_ms: Option<u64>,
    /// From the start of the drill to the first rate limit that left the breaker closed.
    #[serde(rename = "limited_after_ms")]
    pub rate_limited_after_ms: Option<u64>,
    /// From the end of the drill until the provider was available again. `None` if it was available
    /// all the time, or not within `RECOVERY_TIMEOUT`.
    pub closed_after_ms: Option<u64>,
}

/// A report and the slot it is saved in, if it has one.
#[derive(Clone, Debug)]
struct FiledReport {
    slot: Option<usize>,
    report: DrillReport,
}

/// The newest reports, newest first. They are saved in [`MAX_REPORTS`] slots, which are reused in
/// turn.
#[derive(Clone, Debug, Default)]
pub struct ReportLog {
    newest_first: VecDeque<FiledReport>,
    /// The slot of the next report. `None` until the reports of earlier processes are loaded.
    next_slot: Option<usize>,
}

impl ReportLog {
    /// Adds a report, or replaces the one with the same id. Returns its slot if it has one.
    pub fn insert(&mut self, report: DrillReport) -> Option<usize> {
        if let Some(known) = self
            .newest_first
            .iter_mut()
            .find(|known| known.report.id == report.id)
        {
            known.report = report;
            return known.slot;
        }
        let slot = self.allocate_slot();
        self.newest_first.push_front(FiledReport { slot, report });
        self.newest_first.truncate(MAX_REPORTS);
        slot
    }

    /// Restores saved reports behind those added since the start. Returns the latter with their
    /// slots, to be saved now.
    pub fn restore(&mut self, mut saved: Vec<(usize, DrillReport)>) -> Vec<(usize, DrillReport)> {
        saved.sort_by_key(|(_, report)| std::cmp::Reverse(report.drill.from));
        self.next_slot = Some(
            saved
                .first()
                .map_or(0, |(slot, _)| (slot + 1) % MAX_REPORTS),
        );
        let added = std::mem::take(&mut self.newest_first);
        self.newest_first = saved
            .into_iter()
            .map(|(slot, report)| FiledReport {
                slot: Some(slot),
                report,
            })
            .collect();
        let unsaved = added
            .into_iter()
            .rev()
            .filter_map(|FiledReport { report, .. }| Some((self.insert(report.clone())?, report)));
        unsaved.collect()
    }

    /// Allocates the next slot and drops the report that was in it.
    fn allocate_slot(&mut self) -> Option<usize> {
        let slot = self.next_slot?;
        self.next_slot = Some((slot + 1) % MAX_REPORTS);
        self.newest_first.retain(|filed| filed.slot != Some(slot));
        Some(slot)
    }

    pub fn newest_first(&self) -> Vec<DrillReport> {
        self.newest_first
            .iter()
            .map(|filed| filed.report.clone())
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn report(number: usize) -> DrillReport {
        let at = |number: usize| Timestamp(u64::try_from(number).unwrap_or_default());
        DrillReport {
            id: format!("drill-{number}"),
            drill: DrillView {
                provider: "a".into(),
                fault: "down".into(),
                share: 1.0,
                from: at(number),
                until: at(number + 1),
            },
            scheduled: false,
            skipped: None,
            ended: None,
            ended_by: None,
            calls: CallCounts::default(),
            turns: DrillImpact::default(),
            breaker: BreakerTimeline::default(),
        }
    }

    fn ids(reports: &ReportLog) -> Vec<String> {
        reports
            .newest_first()
            .into_iter()
            .map(|report| report.id)
            .collect()
    }

    #[test]
    fn the_newest_reports_are_kept_and_updated_in_place() {
        let mut reports = ReportLog::default();
        (0..MAX_REPORTS + 10).for_each(|number| {
            assert_eq!(
                reports.insert(report(number)),
                None,
                "nothing is loaded yet"
            )
        });
        let last = DrillReport {
            ended: Some(Timestamp(2)),
            ended_by: Some(EndedBy::Time),
            ..report(MAX_REPORTS + 9)
        };
        reports.insert(last.clone());
        assert_eq!(
            (reports.newest_first().len(), reports.newest_first().first()),
            (MAX_REPORTS, Some(&last))
        );
        // Reports round-trip through JSON.
        let json = serde_json::to_value(&last).unwrap_or_default();
        assert_eq!(
            (&json["provider"], &json["ended_by"]),
            (&"a".into(), &"time".into())
        );
        assert_eq!(serde_json::from_value::<DrillReport>(json).ok(), Some(last));
    }

    #[test]
    fn slots_are_reused_in_turn_across_restarts() {
        let mut reports = ReportLog::default();
        assert_eq!(reports.restore(Vec::new()), []);
        let slots: Vec<_> = (0..MAX_REPORTS + 2)
            .filter_map(|number| reports.insert(report(number)))
            .collect();
        assert_eq!((slots.len(), slots.last()), (MAX_REPORTS + 2, Some(&1)));
        assert_eq!(
            reports.insert(report(MAX_REPORTS + 1)),
            Some(1),
            "the same report keeps its slot"
        );

        // The documents as they are now, except for one that cannot be decoded.
        let saved = (2..MAX_REPORTS + 2)
            .filter(|number| *number != 9)
            .map(|number| (number % MAX_REPORTS, report(number)));
        let mut reports = ReportLog::default();
        reports.insert(report(1_000));
        assert_eq!(
            reports.restore(saved.collect()),
            [(2, report(1_000))],
            "an earlier report is saved now"
        );
        let ids = ids(&reports);
        let expected = [
            "drill-1000".to_owned(),
            format!("drill-{}", MAX_REPORTS + 1),
        ];
        assert_eq!((&ids[..2], ids.len()), (&expected[..], MAX_REPORTS - 1));
        assert!(!ids.contains(&"drill-2".to_owned()), "its slot was reused");
    }
}
