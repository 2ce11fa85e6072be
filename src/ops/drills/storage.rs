//! Persistence of reports. Each is one document in the store, with a version.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DrillService;
use super::report::{DrillReport, MAX_REPORTS};
use crate::store::{Store, StoreError};

/// The version written. To be raised when an old report can no longer be decoded as a new one.
const VERSION: u32 = 1;

const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
struct ReportDocument {
    v: u32,
    report: serde_json::Value,
}

fn document_name(place: usize) -> String {
    format!("drill/{place}")
}

fn encode(report: &DrillReport) -> String {
    let report = serde_json::to_value(report).unwrap_or_default();
    serde_json::to_string(&ReportDocument { v: VERSION, report }).unwrap_or_default()
}

/// Decodes a document. `None` if it is damaged or of another version.
fn decode(document: &str) -> Option<DrillReport> {
    let document: ReportDocument = serde_json::from_str(document).ok()?;
    (document.v == VERSION)
        .then(|| serde_json::from_value(document.report).ok())
        .flatten()
}

/// Loads all reports with their slots, and the slots of those that cannot be decoded. `None` if the
/// store does not work.
async fn load_reports(store: &dyn Store) -> Option<(Vec<(usize, DrillReport)>, BTreeSet<usize>)> {
    let mut found = Vec::new();
    let mut unread = BTreeSet::new();
    for slot in 0..MAX_REPORTS {
        let report = match store.note(document_name(slot)).await {
            Ok(Some(document)) => decode(&document),
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

impl DrillService {
    /// Adds or updates a report and starts saving it. The write is queued when this returns.
    pub(super) fn add_report(&self, report: DrillReport) {
        let slot = self.state.lock().reports.insert(report.clone());
        if let Some(slot) = slot {
            self.save(slot, &report);
        }
    }

    fn save(&self, slot: usize, report: &DrillReport) {
        self.state.lock().unreadable_slots.remove(&slot);
        drop(
            self.deps
                .service
                .store
                .write_note(document_name(slot), encode(report)),
        );
    }

    /// Loads the reports of earlier processes. If that fails, reports are kept in memory only.
    pub async fn load(&self) {
        let read = load_reports(&*self.deps.service.store);
        let Ok(Some((found, unread))) = tokio::time::timeout(LOAD_TIMEOUT, read).await else {
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
            let mut state = self.state.lock();
            state.unreadable_slots = unread;
            state.reports.restore(found)
        };
        for (slot, report) in unsaved {
            self.save(slot, &report);
        }
    }

    /// A problem for the status page if some reports could not be decoded.
    pub fn problems(&self) -> Option<String> {
        let unread = self.state.lock().unreadable_slots.len();
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
