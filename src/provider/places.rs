//! Places: how many calls to a provider, or turns, are under way. They outlive whoever hands them out, and how many there may be can change at any
//! time, also to fewer than are taken (which a semaphore's permits cannot).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many are under way.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicUsize,
    none: Notify,
}

/// A place that is taken; free again when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// One more place, where fewer than `most` are taken.
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Place> {
        let more = |taken: usize| (taken < most).then(|| taken + 1);
        let took = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        took.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Waits until none is taken.
    pub async fn none_taken(&self) {
        loop {
            // Made before the look, it hears of what comes after.
            let none = self.none.notified();
            if self.taken() == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

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

    #[tokio::test]
    async fn who_waits_is_told_when_none_is_taken() {
        let places = Arc::new(Places::default());
        places.none_taken().await;
        let (one, other) = (places.take(2), places.take(2));
        let mut waiting = pin!(places.none_taken());
        assert!((&mut waiting).now_or_never().is_none());
        drop(one);
        assert!((&mut waiting).now_or_never().is_none());
        drop(other);
        let again = places.take(2);
        assert!((&mut waiting).now_or_never().is_none(), "it is taken again");
        drop(again);
        waiting.await;
    }
}
