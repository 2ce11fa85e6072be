//! The store of answers, and the index of its keys in order of last use.
//!
//! The index changes under the same lock under which the write is handed to the store, so the store
//! gets all changes in the order of the index. The number of saved answers never exceeds the
//! capacity.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::lru_map::LruMap;
use crate::store::{CacheKey, CachedAnswer, Store, StoreError};

/// The version of an entry when it was read. Each save makes a new one. `None` if the index did not
/// know the key.
pub(super) type EntryVersion = Option<u64>;

type PendingWrite<'s> = BoxFuture<'s, Result<(), StoreError>>;

/// An answer as it was read from the store.
pub(super) struct StoredAnswer {
    pub(super) key: CacheKey,
    /// The version before the read, for changes that depend on it.
    pub(super) version: EntryVersion,
    pub(super) answer: CachedAnswer,
}

pub(super) struct IndexedStore {
    pub(super) store: Arc<dyn Store>,
    index: Mutex<LruIndex>,
}

struct LruIndex {
    versions: LruMap<u64>,
    last_version: u64,
    /// The index has every key of the store, so a key it lacks need not be read.
    is_complete: bool,
}

impl LruIndex {
    fn version(&self, key: &CacheKey) -> EntryVersion {
        self.versions.get(key).copied()
    }

    /// Marks a key as used. Its version is a new one if `is_saved`, or if the key was unknown.
    /// Returns the key evicted for it.
    fn touch(&mut self, key: CacheKey, is_saved: bool) -> Option<CacheKey> {
        let (version, evicted) = self.versions.touch(key);
        if is_saved || *version == 0 {
            self.last_version += 1;
            *version = self.last_version;
        }
        evicted
    }
}

impl IndexedStore {
    pub(super) fn new(store: Arc<dyn Store>, capacity: usize) -> Self {
        let index = Mutex::new(LruIndex {
            versions: LruMap::new(capacity),
            last_version: 0,
            is_complete: false,
        });
        Self { store, index }
    }

    pub(super) fn next_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        self.index.lock().versions.next_after(last)
    }

    pub(super) fn set_capacity(&self, capacity: usize) {
        let mut index = self.index.lock();
        self.remove_evicted(index.versions.set_capacity(capacity));
    }

    /// Adds all keys of the store, in order of last use, and evicts those beyond the capacity.
    pub(super) async fn load(&self) -> Result<(), StoreError> {
        let keys = self.store.answer_keys().await?;
        let mut index = self.index.lock();
        let evicted = keys.into_iter().filter_map(|key| index.touch(key, false));
        self.remove_evicted(evicted.collect());
        // Other instances may write to a shared store, so a missing key proves nothing.
        index.is_complete = !self.store.is_shared();
        Ok(())
    }

    /// Reads one entry. Skips the store if the index is complete and lacks the key.
    pub(super) async fn read(&self, key: Option<CacheKey>) -> Option<StoredAnswer> {
        let key = key?;
        let version = {
            let index = self.index.lock();
            let version = index.version(&key);
            if version.is_none() && index.is_complete {
                return None;
            }
            version
        };
        let answer = self.store.get_answer(key).await.ok()??;
        Some(StoredAnswer {
            key,
            version,
            answer,
        })
    }

    /// Saves an answer, after evicting the least recently used one if there is no space.
    pub(super) fn put(&self, key: CacheKey, answer: CachedAnswer) -> PendingWrite<'_> {
        let mut index = self.index.lock();
        self.remove_evicted(index.touch(key, true).into_iter().collect());
        self.store.put_answer(key, answer)
    }

    /// Marks an answer as used and saves `changed`, if given. Does nothing if the entry has changed
    /// since it was read.
    pub(super) fn touch(&self, key: CacheKey, read: EntryVersion, changed: Option<CachedAnswer>) {
        let mut index = self.index.lock();
        if index.version(&key) == read {
            self.remove_evicted(index.touch(key, false).into_iter().collect());
            if let Some(changed) = changed {
                drop(self.store.put_answer(key, changed));
            }
        }
    }

    /// Removes an entry. Returns `None` if it has changed since it was read.
    pub(super) fn remove_if_unchanged(
        &self,
        key: CacheKey,
        read: EntryVersion,
    ) -> Option<PendingWrite<'_>> {
        let mut index = self.index.lock();
        (index.version(&key) == read).then(|| {
            index.versions.remove(&key);
            self.store.remove_answers(vec![key])
        })
    }

    pub(super) fn remove_all(&self, keys: &[CacheKey]) -> PendingWrite<'_> {
        let mut index = self.index.lock();
        keys.iter().for_each(|key| index.versions.remove(key));
        self.store.remove_answers(keys.to_vec())
    }

    /// Removes evicted entries from the store. The caller holds the lock.
    fn remove_evicted(&self, keys: Vec<CacheKey>) {
        if !keys.is_empty() {
            drop(self.store.remove_answers(keys));
        }
    }
}
