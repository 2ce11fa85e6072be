//! The index of saved answers: their keys in order of last use.
//!
//! The index changes under the same lock under which the write is handed to the store, so the store
//! gets all changes in the order of the index. The number of saved answers never exceeds the
//! capacity.

use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;

use super::lock;
use crate::degradation::cache::bounded::Bounded;
use crate::store::{CacheKey, CachedAnswer, Store, StoreError};

/// The version of an entry when it was read. Each save makes a new one. `None` if the index does
/// not know the key.
pub(super) type Edition = Option<u64>;

pub(super) type Written<'s> = BoxFuture<'s, Result<(), StoreError>>;

pub(super) struct Kept {
    store: Arc<dyn Store>,
    held: Mutex<Held>,
}

struct Held {
    keys: Bounded<u64>,
    editions: u64,
}

impl Kept {
    pub(super) fn new(store: Arc<dyn Store>, capacity: usize) -> Self {
        Self {
            store,
            held: Mutex::new(Held {
                keys: Bounded::new(capacity),
                editions: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    /// Returns the version of an entry. Ask before reading it, if the result is to change it.
    pub(super) fn edition(&self, key: &CacheKey) -> Edition {
        self.lock().edition(key)
    }

    pub(super) fn used_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        self.lock().keys.used_after(last)
    }

    pub(super) fn set_most(&self, capacity: usize) {
        let mut state = self.lock();
        let evicted = state.keys.set_most(capacity);
        self.leave(evicted);
    }

    /// Adds keys found in the store, in order of last use, and evicts those beyond the capacity.
    pub(super) fn found(&self, keys: Vec<CacheKey>) {
        let mut state = self.lock();
        let evicted = keys
            .into_iter()
            .filter_map(|key| state.used(key, None))
            .collect();
        self.leave(evicted);
    }

    /// Saves an answer, after evicting the least recently used one if there is no space.
    pub(super) fn save(&self, key: CacheKey, answer: CachedAnswer) -> Written<'_> {
        let mut state = self.lock();
        let version = state.next();
        self.leave(state.used(key, Some(version)).into_iter().collect());
        self.store.write_cached(key, answer)
    }

    /// Marks an answer as used and saves `changed`, if given. Does nothing if the entry has changed
    /// since it was read.
    pub(super) fn used(
        &self,
        key: CacheKey,
        expected_version: Edition,
        changed: Option<CachedAnswer>,
    ) {
        let mut state = self.lock();
        if state.edition(&key) == expected_version {
            self.leave(state.used(key, None).into_iter().collect());
            if let Some(changed) = changed {
                drop(self.store.write_cached(key, changed));
            }
        }
    }

    /// Removes an entry. Returns `None` if it has changed since it was read.
    pub(super) fn remove(&self, key: CacheKey, expected_version: Edition) -> Option<Written<'_>> {
        let mut state = self.lock();
        if state.edition(&key) != expected_version {
            return None;
        }
        state.keys.remove(&key);
        Some(self.store.remove_cached(vec![key]))
    }

    pub(super) fn remove_all(&self, keys: &[CacheKey]) -> Written<'_> {
        let mut state = self.lock();
        keys.iter().for_each(|key| state.keys.remove(key));
        self.store.remove_cached(keys.to_vec())
    }

    /// Removes evicted entries from the store. The caller holds the lock.
    fn leave(&self, evicted: Vec<CacheKey>) {
        if !evicted.is_empty() {
            drop(self.store.remove_cached(evicted));
        }
    }
}

impl Held {
    fn edition(&self, key: &CacheKey) -> Edition {
        self.keys.get(key).copied()
    }

    fn next(&mut self) -> u64 {
        self.editions += 1;
        self.editions
    }

    /// Marks a key as used and sets its version if given. Returns the key evicted for it.
    fn used(&mut self, key: CacheKey, version: Option<u64>) -> Option<CacheKey> {
        let known = self.edition(&key);
        let version = version.or(known).unwrap_or_else(|| self.next());
        let (stored_version, evicted) = self.keys.used(key);
        *stored_version = version;
        evicted
    }
}
