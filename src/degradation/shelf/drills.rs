//! What keeps answers from being saved: an outage drill, or an order after which nothing of before is to be found.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Shelf;

/// How many run, and how many have begun.
#[derive(Default)]
pub(super) struct Drills {
    running: AtomicU64,
    begun: AtomicU64,
    /// Of those, outage drills.
    staged: AtomicU64,
}

impl Shelf {
    /// How many outage drills have begun; none while one runs. Where it is the same twice, none ran in between.
    pub fn drills(&self) -> Option<u64> {
        let drills = &self.drills;
        // In this order: one that begins in between is seen by its number.
        let none_runs = drills.running.load(Ordering::SeqCst) == 0;
        none_runs.then(|| drills.staged.load(Ordering::SeqCst))
    }

    /// What is being answered at this moment is not saved.
    pub fn disturb(&self) {
        self.drills.pass();
    }

    /// An outage drill begins: what is answered from now on is not saved, until it ends.
    pub fn drill_begins(&self) {
        self.drills.begin();
    }

    /// An outage drill ends.
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

    /// One that is over at once.
    pub(super) fn pass(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// How many have begun; none while one runs.
    pub(super) fn undisturbed(&self) -> Option<u64> {
        // In this order: one that begins in between is seen by its number.
        let none_runs = self.running.load(Ordering::SeqCst) == 0;
        none_runs.then(|| self.begun.load(Ordering::SeqCst))
    }

    /// Whether none ran then, nor since.
    pub(super) fn undisturbed_since(&self, then: Option<u64>) -> bool {
        then.is_some() && then == self.undisturbed()
    }
}
