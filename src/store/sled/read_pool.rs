//! A limit on concurrent reads that also detects a read that hangs.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A hung disk must not use up the blocking pool, which other tasks need too.
const MAX_CONCURRENT_READS: usize = 64;

pub(super) struct ReadPool {
    permits: Arc<Semaphore>,
    active: Mutex<ActiveReads>,
}

#[derive(Default)]
struct ActiveReads {
    started: BTreeMap<u64, Instant>,
    last_id: u64,
}

/// A running read. It ends on drop, on the thread that reads: its caller may have given up before.
pub(super) struct ReadGuard {
    pool: Arc<ReadPool>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Default for ReadPool {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_READS)),
            active: Mutex::default(),
        }
    }
}

impl ReadPool {
    /// Starts a read once a permit is free. Returns `None` if the semaphore is closed.
    pub(super) async fn start(self: &Arc<Self>) -> Option<ReadGuard> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let mut active = self.active.lock();
        active.last_id += 1;
        let number = active.last_id;
        active.started.insert(number, Instant::now());
        drop(active);
        Some(ReadGuard {
            pool: Arc::clone(self),
            id: number,
            _permit: permit,
        })
    }

    pub(super) fn is_stalled(&self, limit: Duration) -> bool {
        // Keys ascend in the order in which the reads started.
        self.active
            .lock()
            .started
            .first_key_value()
            .is_some_and(|(_, started)| started.elapsed() > limit)
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        self.pool.active.lock().started.remove(&self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stalled_read_is_reported_until_it_returns() {
        let reads = Arc::new(ReadPool::default());
        let first = reads.start().await.unwrap();
        drop(reads.start().await.unwrap());
        assert!(!reads.is_stalled(Duration::from_secs(60)));
        while !reads.is_stalled(Duration::ZERO) {}
        drop(first);
        assert!(!reads.is_stalled(Duration::ZERO));
    }
}
