//! Persistence of reports. Each is one document in the store, with a version.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Drills;
use super::report::{KEPT, Report};
use crate::store::{Store, StoreError};

/// The version written. To be raised when an old report can no longer be decoded as a new one.
const VERSION: u32 = 1;

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

/// Decodes a document. `None` if it is damaged or of another version.
fn read(document: &str) -> Option<Report> {
    let document: Note = serde_json::from_str(document).ok()?;
    (document.v == VERSION)
        .then(|| serde_json::from_value(document.report).ok())
        .flatten()
}

/// Loads all reports with their slots, and the slots of those that cannot be decoded. `None` if the
/// store does not work.
async fn kept(store: &dyn Store) -> Option<(Vec<(usize, Report)>, BTreeSet<usize>)> {
    let mut found = Vec::new();
    let mut unread = BTreeSet::new();
    for slot in 0..KEPT {
        let report = match store.note(name(slot)).await {
            Ok(Some(document)) => read(&document),
            Ok(None) => continue,
            Err(StoreError::Damaged(_)) => None,
            Err(_) => return None,
        };
        match report {
            Some(report) => found.push((slot, report)),
            None => drop(unread.insert(slot)),
        }
    }
    Some((found, unread))
}

impl Drills {
    /// Adds or updates a report and starts saving it. The write is queued when this returns.
    pub(super) fn file(&self, report: Report) {
        let slot = self.lock().reports.file(report.clone());
        if let Some(slot) = slot {
            self.keep(slot, &report);
        }
    }

    fn keep(&self, slot: usize, report: &Report) {
        self.lock().unread.remove(&slot);
        drop(
            self.means
                .desk
                .store
                .write_note(name(slot), written(report)),
        );
    }

    /// Loads the reports of earlier processes. If that fails, reports are kept in memory only.
    pub async fn recall(&self) {
        let read = kept(&*self.means.desk.store);
        let Ok(Some((found, unread))) = tokio::time::timeout(RECALL_LIMIT, read).await else {
            tracing::warn!("failed to load drill reports, new ones are not saved");
            return;
        };
        if !unread.is_empty() {
            tracing::warn!(
                count = unread.len(),
                "drill reports skipped (damaged or of another version)"
            );
        }
        let unsaved = {
            let mut state = self.lock();
            state.unread = unread;
            state.reports.recall(found)
        };
        for (slot, report) in unsaved {
            self.keep(slot, &report);
        }
    }

    /// A problem for the status page if some reports could not be decoded.
    pub fn problems(&self) -> Option<String> {
        let unread = self.lock().unread.len();
        let (noun, verb) = if unread == 1 {
            ("report", "is")
        } else {
            ("reports", "are")
        };
        (unread > 0).then(|| {
            format!("{unread} {noun} of drills cannot be read (damaged, or of another version) and {verb} passed over.")
        })
    }
}
