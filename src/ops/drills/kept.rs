//! Reports over a restart: each is a note of the store, with the version of its form.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Drills;
use super::report::{KEPT, Report};
use crate::store::{Store, StoreError};

/// The version that this program writes. It goes up when an old report could no longer be read as a new one.
const VERSION: u32 = 1;

/// How long reading what earlier processes kept may take.
const RECALL_LIMIT: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
struct Note {
    v: u32,
    report: serde_json::Value,
}

fn name(place: usize) -> String {
    format!("drill/{place}")
}

fn written(report: &Report) -> String {
    let report = serde_json::to_value(report).unwrap_or_default();
    serde_json::to_string(&Note { v: VERSION, report }).unwrap_or_default()
}

/// The report of a note; none where it does not read.
fn read(note: &str) -> Option<Report> {
    let note: Note = serde_json::from_str(note).ok()?;
    (note.v == VERSION)
        .then(|| serde_json::from_value(note.report).ok())
        .flatten()
}

/// All that can be read, each with its place, and the places of those that cannot; none where the store does not work.
async fn kept(store: &dyn Store) -> Option<(Vec<(usize, Report)>, BTreeSet<usize>)> {
    let (mut found, mut unread) = (Vec::new(), BTreeSet::new());
    for place in 0..KEPT {
        let report = match store.note(name(place)).await {
            Ok(Some(note)) => read(&note),
            Ok(None) => continue,
            Err(StoreError::Damaged(_)) => None,
            Err(_) => return None,
        };
        match report {
            Some(report) => found.push((place, report)),
            None => drop(unread.insert(place)),
        }
    }
    Some((found, unread))
}

impl Drills {
    /// Files a report, and keeps it. On its way to the disk when this returns; what is lost by a crash is lost.
    pub(super) fn file(&self, report: Report) {
        let place = self.lock().reports.file(report.clone());
        if let Some(place) = place {
            self.keep(place, &report);
        }
    }

    fn keep(&self, place: usize, report: &Report) {
        self.lock().unread.remove(&place);
        drop(
            self.means
                .desk
                .store
                .write_note(name(place), written(report)),
        );
    }

    /// Reads what earlier processes kept. Where the store does not say, this process's reports are in memory alone.
    pub async fn recall(&self) {
        let read = kept(&*self.means.desk.store);
        let Ok(Some((found, unread))) = tokio::time::timeout(RECALL_LIMIT, read).await else {
            tracing::warn!(
                "the reports of earlier drills were not read; new ones end with this process"
            );
            return;
        };
        if !unread.is_empty() {
            tracing::warn!(
                count = unread.len(),
                "reports of drills that this version does not read are passed over"
            );
        }
        let unnoted = {
            let mut state = self.lock();
            state.unread = unread;
            state.reports.recall(found)
        };
        for (place, report) in unnoted {
            self.keep(place, &report);
        }
    }

    /// What is wrong with the reports, in sentences for the status.
    pub fn problems(&self) -> Option<String> {
        let unread = self.lock().unread.len();
        let (reports, are) = if unread == 1 {
            ("report", "is")
        } else {
            ("reports", "are")
        };
        (unread > 0).then(|| {
            format!("{unread} {reports} of drills cannot be read (damaged, or of another version) and {are} passed over.")
        })
    }
}
