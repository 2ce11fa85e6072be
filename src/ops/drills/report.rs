//! Reports of outage drills, and the slots they are saved in.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::chat::{At, DrillView};
use crate::turn::witness::Seen;

pub const KEPT: usize = 50;

/// The report of a drill that ran, or of a scheduled one that was skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: String,
    #[serde(flatten)]
    pub drill: DrillView,
    /// `true` for a drill from `[[drills]]`, `false` for one started by an operator.
    pub scheduled: bool,
    /// The reason the drill was skipped. `None` if it ran.
    pub skipped: Option<String>,
    /// `None` while the drill runs, and if it was skipped.
    pub ended: Option<At>,
    pub ended_by: Option<EndedBy>,
    /// The provider's calls during the drill, including the service's own.
    pub calls: Calls,
    /// The result of every turn that was running at any time during the drill.
    pub turns: Seen,
    pub breaker: BreakerSeen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    Time,
    Operator,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    pub total: u64,
    #[serde(rename = "befallen")]
    pub befallen: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerSeen {
    /// The number of times the breaker opened or blocked.
    #[serde(rename = "opened")]
    pub opened: u64,
    /// From the start of the drill to the first time the breaker opened.
    pub opened_after_ms: Option<u64>,
    /// From the start of the drill to the first rate limit that left the breaker closed.
    #[serde(rename = "limited_after_ms")]
    pub limited_after_ms: Option<u64>,
    /// From the end of the drill until the provider was available again. `None` if it was available
    /// all the time, or not within `RECOVERY_TIMEOUT`.
    pub closed_after_ms: Option<u64>,
}

/// A report and the slot it is saved in, if it has one.
#[derive(Clone, Debug)]
struct Filed {
    place: Option<usize>,
    report: Report,
}

/// The newest reports, newest first. They are saved in [`MAX_REPORTS`] slots, which are reused in
/// turn.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    all: VecDeque<Filed>,
    /// The slot of the next report. `None` until the reports of earlier processes are loaded.
    next: Option<usize>,
}

impl Reports {
    /// Adds a report, or replaces the one with the same id. Returns its slot if it has one.
    pub fn file(&mut self, report: Report) -> Option<usize> {
        if let Some(known) = self
            .all
            .iter_mut()
            .find(|known| known.report.id == report.id)
        {
            known.report = report;
            return known.place;
        }
        let slot = self.place();
        self.all.push_front(Filed {
            place: slot,
            report,
        });
        self.all.truncate(KEPT);
        slot
    }

    /// Restores saved reports behind those added since the start. Returns the latter with their
    /// slots, to be saved now.
    pub fn recall(&mut self, mut saved: Vec<(usize, Report)>) -> Vec<(usize, Report)> {
        saved.sort_by_key(|(_, report)| std::cmp::Reverse(report.drill.from));
        self.next = Some(saved.first().map_or(0, |(slot, _)| (slot + 1) % KEPT));
        let added = std::mem::take(&mut self.all);
        self.all = saved
            .into_iter()
            .map(|(slot, report)| Filed {
                place: Some(slot),
                report,
            })
            .collect();
        let unsaved = added
            .into_iter()
            .rev()
            .filter_map(|Filed { report, .. }| Some((self.file(report.clone())?, report)));
        unsaved.collect()
    }

    /// Allocates the next slot and drops the report that was in it.
    fn place(&mut self) -> Option<usize> {
        let slot = self.next?;
        self.next = Some((slot + 1) % KEPT);
        self.all.retain(|filed| filed.place != Some(slot));
        Some(slot)
    }

    pub fn all(&self) -> Vec<Report> {
        self.all.iter().map(|filed| filed.report.clone()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn report(number: usize) -> Report {
        let at = |number: usize| At(u64::try_from(number).unwrap_or_default());
        Report {
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
            calls: Calls::default(),
            turns: Seen::default(),
            breaker: BreakerSeen::default(),
        }
    }

    fn ids(reports: &Reports) -> Vec<String> {
        reports.all().into_iter().map(|report| report.id).collect()
    }

    #[test]
    fn the_newest_reports_are_kept_and_updated_in_place() {
        let mut reports = Reports::default();
        (0..KEPT + 10).for_each(|number| {
            assert_eq!(reports.file(report(number)), None, "nothing is loaded yet")
        });
        let last = Report {
            ended: Some(At(2)),
            ended_by: Some(EndedBy::Time),
            ..report(KEPT + 9)
        };
        reports.file(last.clone());
        assert_eq!(
            (reports.all().len(), reports.all().first()),
            (KEPT, Some(&last))
        );
        // Reports round-trip through JSON.
        let json = serde_json::to_value(&last).unwrap_or_default();
        assert_eq!(
            (&json["provider"], &json["ended_by"]),
            (&"a".into(), &"time".into())
        );
        assert_eq!(serde_json::from_value::<Report>(json).ok(), Some(last));
    }

    #[test]
    fn slots_are_reused_in_turn_across_restarts() {
        let mut reports = Reports::default();
        assert_eq!(reports.recall(Vec::new()), []);
        let slots: Vec<_> = (0..KEPT + 2)
            .filter_map(|number| reports.file(report(number)))
            .collect();
        assert_eq!((slots.len(), slots.last()), (KEPT + 2, Some(&1)));
        assert_eq!(
            reports.file(report(KEPT + 1)),
            Some(1),
            "the same report keeps its slot"
        );

        // The documents as they are now, except for one that cannot be decoded.
        let saved = (2..KEPT + 2)
            .filter(|number| *number != 9)
            .map(|number| (number % KEPT, report(number)));
        let mut reports = Reports::default();
        reports.file(report(1_000));
        assert_eq!(
            reports.recall(saved.collect()),
            [(2, report(1_000))],
            "an earlier report is saved now"
        );
        let ids = ids(&reports);
        let expected = ["drill-1000".to_owned(), format!("drill-{}", KEPT + 1)];
        assert_eq!((&ids[..2], ids.len()), (&expected[..], KEPT - 1));
        assert!(!ids.contains(&"drill-2".to_owned()), "its slot was reused");
    }
}
