//! The cache slot of a question: its keys, and the number of conversations that asked it.
//!
//! Askers are counted in memory, by the hash of the question and a part of the hash of the
//! conversation; no text is held for it. The count an answer has reached is saved with it.

use sha2::{Digest as _, Sha256};

use super::{AnswerCache, lock};
use crate::answer_cache::policy::key::{CacheScope, cache_key};
use crate::answer_cache::policy::sharing;
use crate::config::{CacheSettings, CacheSharing};
use crate::domain::ConversationId;
use crate::store::CacheKey;

#[derive(Clone, Debug)]
pub struct CacheSlot {
    pub(crate) conversation: ConversationId,
    pub(crate) conversation_key: CacheKey,
    /// The key under which the answer is shared between conversations. `None` if the question must
    /// not be shared.
    pub(crate) shared_key: Option<CacheKey>,
    /// The model sees nothing of the conversation but this question.
    pub(crate) is_context_free: bool,
    /// The number of distinct conversations that asked this question, including the current one.
    pub(crate) asker_count: u32,
    /// The number of interruptions so far, or `None` if a drill ran.
    pub(crate) pause_epoch: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct QuestionContext {
    pub conversation: ConversationId,
    /// The conversation belongs to no known visitor.
    pub is_anonymous: bool,
    pub is_first_message: bool,
    pub is_context_free: bool,
}

impl AnswerCache {
    /// Returns the slot of a question and counts its asker. `None` if the question has no words or
    /// the cache is disabled.
    pub fn slot(&self, question: &str, asker: QuestionContext) -> Option<CacheSlot> {
        let QuestionContext {
            conversation,
            is_anonymous: anonymous,
            is_first_message: first,
            is_context_free: alone,
        } = asker;
        let terms = self.policy();
        if !terms.settings.enabled {
            return None;
        }
        let own = cache_key(
            CacheScope::Conversation(conversation),
            &terms.system_prompt,
            question,
        )?;
        let is_shareable = sharing::is_shareable_question(question, first, anonymous);
        let shared = if is_shareable {
            cache_key(CacheScope::Shared, &terms.system_prompt, question)
        } else {
            None
        };
        let asked = shared.map_or(0, |shared| {
            self.count_asker(shared, conversation, &terms.settings)
        });
        Some(CacheSlot {
            conversation,
            conversation_key: own,
            shared_key: shared,
            is_context_free: alone,
            asker_count: asked,
            pause_epoch: self.pause_state.epoch(),
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
        let mut askers = lock(&self.askers);
        let (known, _) = askers.touch(key);
        if known.len() < max_counted && !known.contains(&asker) {
            known.push(asker);
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }

    /// Returns the key for request coalescing, or `None` if the question is not popular enough.
    pub fn single_flight_key(&self, place: &CacheSlot) -> Option<CacheKey> {
        place
            .shared_key
            .filter(|_| sharing::is_popular(place.asker_count, &self.policy().settings))
    }
}

/// A part of the conversation's hash: enough to distinguish thousands, and useless for finding the
/// conversation.
fn fingerprint(conversation: ConversationId) -> u64 {
    let hash = Sha256::digest(conversation.to_string());
    hash.first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
