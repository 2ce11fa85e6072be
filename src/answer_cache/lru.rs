//! The index of saved answers: their keys in order of last use.
//!
//! The index changes under the same lock under which the write is handed to the store, so the store
//! gets all changes in the order of the index. The number of saved answers never exceeds the
//! capacity.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use futures_util::future::BoxFuture;

use super::lock;
use crate::answer_cache::policy::lru_map::LruMap;
use crate::store::{CacheKey, CachedAnswer, Store, StoreError};

/// The version of an entry when it was read. Each save makes a new one. `None` if the index does
/// not know the key.
pub(crate) type EntryVersion = Option<u64>;

pub(crate) type PendingWrite<'s> = BoxFuture<'s, Result<(), StoreError>>;

pub(crate) struct LruIndex {
    store: Arc<dyn Store>,
    state: Mutex<IndexState>,
}

struct IndexState {
    keys: LruMap<u64>,
    last_version: u64,
}

impl LruIndex {
    pub(crate) fn new(store: Arc<dyn Store>, most: usize) -> Self {
        Self {
            store,
            state: Mutex::new(IndexState {
                keys: LruMap::new(most),
                last_version: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, IndexState> {
        lock(&self.state)
    }

    /// Returns the version of an entry. Ask before reading it, if the result is to change it.
    pub(crate) fn version(&self, key: &CacheKey) -> EntryVersion {
        self.lock().version(key)
    }

    pub(crate) fn next_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        self.lock().keys.next_after(last)
    }

    pub(crate) fn set_capacity(&self, most: usize) {
        let mut held = self.lock();
        let gone = held.keys.set_capacity(most);
        self.evict(gone);
    }

    /// Adds keys found in the store, in order of last use, and evicts those beyond the capacity.
    pub(crate) fn add_existing(&self, keys: Vec<CacheKey>) {
        let mut held = self.lock();
        let gone = keys
            .into_iter()
            .filter_map(|key| held.touch(key, None))
            .collect();
        self.evict(gone);
    }

    /// Saves an answer, after evicting the least recently used one if there is no space.
    pub(crate) fn put(&self, key: CacheKey, answer: CachedAnswer) -> PendingWrite<'_> {
        let mut held = self.lock();
        let edition = held.next_version();
        self.evict(held.touch(key, Some(edition)).into_iter().collect());
        self.store.put_answer(key, answer)
    }

    /// Marks an answer as used and saves `changed`, if given. Does nothing if the entry has changed
    /// since it was read.
    pub(crate) fn touch(&self, key: CacheKey, read: EntryVersion, changed: Option<CachedAnswer>) {
        let mut held = self.lock();
        if held.version(&key) == read {
            self.evict(held.touch(key, None).into_iter().collect());
            if let Some(changed) = changed {
                drop(self.store.put_answer(key, changed));
            }
        }
    }

    /// Removes an entry. Returns `None` if it has changed since it was read.
    pub(crate) fn remove_if_unchanged(
        &self,
        key: CacheKey,
        read: EntryVersion,
    ) -> Option<PendingWrite<'_>> {
        let mut held = self.lock();
        if held.version(&key) != read {
            return None;
        }
        held.keys.remove(&key);
        Some(self.store.remove_answers(vec![key]))
    }

    pub(crate) fn remove_all(&self, keys: &[CacheKey]) -> PendingWrite<'_> {
        let mut held = self.lock();
        keys.iter().for_each(|key| held.keys.remove(key));
        self.store.remove_answers(keys.to_vec())
    }

    /// Removes evicted entries from the store. The caller holds the lock.
    fn evict(&self, gone: Vec<CacheKey>) {
        if !gone.is_empty() {
            drop(self.store.remove_answers(gone));
        }
    }
}

impl IndexState {
    fn version(&self, key: &CacheKey) -> EntryVersion {
        self.keys.get(key).copied()
    }

    fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    /// Marks a key as used and sets its version if given. Returns the key evicted for it.
    fn touch(&mut self, key: CacheKey, edition: Option<u64>) -> Option<CacheKey> {
        let known = self.version(&key);
        let edition = edition.or(known).unwrap_or_else(|| self.next_version());
        let (held, gone) = self.keys.touch(key);
        *held = edition;
        gone
    }
}
