//! Where saved answers are looked for and put: the store, with what is decided about them beside it.
//!
//! A store that fails or is slow costs saved answers, never a turn: it is as if there were none.
//!
//! In reading order: `place` (under which keys a question is looked for and saved), this file (what is found), `saving` (what comes and goes),
//! `kept` (the keys, and the order of what the store is told), `ahead` (answers asked for by nobody), `drills` (when nothing is saved), `look` (how
//! it is read, and whether it can be).

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

/// How long an answer may be looked for.
pub const READ_LIMIT: Duration = Duration::from_millis(50);

/// How long the service's start waits for the keys of what is saved.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Saved answers.
pub struct Shelf {
    store: Arc<dyn Store>,
    terms: RwLock<Arc<Terms>>,
    kept: Kept,
    /// Whether nothing is saved under other keys.
    all_known: AtomicBool,
    /// Which conversations asked alike, up to as many as it takes.
    askers: Mutex<Bounded<Vec<u64>>>,
    drills: Drills,
    looks: Looks,
}

/// How answers are saved and told; a reload may change it.
struct Terms {
    settings: CacheSettings,
    /// They are told under the same one only.
    system_prompt: Arc<str>,
}

/// A saved answer that will do.
#[derive(Clone, Debug)]
pub struct Found {
    /// It.
    pub answer: CachedAnswer,
    /// Where it lies.
    pub key: CacheKey,
    edition: Edition,
    /// How old it is.
    pub old: Duration,
    /// Whether it is to be renewed behind.
    pub renew: bool,
}

/// What a saved answer is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To ask no provider.
    Fresh,
    /// No provider can answer.
    Outage,
}

impl Shelf {
    /// Saved answers of this store, told as the settings say. They are told under the same system prompt only.
    pub fn new(store: Arc<dyn Store>, settings: CacheSettings, system_prompt: Arc<str>) -> Self {
        let kept = Kept::new(Arc::clone(&store), settings.max_entries);
        let askers = Mutex::new(Bounded::new(settings.max_entries));
        let terms = RwLock::new(Arc::new(Terms {
            settings,
            system_prompt,
        }));
        let (all_known, drills, looks) = Default::default();
        Self {
            store,
            terms,
            kept,
            all_known,
            askers,
            drills,
            looks,
        }
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes by other settings, or another system prompt, from now on. Where answers are saved again after a time in which none were, it finds
    /// out what there is.
    pub async fn set_terms(&self, settings: CacheSettings, system_prompt: Arc<str>) {
        let (enabled, most) = (settings.enabled, settings.max_entries);
        let terms = Arc::new(Terms {
            settings,
            system_prompt,
        });
        let before = std::mem::replace(
            &mut *self.terms.write().unwrap_or_else(PoisonError::into_inner),
            terms,
        );
        drop(lock(&self.askers).set_most(most));
        self.kept.set_most(most);
        if enabled && !before.settings.enabled {
            self.open().await;
        }
    }

    /// Finds out what is saved already, and removes what is too much of it. To be awaited once, before the first question. Where nothing is to be
    /// saved nothing is looked for.
    pub async fn open(&self) {
        if !self.terms().settings.enabled {
            return;
        }
        // Compiles its patterns, which is not for the first visitor to wait for.
        personal::find("");
        match tokio::time::timeout(START_LIMIT, self.store.cached_keys()).await {
            Ok(Ok(keys)) => {
                self.kept.found(keys);
                self.all_known
                    .store(!self.store.is_shared(), Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => tracing::warn!("which answers are saved was not read"),
        }
    }

    /// The youngest saved answer that will do. Within 50 ms: who is slower has none.
    pub async fn find(&self, place: &Place, need: Need, now: At) -> Option<Found> {
        let terms = self.terms();
        let own = async {
            let found = self
                .read(Some(place.own).filter(|_| place.alone || need == Need::Outage))
                .await?;
            let fits = need == Need::Outage || found.answer.first;
            Some(found).filter(|_| fits)
        };
        let shared = async {
            let found = self.read(place.shared).await?;
            let told = sharing::may_tell(&found.answer, place.asked, &terms.settings);
            Some(found).filter(|_| told)
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
                let old = now.since(answer.saved);
                let age = age(old, &terms.settings);
                let will_do = match need {
                    Need::Fresh => matches!(age, Age::Fresh | Age::Renewable),
                    Need::Outage => age != Age::Gone,
                };
                will_do.then_some(Found {
                    answer,
                    key,
                    edition,
                    old,
                    renew: age == Age::Renewable,
                })
            },
        );
        let found = found.min_by_key(|found| found.old)?;
        self.told(&found, place);
        Some(found)
    }

    /// Notes that an answer was used, and how often it was asked for by then.
    fn told(&self, found: &Found, place: &Place) {
        let more = Some(found.key) == place.shared && found.answer.asked < place.asked;
        let changed = more.then(|| CachedAnswer {
            asked: place.asked,
            ..found.answer.clone()
        });
        self.kept.used(found.key, found.edition, changed);
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
