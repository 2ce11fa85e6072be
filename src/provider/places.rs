//! A provider's places: how many calls to it are under way. They outlive its actor, and how many there may be can change at any time, also to fewer
//! than are taken (which a semaphore's permits cannot).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many calls are under way.
#[derive(Debug, Default)]
pub struct Places(AtomicUsize);

/// One call's place; free again when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// One more place, where fewer than `most` are taken.
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Place> {
        let more = |taken: usize| (taken < most).then(|| taken + 1);
        let took = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        took.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_may_change_to_fewer_than_are_taken() {
        let places = Arc::new(Places::default());
        let mut taken: Vec<_> = (0..4).map_while(|_| places.take(3)).collect();
        assert_eq!((taken.len(), places.taken()), (3, 3));
        assert!(places.take(1).is_none());
        taken.truncate(1);
        assert!(places.take(1).is_none(), "one is taken still");
        assert!(places.take(2).is_some(), "and given back at once");
        taken.clear();
        assert_eq!(places.taken(), 0);
    }
}
