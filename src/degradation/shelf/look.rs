//! Reads of saved answers, and the probe that checks whether they can be read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Shelf;
use super::kept::Edition;
use crate::store::{CacheKey, CachedAnswer};

/// The time after which a probe counts as hanging.
const PATIENCE: Duration = Duration::from_secs(1);

/// A key that no question hashes to. The probe reads it while the cache is empty.
const NOBODYS: CacheKey = CacheKey([0; 32]);

/// Held while a probe waits for the store, even after its caller has given up.
///
/// The value is the use number of the entry probed last.
pub(super) type Looks = Arc<Mutex<u64>>;

pub(super) struct Saved {
    pub(super) key: CacheKey,
    /// The version before the read, for changes that depend on it.
    pub(super) edition: Edition,
    pub(super) answer: CachedAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    Hangs,
    Failed,
}

impl Shelf {
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
    pub async fn look(&self) -> Result<Duration, Unread> {
        if !self.terms().settings.enabled {
            return Ok(Duration::ZERO);
        }
        let probe_lock = Arc::clone(&self.looks).try_lock_owned();
        let Some(mut last) = probe_lock.ok().filter(|_| !self.store.hangs()) else {
            return Err(Unread::Hangs);
        };
        let (used, key) = self.kept.used_after(*last).unwrap_or((0, NOBODYS));
        *last = used;
        let store = Arc::clone(&self.store);
        let started_at = Instant::now();
        let read = tokio::spawn(async move {
            let read = store.cached(key).await;
            drop(last);
            read.is_ok()
        });
        match timeout(PATIENCE, read).await {
            Ok(Ok(true)) => Ok(started_at.elapsed()),
            Ok(Ok(false) | Err(_)) => Err(Unread::Failed),
            Err(_) => Err(Unread::Hangs),
        }
    }

    /// Reads one entry. Skips the store if the index is complete and lacks the key.
    pub(super) async fn read(&self, key: Option<CacheKey>) -> Option<Saved> {
        let key = key?;
        let version = self.kept.edition(&key);
        if version.is_none() && self.all_known.load(Ordering::Relaxed) {
            return None;
        }
        let answer = self.store.cached(key).await.ok()??;
        Some(Saved {
            key,
            edition: version,
            answer,
        })
    }
}
