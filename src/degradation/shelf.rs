//! The answer cache: looks saved answers up in the store and saves new ones.
//!
//! A store that fails or is slow costs cache hits, never a turn: the cache then behaves as if it
//! were empty.
//!
//! In reading order: `place` (the keys of a question), this file (lookup), `saving` (insertion and
//! removal), `kept` (the index of keys, and the order of store writes), `ahead` (refresh and
//! warming), `drills` (pausing the cache), `look` (reads, and the health probe).

mod ahead;
mod drills;
mod kept;
mod look;
mod place;
mod saving;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join;

use self::drills::Drills;
use self::kept::{Edition, Kept};
use self::look::{Looks, Saved};
use super::cache::age::{Age, age};
use super::cache::bounded::Bounded;
use super::cache::{personal, sharing};
use crate::chat::At;
use crate::settings::CacheSettings;
use crate::store::{CacheKey, CachedAnswer, Store};

pub use self::ahead::Renewal;
pub use self::look::Unread;
pub use self::place::{Asker, Place};

pub const READ_LIMIT: Duration = Duration::from_millis(50);

/// The time limit of listing the saved keys, and of removing one batch of them.
const START_LIMIT: Duration = Duration::from_secs(5);

pub struct Shelf {
    store: Arc<dyn Store>,
    terms: RwLock<Arc<Terms>>,
    kept: Kept,
    /// The index has every key of the store, so a key it lacks need not be read.
    all_known: AtomicBool,
    /// Fingerprints of the conversations that asked a question, up to `cache.repeated_min` of them.
    askers: Mutex<Bounded<Vec<u64>>>,
    drills: Drills,
    looks: Looks,
}

struct Terms {
    settings: CacheSettings,
    /// Part of every key: answers given under another prompt are not found.
    system_prompt: Arc<str>,
}

/// A saved answer that is fresh enough for the caller.
#[derive(Clone, Debug)]
pub struct Found {
    pub answer: CachedAnswer,
    pub key: CacheKey,
    edition: Edition,
    pub old: Duration,
    /// The answer is past its TTL: serve it, and refresh it in the background.
    pub renew: bool,
}

/// The oldest answer that a lookup may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To spare a call: the answer is within its TTL or the `revalidate` time after it.
    Fresh,
    /// No provider can answer: the answer may be older, up to `stale_for`.
    Outage,
}

impl Shelf {
    pub fn new(store: Arc<dyn Store>, settings: CacheSettings, system_prompt: Arc<str>) -> Self {
        let index = Kept::new(Arc::clone(&store), settings.max_entries);
        let askers = Mutex::new(Bounded::new(settings.max_entries));
        let policy = RwLock::new(Arc::new(Terms {
            settings,
            system_prompt,
        }));
        Self {
            store,
            terms: policy,
            kept: index,
            all_known: AtomicBool::default(),
            askers,
            drills: Drills::default(),
            looks: Looks::default(),
        }
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings and the system prompt.
    ///
    /// Loads the index if this enables the cache.
    pub async fn set_terms(&self, settings: CacheSettings, system_prompt: Arc<str>) {
        let enabled = settings.enabled;
        let max_entries = settings.max_entries;
        let policy = Arc::new(Terms {
            settings,
            system_prompt,
        });
        let previous = std::mem::replace(
            &mut *self.terms.write().unwrap_or_else(PoisonError::into_inner),
            policy,
        );
        drop(lock(&self.askers).set_most(max_entries));
        self.kept.set_most(max_entries);
        if enabled && !previous.settings.enabled {
            self.open().await;
        }
    }

    /// Loads the index of saved answers and evicts down to `cache.max_entries`.
    ///
    /// Call once, before the first turn. Does nothing if the cache is disabled.
    pub async fn open(&self) {
        if !self.terms().settings.enabled {
            return;
        }
        // Compile the patterns now, so that the first visitor does not wait for it.
        personal::find("");
        match tokio::time::timeout(START_LIMIT, self.store.cached_keys()).await {
            Ok(Ok(keys)) => {
                self.kept.found(keys);
                // Other instances may write to a shared store, so a missing key proves nothing.
                self.all_known
                    .store(!self.store.is_shared(), Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => tracing::warn!("failed to load the answer cache index"),
        }
    }

    /// Returns the youngest acceptable answer, or `None` if the store takes longer than 50 ms.
    pub async fn find(&self, slot: &Place, accepted_age: Need, now: At) -> Option<Found> {
        let policy = self.terms();
        // The conversation's own answer may depend on its history. It serves as a fresh answer only
        // if neither this question nor the saved one had any.
        let own = async {
            let found = self
                .read(Some(slot.own).filter(|_| slot.alone || accepted_age == Need::Outage))
                .await?;
            let fits = accepted_age == Need::Outage || found.answer.first;
            Some(found).filter(|_| fits)
        };
        let shared = async {
            let found = self.read(slot.shared).await?;
            let may_share = sharing::may_tell(&found.answer, slot.asked, &policy.settings);
            Some(found).filter(|_| may_share)
        };
        let (own, shared) = tokio::time::timeout(READ_LIMIT, join(own, shared))
            .await
            .ok()?;
        let found = [own, shared].into_iter().flatten().filter_map(
            |Saved {
                 key,
                 edition,
                 answer,
             }| {
                let answer_age = now.since(answer.saved);
                let freshness = age(answer_age, &policy.settings);
                let is_acceptable = match accepted_age {
                    Need::Fresh => matches!(freshness, Age::Fresh | Age::Renewable),
                    Need::Outage => freshness != Age::Gone,
                };
                is_acceptable.then_some(Found {
                    answer,
                    key,
                    edition,
                    old: answer_age,
                    renew: freshness == Age::Renewable,
                })
            },
        );
        let found = found.min_by_key(|found| found.old)?;
        self.told(&found, slot);
        Some(found)
    }

    /// Marks an answer as used and saves its asker count if that has grown.
    fn told(&self, found: &Found, slot: &Place) {
        let has_more_askers = Some(found.key) == slot.shared && found.answer.asked < slot.asked;
        let changed = has_more_askers.then(|| CachedAnswer {
            asked: slot.asked,
            ..found.answer.clone()
        });
        self.kept.used(found.key, found.edition, changed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
