//! Lookups in the answer cache: the slot of a question, its saved answer, and the probe that checks
//! whether answers can be read.
//!
//! Askers are counted in memory, by the hash of the question and a part of the hash of the
//! conversation; no text is held for it. The count an answer has reached is saved with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::AnswerCache;
use super::index::EntryVersion;
use super::key::CacheScope;
use super::policy::{self, Freshness};
use crate::config::{CacheSettings, CacheSharing};
use crate::domain::{ConversationId, Timestamp};
use crate::store::{CacheKey, CachedAnswer};

pub const CACHE_READ_TIMEOUT: Duration = Duration::from_millis(50);

/// The time after which a probe counts as hanging.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A key that no question hashes to. The probe reads it while the cache is empty.
const PROBE_KEY: CacheKey = CacheKey([0; 32]);

#[derive(Clone, Copy, Debug)]
pub struct QuestionContext {
    pub conversation: ConversationId,
    /// The conversation belongs to no known visitor.
    pub is_anonymous: bool,
    pub is_first_message: bool,
    /// The model sees nothing of the conversation but this question.
    pub is_context_free: bool,
}

/// The keys of a question, and what decides which answers they may have.
#[derive(Clone, Debug)]
pub struct CacheSlot {
    pub(super) conversation: ConversationId,
    pub(super) conversation_key: CacheKey,
    /// The key under which the answer is shared between conversations. `None` if the question must
    /// not be shared.
    pub(super) shared_key: Option<CacheKey>,
    pub(super) is_context_free: bool,
    /// The number of distinct conversations that asked this question, including the current one.
    pub(super) asker_count: u32,
    /// The number of interruptions so far, or `None` if a drill ran.
    pub(super) epoch: Option<u64>,
}

/// A saved answer that is fresh enough for the caller.
#[derive(Clone, Debug)]
pub struct CacheHit {
    pub answer: CachedAnswer,
    pub(super) key: CacheKey,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheProbeError {
    Timeout,
    Failed,
}

impl AnswerCache {
    /// Returns the slot of a question and counts its asker. `None` if the question has no words or
    /// the cache is disabled.
    pub fn slot(&self, question: &str, context: QuestionContext) -> Option<CacheSlot> {
        let policy = self.policy();
        let settings = &policy.settings;
        if !settings.enabled {
            return None;
        }
        let conversation = context.conversation;
        let conversation_key = policy.key(CacheScope::Conversation(conversation), question)?;
        let is_shareable =
            policy::is_shareable_question(question, context.is_first_message, context.is_anonymous);
        let shared_key = is_shareable
            .then(|| policy.key(CacheScope::Shared, question))
            .flatten();
        Some(CacheSlot {
            conversation,
            conversation_key,
            shared_key,
            is_context_free: context.is_context_free,
            asker_count: shared_key.map_or(0, |key| self.count_asker(key, conversation, settings)),
            epoch: self.interruptions.lock().epoch(),
        })
    }

    /// Counts the asker and returns the number of distinct conversations so far, including this
    /// one. The count stops at `cache.repeated_min`.
    fn count_asker(
        &self,
        key: CacheKey,
        conversation: ConversationId,
        settings: &CacheSettings,
    ) -> u32 {
        if settings.share != CacheSharing::Repeated {
            return 1;
        }
        let asker = fingerprint(conversation);
        let max_counted = usize::try_from(settings.repeated_min).unwrap_or(usize::MAX);
        let mut askers = self.askers.lock();
        let (known, _) = askers.touch(key);
        if known.len() < max_counted && !known.contains(&asker) {
            known.push(asker);
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }

    /// Returns the key for request coalescing, or `None` if the question is not popular enough.
    pub fn single_flight_key(&self, slot: &CacheSlot) -> Option<CacheKey> {
        let is_popular = policy::is_popular(slot.asker_count, &self.policy().settings);
        slot.shared_key.filter(|_| is_popular)
    }

    /// Returns the youngest acceptable answer, or `None` if the store takes longer than 50 ms.
    pub async fn get(
        &self,
        slot: &CacheSlot,
        accepted: AcceptedAge,
        now: Timestamp,
    ) -> Option<CacheHit> {
        let settings = &self.policy().settings;
        let is_stale_allowed = accepted == AcceptedAge::StaleAllowed;
        // The conversation's own answer may depend on its history. It serves as a fresh answer only
        // if neither this question nor the saved one had any.
        let own = async {
            let may_read = slot.is_context_free || is_stale_allowed;
            let found = self.entries.read(may_read.then_some(slot.conversation_key));
            let found = found.await?;
            (found.answer.is_context_free || is_stale_allowed).then_some(found)
        };
        let shared = async {
            let found = self.entries.read(slot.shared_key).await?;
            policy::may_share(&found.answer, slot.asker_count, settings).then_some(found)
        };
        let reads = timeout(CACHE_READ_TIMEOUT, join(own, shared));
        let found = <[_; 2]>::from(reads.await.ok()?).into_iter().flatten();
        let stalest = if is_stale_allowed {
            Freshness::StaleIfError
        } else {
            Freshness::StaleWhileRevalidate
        };
        let hits = found.filter_map(|found| {
            let age = now.since(found.answer.saved_at);
            let freshness = policy::freshness(age, settings);
            (freshness <= stalest).then_some(CacheHit {
                answer: found.answer,
                key: found.key,
                version: found.version,
                age,
                needs_refresh: freshness == Freshness::StaleWhileRevalidate,
            })
        });
        let hit = hits.min_by_key(|hit| hit.age)?;
        self.touch(&hit, slot);
        Some(hit)
    }

    /// Marks an answer as used and saves its asker count if that has grown.
    fn touch(&self, hit: &CacheHit, slot: &CacheSlot) {
        let asker_count = slot.asker_count;
        let has_grown = Some(hit.key) == slot.shared_key && hit.answer.asker_count < asker_count;
        let changed = has_grown.then(|| CachedAnswer {
            asker_count,
            ..hit.answer.clone()
        });
        self.entries.touch(hit.key, hit.version, changed);
    }

    /// Reads one saved answer and returns how long that took. Returns zero if the cache is
    /// disabled.
    ///
    /// Each call reads the next entry in order of last use, so that a probe does not always hit an
    /// entry that the store holds in memory. At most one probe is in flight: a disk that does not
    /// answer blocks a single read.
    ///
    /// # Errors
    /// `Timeout` if the read, an earlier probe or another read of the store hangs, `Failed` if the
    /// store reports an error.
    pub async fn probe(&self) -> Result<Duration, CacheProbeError> {
        if !self.policy().settings.enabled {
            return Ok(Duration::ZERO);
        }
        let last = Arc::clone(&self.last_probe).try_lock_owned().ok();
        let Some(mut last) = last.filter(|_| !self.entries.store.is_stalled()) else {
            return Err(CacheProbeError::Timeout);
        };
        let (used, key) = self.entries.next_after(*last).unwrap_or((0, PROBE_KEY));
        *last = used;
        let store = Arc::clone(&self.entries.store);
        let started_at = Instant::now();
        let read = tokio::spawn(async move {
            let read = store.get_answer(key).await;
            drop(last);
            read.is_ok()
        });
        match timeout(PROBE_TIMEOUT, read).await {
            Ok(Ok(true)) => Ok(started_at.elapsed()),
            Ok(Ok(false) | Err(_)) => Err(CacheProbeError::Failed),
            Err(_) => Err(CacheProbeError::Timeout),
        }
    }
}

/// A part of the conversation's hash: enough to distinguish thousands, and useless for finding the
/// conversation.
fn fingerprint(conversation: ConversationId) -> u64 {
    let hash = Sha256::digest(conversation.to_string());
    hash.first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
