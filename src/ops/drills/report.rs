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

/// The reports, newest first.
#[derive(Clone, Debug, Default)]
pub struct Reports(VecDeque<Report>);

impl Reports {
    /// Files one, or takes it for the one with its id.
    pub fn file(&mut self, report: Report) {
        if let Some(known) = self.0.iter_mut().find(|known| known.id == report.id) {
            *known = report;
            return;
        }
        self.0.push_front(report);
        self.0.truncate(KEPT);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Report> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_one_is_not_kept_twice() {
        let mut reports = Reports::default();
        let report = |number: usize| Report {
            id: format!("drill-{number}"),
            drill: DrillView {
                provider: "a".into(),
                fault: "down".into(),
                share: 1.0,
                from: At(1),
                until: At(2),
            },
            scheduled: false,
            skipped: None,
            ended: None,
            ended_by: None,
            calls: Calls::default(),
            turns: Seen::default(),
            breaker: BreakerSeen::default(),
        };
        (0..KEPT + 10).for_each(|number| reports.file(report(number)));
        let last = Report { ended: Some(At(2)), ended_by: Some(EndedBy::Time), ..report(KEPT + 9) };
        reports.file(last.clone());
        assert_eq!((reports.all().len(), reports.all().first()), (KEPT, Some(&last)));
        // As it is told, so it is read.
        let told = serde_json::to_value(&last).unwrap_or_default();
        assert_eq!((&told["provider"], &told["ended_by"]), (&"a".into(), &"time".into()));
        assert_eq!(serde_json::from_value::<Report>(told).ok(), Some(last));
    }
}
