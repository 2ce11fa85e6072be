//! Reads of saved answers, and the probe that checks whether they can be read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::AnswerCache;
use super::lru::EntryVersion;
use crate::store::{CacheKey, CachedAnswer};

/// The time after which a probe counts as hanging.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A key that no question hashes to. The probe reads it while the cache is empty.
const PROBE_KEY: CacheKey = CacheKey([0; 32]);

/// Held while a probe waits for the store, even after its caller has given up.
///
/// The value is the use number of the entry probed last.
pub(crate) type ProbeLock = Arc<Mutex<u64>>;

pub(crate) struct StoredAnswer {
    pub(crate) key: CacheKey,
    /// The version before the read, for changes that depend on it.
    pub(crate) version: EntryVersion,
    pub(crate) answer: CachedAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheProbeError {
    Timeout,
    Failed,
}

impl AnswerCache {
    /// Reads one saved answer and returns how long that took. Returns zero if the cache is
    /// disabled.
    ///
    /// Each call reads the next entry in order of last use, so that a probe does not always hit an
    /// entry that the store holds in memory. At most one probe is in flight: a disk that does not
    /// answer blocks a single read.
    ///
    /// # Errors
    /// `Timeout` if the read, an earlier probe or another read of the store hangs, `Failed` if the
    /// store reports an error.
    pub async fn probe(&self) -> Result<Duration, CacheProbeError> {
        if !self.policy().settings.enabled {
            return Ok(Duration::ZERO);
        }
        let probe_lock = Arc::clone(&self.probe_lock).try_lock_owned();
        let Some(mut last) = probe_lock.ok().filter(|_| !self.store.is_stalled()) else {
            return Err(CacheProbeError::Timeout);
        };
        let (used, key) = self.index.next_after(*last).unwrap_or((0, PROBE_KEY));
        *last = used;
        let store = Arc::clone(&self.store);
        let started_at = Instant::now();
        let read = tokio::spawn(async move {
            let read = store.get_answer(key).await;
            drop(last);
            read.is_ok()
        });
        match timeout(PROBE_TIMEOUT, read).await {
            Ok(Ok(true)) => Ok(started_at.elapsed()),
            Ok(Ok(false) | Err(_)) => Err(CacheProbeError::Failed),
            Err(_) => Err(CacheProbeError::Timeout),
        }
    }

    /// Reads one entry. Skips the store if the index is complete and lacks the key.
    pub(crate) async fn read_entry(&self, key: Option<CacheKey>) -> Option<StoredAnswer> {
        let key = key?;
        let edition = self.index.version(&key);
        if edition.is_none() && self.is_index_complete.load(Ordering::Relaxed) {
            return None;
        }
        let answer = self.store.get_answer(key).await.ok()??;
        Some(StoredAnswer {
            key,
            version: edition,
            answer,
        })
    }
}
