//! How saved answers are read; and a look whether they can be, in the way of a turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Shelf;
use super::kept::Edition;
use crate::store::{CacheKey, CachedAnswer};

/// How long a look may take before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looked for where nothing is saved.
const NOBODYS: CacheKey = CacheKey([0; 32]);

/// The look that is under way: taken for as long as the store is asked, also where nobody waits for that any more. In it the use of what was
/// looked at.
pub(super) type Looks = Arc<Mutex<u64>>;

/// A saved answer as it was read.
pub(super) struct Saved {
    pub(super) key: CacheKey,
    /// For who changes it by what was read.
    pub(super) edition: Edition,
    pub(super) answer: CachedAnswer,
}

/// Why no saved answer was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The store does not answer.
    Hangs,
    /// It says that it cannot.
    Failed,
}

impl Shelf {
    /// Reads one saved answer, each time the next in the order of their last use, as one alone would come to lie in memory; where none is saved, it
    /// looks for one. Gives how long that took, which is nothing where nothing is to be saved. While an earlier look hangs, or another read of the
    /// store, no other is begun: a disk that does not answer holds one look, and no more.
    ///
    /// # Errors
    /// Why not.
    pub async fn look(&self) -> Result<Duration, Unread> {
        if !self.terms().settings.enabled {
            return Ok(Duration::ZERO);
        }
        let looking = Arc::clone(&self.looks).try_lock_owned();
        let Some(mut last) = looking.ok().filter(|_| !self.store.hangs()) else {
            return Err(Unread::Hangs);
        };
        let (used, key) = self.kept.used_after(*last).unwrap_or((0, NOBODYS));
        *last = used;
        let (store, begun) = (Arc::clone(&self.store), Instant::now());
        let read = tokio::spawn(async move {
            let read = store.cached(key).await;
            drop(last);
            read.is_ok()
        });
        match timeout(PATIENCE, read).await {
            Ok(Ok(true)) => Ok(begun.elapsed()),
            Ok(Ok(false) | Err(_)) => Err(Unread::Failed),
            Err(_) => Err(Unread::Hangs),
        }
    }

    /// What is saved under this key. Where it is known that nothing is, the store is not asked.
    pub(super) async fn read(&self, key: Option<CacheKey>) -> Option<Saved> {
        let key = key?;
        let edition = self.kept.edition(&key);
        if edition.is_none() && self.all_known.load(Ordering::Relaxed) {
            return None;
        }
        let answer = self.store.cached(key).await.ok()??;
        Some(Saved {
            key,
            edition,
            answer,
        })
    }
}
