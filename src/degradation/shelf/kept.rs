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
    pub(super) fn new(store: Arc<dyn Store>, most: usize) -> Self {
        Self {
            store,
            held: Mutex::new(Held {
                keys: Bounded::new(most),
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

    pub(super) fn set_most(&self, most: usize) {
        let mut held = self.lock();
        let gone = held.keys.set_most(most);
        self.leave(gone);
    }

    /// Adds keys found in the store, in order of last use, and evicts those beyond the capacity.
    pub(super) fn found(&self, keys: Vec<CacheKey>) {
        let mut held = self.lock();
        let gone = keys
            .into_iter()
            .filter_map(|key| held.used(key, None))
            .collect();
        self.leave(gone);
    }

    /// Saves an answer, after evicting the least recently used one if there is no space.
    pub(super) fn save(&self, key: CacheKey, answer: CachedAnswer) -> Written<'_> {
        let mut held = self.lock();
        let edition = held.next();
        self.leave(held.used(key, Some(edition)).into_iter().collect());
        self.store.write_cached(key, answer)
    }

    /// Marks an answer as used and saves `changed`, if given. Does nothing if the entry has changed
    /// since it was read.
    pub(super) fn used(&self, key: CacheKey, read: Edition, changed: Option<CachedAnswer>) {
        let mut held = self.lock();
        if held.edition(&key) == read {
            self.leave(held.used(key, None).into_iter().collect());
            if let Some(changed) = changed {
                drop(self.store.write_cached(key, changed));
            }
        }
    }

    /// Removes an entry. Returns `None` if it has changed since it was read.
    pub(super) fn remove(&self, key: CacheKey, read: Edition) -> Option<Written<'_>> {
        let mut held = self.lock();
        if held.edition(&key) != read {
            return None;
        }
        held.keys.remove(&key);
        Some(self.store.remove_cached(vec![key]))
    }

    pub(super) fn remove_all(&self, keys: &[CacheKey]) -> Written<'_> {
        let mut held = self.lock();
        keys.iter().for_each(|key| held.keys.remove(key));
        self.store.remove_cached(keys.to_vec())
    }

    /// Removes evicted entries from the store. The caller holds the lock.
    fn leave(&self, gone: Vec<CacheKey>) {
        if !gone.is_empty() {
            drop(self.store.remove_cached(gone));
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
    fn used(&mut self, key: CacheKey, edition: Option<u64>) -> Option<CacheKey> {
        let known = self.edition(&key);
        let edition = edition.or(known).unwrap_or_else(|| self.next());
        let (held, gone) = self.keys.used(key);
        *held = edition;
        gone
    }
}
