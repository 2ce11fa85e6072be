//! Pausing the cache: answers given during an outage drill, or before an administrator's `clear`,
//! must not be saved.

use std::sync::atomic::{AtomicU64, Ordering};

use super::AnswerCache;

/// Counters that tell whether a turn overlapped with a drill or a `clear`.
#[derive(Default)]
pub(crate) struct CachePause {
    active_drills: AtomicU64,
    interruptions: AtomicU64,
    /// The interruptions that are outage drills.
    started_drills: AtomicU64,
}

impl AnswerCache {
    /// Returns the number of drills started so far, or `None` while one runs.
    ///
    /// Two equal numbers mean that no drill ran in between.
    pub fn drill_epoch(&self) -> Option<u64> {
        let drills = &self.pause_state;
        // Read in this order: a drill that starts in between changes the number.
        let is_idle = drills.active_drills.load(Ordering::SeqCst) == 0;
        is_idle.then(|| drills.started_drills.load(Ordering::SeqCst))
    }

    /// Keeps the answers of turns that are running now from being saved.
    pub fn invalidate_in_flight(&self) {
        self.pause_state.interrupt();
    }

    /// Stops saving answers until the outage drill ends.
    pub fn pause(&self) {
        self.pause_state.start_drill();
    }

    pub fn resume(&self) {
        self.pause_state.end_drill();
    }
}

impl CachePause {
    pub(crate) fn start_drill(&self) {
        self.active_drills.fetch_add(1, Ordering::SeqCst);
        self.started_drills.fetch_add(1, Ordering::SeqCst);
        self.interrupt();
    }

    pub(crate) fn end_drill(&self) {
        self.active_drills.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts an interruption without a duration, such as a `clear`.
    pub(crate) fn interrupt(&self) {
        self.interruptions.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of interruptions so far, or `None` while a drill runs.
    pub(crate) fn epoch(&self) -> Option<u64> {
        // Read in this order: a drill that starts in between changes the number.
        let is_idle = self.active_drills.load(Ordering::SeqCst) == 0;
        is_idle.then(|| self.interruptions.load(Ordering::SeqCst))
    }

    /// Returns `true` if no interruption has happened since `then`, and none went on at that time.
    pub(crate) fn is_unchanged_since(&self, then: Option<u64>) -> bool {
        then.is_some() && then == self.epoch()
    }
}
