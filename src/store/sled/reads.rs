//! A limit on concurrent reads that also detects a read that hangs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A hung disk must not use up the blocking pool, which other tasks need too.
const MOST: usize = 64;

pub(super) struct Reads {
    places: Arc<Semaphore>,
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    all: BTreeMap<u64, Instant>,
    last: u64,
}

/// A running read. It ends on drop, on the thread that reads: its caller may have given up before.
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
    /// Starts a read once a permit is free. Returns `None` if the semaphore is closed.
    pub(super) async fn begin(self: &Arc<Self>) -> Option<Read> {
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let mut active = self.lock();
        active.last += 1;
        let number = active.last;
        active.all.insert(number, Instant::now());
        drop(active);
        Some(Read {
            reads: Arc::clone(self),
            number,
            _place: permit,
        })
    }

    pub(super) fn hang(&self, limit: Duration) -> bool {
        // Keys ascend in the order in which the reads started.
        self.lock()
            .all
            .first_key_value()
            .is_some_and(|(_, started)| started.elapsed() > limit)
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
    async fn stalled_read_is_reported_until_it_returns() {
        let reads = Arc::new(Reads::default());
        let first = reads.begin().await.unwrap();
        drop(reads.begin().await.unwrap());
        assert!(!reads.hang(Duration::from_secs(60)));
        while !reads.hang(Duration::ZERO) {}
        drop(first);
        assert!(!reads.hang(Duration::ZERO));
    }
}
