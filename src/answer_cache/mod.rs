//! The answer cache: looks saved answers up in the store and saves new ones.
//!
//! A store that fails or is slow costs cache hits, never a turn: the cache then behaves as if it
//! were empty. Every lookup reads the store, because other instances save to a shared store, and
//! because it deletes a conversation's answers with the conversation.
//!
//! In reading order: [`key`] (which questions are equal), [`pii`] (personal data), [`policy`] (who
//! may get which answer), `lru_map`, `index` (the order of store writes), `lookup`, this file
//! (saving, removal, drills).

mod index;
pub mod key;
mod lookup;
mod lru_map;
pub mod pii;
pub mod policy;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;

use self::index::IndexedStore;
use self::key::{CacheScope, cache_key};
use self::lru_map::LruMap;
use crate::config::{CacheSettings, CacheSharing};
use crate::domain::{ConversationId, Timestamp, TurnRecord};
use crate::store::{CacheKey, CachedAnswer, Store, StoreError};

pub use self::lookup::{
    AcceptedAge, CACHE_READ_TIMEOUT, CacheHit, CacheProbeError, CacheSlot, QuestionContext,
};

/// The time limit of listing the saved keys, and of removing one batch of them.
const BULK_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum time a caller waits for a write. The write itself continues.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);

const REMOVAL_BATCH_SIZE: usize = 1_000;

pub struct AnswerCache {
    entries: IndexedStore,
    policy: RwLock<Arc<CachePolicy>>,
    /// Fingerprints of the conversations that asked a question, up to `cache.repeated_min` of them.
    askers: Mutex<LruMap<Vec<u64>>>,
    interruptions: Mutex<Interruptions>,
    /// Held while a probe waits for the store, even after its caller has given up. The value is the
    /// use number of the entry probed last.
    last_probe: Arc<tokio::sync::Mutex<u64>>,
}

struct CachePolicy {
    settings: CacheSettings,
    /// Part of every key: answers given under another prompt are not found.
    system_prompt: Arc<str>,
}

impl CachePolicy {
    fn key(&self, scope: CacheScope, question: &str) -> Option<CacheKey> {
        cache_key(scope, &self.system_prompt, question)
    }
}

/// Counters that tell whether a turn overlapped with an outage drill, a `clear` or a deletion. Its
/// answer must not be saved then.
#[derive(Default)]
struct Interruptions {
    active_drills: u64,
    drills: u64,
    /// All interruptions, drills included.
    total: u64,
}

impl Interruptions {
    /// Returns the number of interruptions so far, or `None` while a drill runs.
    fn epoch(&self) -> Option<u64> {
        (self.active_drills == 0).then_some(self.total)
    }
}

/// A background question whose answer will be saved under `key`.
#[derive(Clone, Debug)]
pub struct RefreshJob {
    pub key: CacheKey,
    /// The answer to replace. The new one keeps its conversation and its asker count.
    previous: CachedAnswer,
    epoch: Option<u64>,
}

impl AnswerCache {
    pub fn new(store: Arc<dyn Store>, settings: CacheSettings, system_prompt: Arc<str>) -> Self {
        Self {
            entries: IndexedStore::new(store, settings.max_entries),
            askers: Mutex::new(LruMap::new(settings.max_entries)),
            policy: RwLock::new(Arc::new(CachePolicy {
                settings,
                system_prompt,
            })),
            interruptions: Mutex::default(),
            last_probe: Arc::default(),
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
        let policy = Arc::new(CachePolicy {
            settings,
            system_prompt,
        });
        let previous = std::mem::replace(&mut *self.policy.write(), policy);
        self.askers.lock().set_capacity(max_entries);
        self.entries.set_capacity(max_entries);
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
        if !matches!(timeout(BULK_TIMEOUT, self.entries.load()).await, Ok(Ok(()))) {
            tracing::warn!("failed to load the answer cache index");
        }
    }

    /// Saves a turn's answer if it is cacheable. Returns once it can be found.
    pub async fn put(&self, slot: &CacheSlot, record: &TurnRecord, now: Timestamp) {
        if !policy::is_cacheable(record) || !self.is_uninterrupted_since(slot.epoch) {
            return;
        }
        let answer = CachedAnswer {
            text: record.text.clone(),
            saved_at: now,
            conversation: Some(slot.conversation),
            turn: Some(record.turn),
            is_context_free: slot.is_context_free,
            asker_count: slot.asker_count,
        };
        let shared_key = slot.shared_key.filter(|_| self.is_shareable(slot, record));
        let shared = shared_key.map(|key| (key, answer.clone()));
        let own = (slot.conversation_key, answer);
        self.write_all(shared.into_iter().chain([own])).await;
    }

    pub fn is_shareable(&self, slot: &CacheSlot, record: &TurnRecord) -> bool {
        self.policy().settings.share != CacheSharing::Never
            && policy::is_shareable_answer(record)
            && self.is_uninterrupted_since(slot.epoch)
    }

    async fn write_all(&self, answers: impl IntoIterator<Item = (CacheKey, CachedAnswer)>) {
        let writes = answers
            .into_iter()
            .map(|(key, answer)| self.entries.put(key, answer));
        if timeout(WRITE_TIMEOUT, join_all(writes)).await.is_err() {
            tracing::debug!("cached answer not saved in time, continuing in the background");
        }
    }

    /// Returns the job that refreshes an answer in the background.
    pub fn refresh_job(&self, hit: &CacheHit) -> RefreshJob {
        RefreshJob {
            key: hit.key,
            previous: hit.answer.clone(),
            epoch: self.interruptions.lock().epoch(),
        }
    }

    /// Returns the job that asks a configured question ahead of time. `None` if it is not due,
    /// unless `force` is set.
    pub async fn warming_job(
        &self,
        question: &str,
        now: Timestamp,
        force: bool,
    ) -> Option<RefreshJob> {
        let policy = self.policy();
        let key = policy.key(CacheScope::Shared, question);
        let key = key.filter(|_| policy.settings.enabled)?;
        let read = self.entries.store.get_answer(key);
        let saved = timeout(CACHE_READ_TIMEOUT, read).await.ok()?.ok()?;
        // A visitor's answer may not be shared with everybody: replace it.
        let saved = saved.filter(|answer| answer.conversation.is_none());
        let age = saved.as_ref().map(|answer| now.since(answer.saved_at));
        if !force && !policy::is_refresh_due(age, &policy.settings) {
            return None;
        }
        let unowned = CachedAnswer {
            text: String::new(),
            saved_at: now,
            conversation: None,
            turn: None,
            is_context_free: true,
            asker_count: 0,
        };
        Some(RefreshJob {
            key,
            previous: saved.unwrap_or(unowned),
            epoch: self.interruptions.lock().epoch(),
        })
    }

    /// Saves a refreshed answer if it is shareable. Returns once it can be found.
    pub async fn put_refreshed(&self, job: &RefreshJob, record: &TurnRecord, now: Timestamp) {
        if policy::is_shareable_answer(record) && self.is_uninterrupted_since(job.epoch) {
            let answer = CachedAnswer {
                text: record.text.clone(),
                saved_at: now,
                ..job.previous.clone()
            };
            self.write_all([(job.key, answer)]).await;
        }
    }

    /// Removes an answer that a visitor reported as unhelpful, so that nobody gets it again.
    pub async fn remove(&self, conversation: ConversationId, record: &TurnRecord) {
        let policy = self.policy();
        for scope in [CacheScope::Conversation(conversation), CacheScope::Shared] {
            let key = policy.key(scope, &record.question);
            let read = timeout(WRITE_TIMEOUT, self.entries.read(key)).await;
            if let Ok(Some(found)) = read
                && found.answer.text == record.text
                && let Some(removal) = self.entries.remove_if_unchanged(found.key, found.version)
            {
                drop(timeout(WRITE_TIMEOUT, removal).await);
            }
        }
    }

    /// Removes all saved answers and resets the asker counts. Returns the number of answers.
    ///
    /// Answers of turns that are running now are not saved either.
    ///
    /// # Errors
    /// The store failed or did not confirm in time: some answers may be left.
    pub async fn clear(&self) -> Result<usize, StoreError> {
        self.invalidate_in_flight();
        let timed_out = |_| StoreError::Unavailable("no answer in time".into());
        let listing = timeout(BULK_TIMEOUT, self.entries.store.answer_keys());
        let keys = listing.await.map_err(timed_out)??;
        for batch in keys.chunks(REMOVAL_BATCH_SIZE) {
            // Remove only the listed keys: answers saved meanwhile stay.
            let removal = timeout(BULK_TIMEOUT, self.entries.remove_all(batch));
            removal.await.map_err(timed_out)??;
        }
        self.askers.lock().clear();
        Ok(keys.len())
    }

    /// Keeps the answers of turns that are running now from being saved.
    pub fn invalidate_in_flight(&self) {
        self.interruptions.lock().total += 1;
    }

    /// Stops saving answers until the outage drill ends.
    pub fn pause(&self) {
        let mut interruptions = self.interruptions.lock();
        interruptions.active_drills += 1;
        interruptions.drills += 1;
        interruptions.total += 1;
    }

    pub fn resume(&self) {
        self.interruptions.lock().active_drills -= 1;
    }

    /// Returns the number of drills started so far, or `None` while one runs.
    ///
    /// Two equal numbers mean that no drill ran in between.
    pub fn drill_epoch(&self) -> Option<u64> {
        let interruptions = self.interruptions.lock();
        (interruptions.active_drills == 0).then_some(interruptions.drills)
    }

    /// Returns `true` if no interruption has happened since `epoch`, and none went on at that time.
    fn is_uninterrupted_since(&self, epoch: Option<u64>) -> bool {
        epoch.is_some() && epoch == self.interruptions.lock().epoch()
    }
}
