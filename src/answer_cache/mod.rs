//! The answer cache: looks saved answers up in the store and saves new ones.
//!
//! A store that fails or is slow costs cache hits, never a turn: the cache then behaves as if it
//! were empty.
//!
//! In reading order: `place` (the keys of a question), this file (lookup), `saving` (insertion and
//! removal), `kept` (the index of keys, and the order of store writes), `ahead` (refresh and
//! warming), `drills` (pausing the cache), `look` (reads, and the health probe).

mod lru;
mod pause;
mod probe;
mod refresh;
mod saving;
mod slot;

use parking_lot::{Mutex, MutexGuard, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join;

use self::lru::{EntryVersion, LruIndex};
use self::pause::CachePause;
use self::probe::{ProbeLock, StoredAnswer};
use super::answer_cache::policy::freshness::{Freshness, freshness};
use super::answer_cache::policy::lru_map::LruMap;
use super::answer_cache::policy::{pii, sharing};
use crate::config::CacheSettings;
use crate::domain::Timestamp;
use crate::store::{CacheKey, CachedAnswer, Store};

pub use self::probe::CacheProbeError;
pub use self::refresh::RefreshJob;
pub use self::slot::{CacheSlot, QuestionContext};

pub const CACHE_READ_TIMEOUT: Duration = Duration::from_millis(50);

/// The time limit of listing the saved keys, and of removing one batch of them.
const BULK_TIMEOUT: Duration = Duration::from_secs(5);

pub struct AnswerCache {
    store: Arc<dyn Store>,
    policy: RwLock<Arc<CachePolicy>>,
    index: LruIndex,
    /// The index has every key of the store, so a key it lacks need not be read.
    is_index_complete: AtomicBool,
    /// Fingerprints of the conversations that asked a question, up to `cache.repeated_min` of them.
    askers: Mutex<LruMap<Vec<u64>>>,
    pause_state: CachePause,
    probe_lock: ProbeLock,
}

struct CachePolicy {
    settings: CacheSettings,
    /// Part of every key: answers given under another prompt are not found.
    system_prompt: Arc<str>,
}

/// A saved answer that is fresh enough for the caller.
#[derive(Clone, Debug)]
pub struct CacheHit {
    pub answer: CachedAnswer,
    pub key: CacheKey,
    version: EntryVersion,
    pub age: Duration,
    /// The answer is past its TTL: serve it, and refresh it in the background.
    pub needs_refresh: bool,
}

/// The oldest answer that a lookup may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedAge {
    /// To spare a call: the answer is within its TTL or the `revalidate` time after it.
    FreshOnly,
    /// No provider can answer: the answer may be older, up to `stale_for`.
    StaleAllowed,
}

impl AnswerCache {
    pub fn new(store: Arc<dyn Store>, settings: CacheSettings, system_prompt: Arc<str>) -> Self {
        let kept = LruIndex::new(Arc::clone(&store), settings.max_entries);
        let askers = Mutex::new(LruMap::new(settings.max_entries));
        let terms = RwLock::new(Arc::new(CachePolicy {
            settings,
            system_prompt,
        }));
        Self {
            store,
            policy: terms,
            index: kept,
            is_index_complete: AtomicBool::default(),
            askers,
            pause_state: CachePause::default(),
            probe_lock: ProbeLock::default(),
        }
    }

    fn policy(&self) -> Arc<CachePolicy> {
        Arc::clone(&self.policy.read())
    }

    /// Replaces the settings and the system prompt.
    ///
    /// Loads the index if this enables the cache.
    pub async fn set_policy(&self, settings: CacheSettings, system_prompt: Arc<str>) {
        let enabled = settings.enabled;
        let max_entries = settings.max_entries;
        let terms = Arc::new(CachePolicy {
            settings,
            system_prompt,
        });
        let previous = std::mem::replace(&mut *self.policy.write(), terms);
        drop(lock(&self.askers).set_capacity(max_entries));
        self.index.set_capacity(max_entries);
        if enabled && !previous.settings.enabled {
            self.load().await;
        }
    }

    /// Loads the index of saved answers and evicts down to `cache.max_entries`.
    ///
    /// Call once, before the first turn. Does nothing if the cache is disabled.
    pub async fn load(&self) {
        if !self.policy().settings.enabled {
            return;
        }
        // Compile the patterns now, so that the first visitor does not wait for it.
        pii::detect("");
        match tokio::time::timeout(BULK_TIMEOUT, self.store.answer_keys()).await {
            Ok(Ok(keys)) => {
                self.index.add_existing(keys);
                // Other instances may write to a shared store, so a missing key proves nothing.
                self.is_index_complete
                    .store(!self.store.is_shared(), Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => tracing::warn!("failed to load the answer cache index"),
        }
    }

    /// Returns the youngest acceptable answer, or `None` if the store takes longer than 50 ms.
    pub async fn get(
        &self,
        place: &CacheSlot,
        need: AcceptedAge,
        now: Timestamp,
    ) -> Option<CacheHit> {
        let terms = self.policy();
        // The conversation's own answer may depend on its history. It serves as a fresh answer only
        // if neither this question nor the saved one had any.
        let own = async {
            let found = self
                .read_entry(
                    Some(place.conversation_key)
                        .filter(|_| place.is_context_free || need == AcceptedAge::StaleAllowed),
                )
                .await?;
            let fits = need == AcceptedAge::StaleAllowed || found.answer.is_context_free;
            Some(found).filter(|_| fits)
        };
        let shared = async {
            let found = self.read_entry(place.shared_key).await?;
            let may_share = sharing::may_share(&found.answer, place.asker_count, &terms.settings);
            Some(found).filter(|_| may_share)
        };
        let (own, shared) = tokio::time::timeout(CACHE_READ_TIMEOUT, join(own, shared))
            .await
            .ok()?;
        let found = [own, shared].into_iter().flatten().filter_map(
            |StoredAnswer {
                 key,
                 version: edition,
                 answer,
             }| {
                let old = now.since(answer.saved_at);
                let age = freshness(old, &terms.settings);
                let is_acceptable = match need {
                    AcceptedAge::FreshOnly => {
                        matches!(age, Freshness::Fresh | Freshness::StaleWhileRevalidate)
                    }
                    AcceptedAge::StaleAllowed => age != Freshness::Expired,
                };
                is_acceptable.then_some(CacheHit {
                    answer,
                    key,
                    version: edition,
                    age: old,
                    needs_refresh: age == Freshness::StaleWhileRevalidate,
                })
            },
        );
        let found = found.min_by_key(|found| found.age)?;
        self.touch(&found, place);
        Some(found)
    }

    /// Marks an answer as used and saves its asker count if that has grown.
    fn touch(&self, found: &CacheHit, place: &CacheSlot) {
        let has_more_askers =
            Some(found.key) == place.shared_key && found.answer.asker_count < place.asker_count;
        let changed = has_more_askers.then(|| CachedAnswer {
            asker_count: place.asker_count,
            ..found.answer.clone()
        });
        self.index.touch(found.key, found.version, changed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

pub mod policy;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
