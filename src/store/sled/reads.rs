//! Reads under way: so many at once, each known by when it began, so that one that hangs is seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads under way at once. A hung disk must not eat the blocking pool, which others need too.
const MOST: usize = 64;

/// The reads of a store.
pub(super) struct Reads {
    places: Arc<Semaphore>,
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    all: BTreeMap<u64, Instant>,
    last: u64,
}

/// A read under way. It ends where it is dropped, which is on the thread that reads: nobody may wait for it any more.
pub(super) struct Read {
    reads: Arc<Reads>,
    number: u64,
    _place: OwnedSemaphorePermit,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST)),
            begun: Mutex::default(),
        }
    }
}

impl Reads {
    /// Begins one as soon as there is a place; none where there will be none any more.
    pub(super) async fn begin(self: &Arc<Self>) -> Option<Read> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let mut begun = self.lock();
        begun.last += 1;
        let number = begun.last;
        begun.all.insert(number, Instant::now());
        drop(begun);
        Some(Read {
            reads: Arc::clone(self),
            number,
            _place: place,
        })
    }

    /// Whether one has been under way for longer than this.
    pub(super) fn hang(&self, limit: Duration) -> bool {
        // They are in the order in which they began.
        self.lock()
            .all
            .first_key_value()
            .is_some_and(|(_, begun)| begun.elapsed() > limit)
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.reads.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_hangs_is_seen_until_it_is_back() {
        let reads = Arc::new(Reads::default());
        let first = reads.begin().await.unwrap();
        drop(reads.begin().await.unwrap());
        assert!(!reads.hang(Duration::from_secs(60)));
        while !reads.hang(Duration::ZERO) {}
        drop(first);
        assert!(!reads.hang(Duration::ZERO));
    }
}
