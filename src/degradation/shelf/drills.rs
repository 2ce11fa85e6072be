//! Pausing the cache: answers given during an outage drill, or before an administrator's `clear`,
//! must not be saved.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Shelf;

/// Counters that tell whether a turn overlapped with a drill or a `clear`.
#[derive(Default)]
pub(super) struct Drills {
    running: AtomicU64,
    begun: AtomicU64,
    /// The interruptions that are outage drills.
    staged: AtomicU64,
}

impl Shelf {
    /// Returns the number of drills started so far, or `None` while one runs.
    ///
    /// Two equal numbers mean that no drill ran in between.
    pub fn drills(&self) -> Option<u64> {
        let drills = &self.drills;
        // Read in this order: a drill that starts in between changes the number.
        let is_idle = drills.running.load(Ordering::SeqCst) == 0;
        is_idle.then(|| drills.staged.load(Ordering::SeqCst))
    }

    /// Keeps the answers of turns that are running now from being saved.
    pub fn disturb(&self) {
        self.drills.pass();
    }

    /// Stops saving answers until the outage drill ends.
    pub fn drill_begins(&self) {
        self.drills.begin();
    }

    pub fn drill_ends(&self) {
        self.drills.end();
    }
}

impl Drills {
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.staged.fetch_add(1, Ordering::SeqCst);
        self.pass();
    }

    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts an interruption without a duration, such as a `clear`.
    pub(super) fn pass(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of interruptions so far, or `None` while a drill runs.
    pub(super) fn undisturbed(&self) -> Option<u64> {
        // Read in this order: a drill that starts in between changes the number.
        let is_idle = self.running.load(Ordering::SeqCst) == 0;
        is_idle.then(|| self.begun.load(Ordering::SeqCst))
    }

    /// Returns `true` if no interruption has happened since `then`, and none went on at that time.
    pub(super) fn undisturbed_since(&self, then: Option<u64>) -> bool {
        then.is_some() && then == self.undisturbed()
    }
}
