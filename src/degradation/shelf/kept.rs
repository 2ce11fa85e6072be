//! Which answers are saved, and in what order they were used.
//!
//! The one owner of that: what is known of the keys here changes under the same lock under which the store is told of it, so that the store
//! hears of all changes in the order in which they were decided. So what is saved is known here, and is at no moment more than there may be.

use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;

use super::lock;
use crate::degradation::cache::bounded::Bounded;
use crate::store::{CacheKey, CachedAnswer, Store, StoreError};

/// What was saved under a key when it was looked at: another number once something else was, none while nothing is known to be.
pub(super) type Edition = Option<u64>;

/// A change that is on its way to the store.
pub(super) type Written<'s> = BoxFuture<'s, Result<(), StoreError>>;

/// The keys of the saved answers.
pub(super) struct Kept {
    store: Arc<dyn Store>,
    held: Mutex<Held>,
}

struct Held {
    /// Each key with its edition.
    keys: Bounded<u64>,
    editions: u64,
}

impl Kept {
    /// None yet, of so many at most.
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

    /// To be asked before what is saved under this key is read, by who changes it by what was read.
    pub(super) fn edition(&self, key: &CacheKey) -> Edition {
        self.lock().edition(key)
    }

    /// The key that was used next after this use, and that use: see [`Bounded::used_after`].
    pub(super) fn used_after(&self, last: u64) -> Option<(u64, CacheKey)> {
        self.lock().keys.used_after(last)
    }

    /// From now on so many at most.
    pub(super) fn set_most(&self, most: usize) {
        let mut held = self.lock();
        let gone = held.keys.set_most(most);
        self.leave(gone);
    }

    /// These are saved, the last one used last. What is too much goes.
    pub(super) fn found(&self, keys: Vec<CacheKey>) {
        let mut held = self.lock();
        let gone = keys
            .into_iter()
            .filter_map(|key| held.used(key, None))
            .collect();
        self.leave(gone);
    }

    /// Saves an answer; what has to go for it goes before.
    pub(super) fn save(&self, key: CacheKey, answer: CachedAnswer) -> Written<'_> {
        let mut held = self.lock();
        let edition = held.next();
        self.leave(held.used(key, Some(edition)).into_iter().collect());
        self.store.write_cached(key, answer)
    }

    /// An answer that was read was used, and is to be `changed` where it is given; nothing happens where another was saved since.
    pub(super) fn used(&self, key: CacheKey, read: Edition, changed: Option<CachedAnswer>) {
        let mut held = self.lock();
        if held.edition(&key) == read {
            self.leave(held.used(key, None).into_iter().collect());
            if let Some(changed) = changed {
                drop(self.store.write_cached(key, changed));
            }
        }
    }

    /// Removes an answer that was read; none where another was saved since.
    pub(super) fn remove(&self, key: CacheKey, read: Edition) -> Option<Written<'_>> {
        let mut held = self.lock();
        if held.edition(&key) != read {
            return None;
        }
        held.keys.remove(&key);
        Some(self.store.remove_cached(vec![key]))
    }

    /// Removes what is saved under these keys.
    pub(super) fn remove_all(&self, keys: &[CacheKey]) -> Written<'_> {
        let mut held = self.lock();
        keys.iter().for_each(|key| held.keys.remove(key));
        self.store.remove_cached(keys.to_vec())
    }

    /// These are on their way out. To be called under the lock.
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

    /// Notes the use of a key, and its edition where it is another; gives the key that has to go for it.
    fn used(&mut self, key: CacheKey, edition: Option<u64>) -> Option<CacheKey> {
        let known = self.edition(&key);
        let edition = edition.or(known).unwrap_or_else(|| self.next());
        let (held, gone) = self.keys.used(key);
        *held = edition;
        gone
    }
}
