//! What came of a drill. Values only.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::chat::{At, DrillView};
use crate::turn::witness::Seen;

/// The reports that are kept; the oldest goes first.
pub const KEPT: usize = 50;

/// A drill that was run, or was not although it was planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Tells it from the others.
    pub id: String,
    /// What was to be done, and when.
    #[serde(flatten)]
    pub drill: DrillView,
    /// Whether it was planned (`[[drills]]`), and not begun by an operator.
    pub scheduled: bool,
    /// Why it was not run; none where it was.
    pub skipped: Option<String>,
    /// When it ended; none while it runs, and where it was not run.
    pub ended: Option<At>,
    /// What ended it: `time` or `operator`.
    pub ended_by: Option<EndedBy>,
    /// The provider's calls under it: visitors', and the service's own.
    pub calls: Calls,
    /// What visitors got in every turn that was under way at any moment of it.
    pub turns: Seen,
    /// What the provider's breaker did.
    pub breaker: BreakerSeen,
}

/// What ended a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// Its time was over.
    Time,
    /// An operator.
    Operator,
}

/// Calls under a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// All of them.
    pub total: u64,
    /// Those that it befell.
    pub befallen: u64,
}

/// What a breaker did under a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerSeen {
    /// How often it opened, or blocked, having been closed.
    pub opened: u64,
    /// From the drill's beginning to the first of these.
    pub opened_after_ms: Option<u64>,
    /// From the drill's beginning until the provider was first asked to be left alone for a while, its breaker staying closed: a rate limit.
    pub limited_after_ms: Option<u64>,
    /// From the drill's end until the provider could be asked again; none where it could all the time, or could not within some seconds.
    pub closed_after_ms: Option<u64>,
}

/// A report, and its place among the notes where it has one.
#[derive(Clone, Debug)]
struct Filed {
    place: Option<usize>,
    report: Report,
}

/// The reports, newest first. They are kept in so many notes of the store, which are used in turn, so that nothing grows and nothing is swept.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    all: VecDeque<Filed>,
    /// The note of the next; none until it is known what earlier processes kept.
    next: Option<usize>,
}

impl Reports {
    /// Files one, or takes it for the one with its id. Gives the note that it belongs into, where that is known yet.
    pub fn file(&mut self, report: Report) -> Option<usize> {
        if let Some(known) = self
            .all
            .iter_mut()
            .find(|known| known.report.id == report.id)
        {
            known.report = report;
            return known.place;
        }
        let place = self.place();
        self.all.push_front(Filed { place, report });
        self.all.truncate(KEPT);
        place
    }

    /// What earlier processes kept, each with its place, stands behind what was filed since. Gives what is to be noted by now.
    pub fn recall(&mut self, mut kept: Vec<(usize, Report)>) -> Vec<(usize, Report)> {
        kept.sort_by_key(|(_, report)| std::cmp::Reverse(report.drill.from));
        self.next = Some(kept.first().map_or(0, |(place, _)| (place + 1) % KEPT));
        let filed = std::mem::take(&mut self.all);
        self.all = kept
            .into_iter()
            .map(|(place, report)| Filed {
                place: Some(place),
                report,
            })
            .collect();
        let unnoted = filed
            .into_iter()
            .rev()
            .filter_map(|Filed { report, .. }| Some((self.file(report.clone())?, report)));
        unnoted.collect()
    }

    /// The next place, from which what lies there goes.
    fn place(&mut self) -> Option<usize> {
        let place = self.next?;
        self.next = Some((place + 1) % KEPT);
        self.all.retain(|filed| filed.place != Some(place));
        Some(place)
    }

    /// All of them.
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
    fn the_last_are_kept_and_one_is_not_kept_twice() {
        let mut reports = Reports::default();
        (0..KEPT + 10).for_each(|number| {
            assert_eq!(reports.file(report(number)), None, "nobody has looked yet")
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
        // As it is told, so it is read.
        let told = serde_json::to_value(&last).unwrap_or_default();
        assert_eq!(
            (&told["provider"], &told["ended_by"]),
            (&"a".into(), &"time".into())
        );
        assert_eq!(serde_json::from_value::<Report>(told).ok(), Some(last));
    }

    #[test]
    fn notes_are_used_in_turn_over_restarts() {
        let mut reports = Reports::default();
        assert_eq!(reports.recall(Vec::new()), []);
        let places: Vec<_> = (0..KEPT + 2)
            .filter_map(|number| reports.file(report(number)))
            .collect();
        assert_eq!((places.len(), places.last()), (KEPT + 2, Some(&1)));
        assert_eq!(
            reports.file(report(KEPT + 1)),
            Some(1),
            "the same report, the same note"
        );

        // As the notes now are; one of them does not read.
        let kept = (2..KEPT + 2)
            .filter(|number| *number != 9)
            .map(|number| (number % KEPT, report(number)));
        let mut reports = Reports::default();
        reports.file(report(1_000));
        assert_eq!(
            reports.recall(kept.collect()),
            [(2, report(1_000))],
            "what was filed before is noted now"
        );
        let ids = ids(&reports);
        let expected = ["drill-1000".to_owned(), format!("drill-{}", KEPT + 1)];
        assert_eq!((&ids[..2], ids.len()), (&expected[..], KEPT - 1));
        assert!(
            !ids.contains(&"drill-2".to_owned()),
            "its note is another's by now"
        );
    }
}
