//! The cache slot of a question: its keys, and the number of conversations that asked it.
//!
//! Askers are counted in memory, by the hash of the question and a part of the hash of the
//! conversation; no text is held for it. The count an answer has reached is saved with it.

use sha2::{Digest as _, Sha256};

use super::{Shelf, lock};
use crate::chat::ConversationId;
use crate::degradation::cache::key::{Scope, key};
use crate::degradation::cache::sharing;
use crate::settings::{CacheSettings, Share};
use crate::store::CacheKey;

#[derive(Clone, Debug)]
pub struct Place {
    pub(super) conversation: ConversationId,
    pub(super) own: CacheKey,
    /// The key under which the answer is shared between conversations. `None` if the question must
    /// not be shared.
    pub(super) shared: Option<CacheKey>,
    /// The model sees nothing of the conversation but this question.
    pub(super) alone: bool,
    /// The number of distinct conversations that asked this question, including the current one.
    pub(super) asked: u32,
    /// The number of interruptions so far, or `None` if a drill ran.
    pub(super) drills: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub conversation: ConversationId,
    /// The conversation belongs to no known visitor.
    pub anonymous: bool,
    pub first: bool,
    pub alone: bool,
}

impl Shelf {
    /// Returns the slot of a question and counts its asker. `None` if the question has no words or
    /// the cache is disabled.
    pub fn place(&self, question: &str, context: Asker) -> Option<Place> {
        let Asker {
            conversation,
            anonymous,
            first,
            alone,
        } = context;
        let policy = self.terms();
        if !policy.settings.enabled {
            return None;
        }
        let own = key(Scope::Own(conversation), &policy.system_prompt, question)?;
        let is_shareable = sharing::is_open(question, first, anonymous);
        let shared = if is_shareable {
            key(Scope::Shared, &policy.system_prompt, question)
        } else {
            None
        };
        let asked = shared.map_or(0, |shared| {
            self.asked(shared, conversation, &policy.settings)
        });
        Some(Place {
            conversation,
            own,
            shared,
            alone,
            asked,
            drills: self.drills.undisturbed(),
        })
    }

    /// Counts the asker and returns the number of distinct conversations so far, including this
    /// one. The count stops at `cache.repeated_min`.
    fn asked(&self, key: CacheKey, conversation: ConversationId, settings: &CacheSettings) -> u32 {
        if settings.share != Share::Repeated {
            return 1;
        }
        let asker = fingerprint(conversation);
        let max_counted = usize::try_from(settings.repeated_min).unwrap_or(usize::MAX);
        let mut askers = lock(&self.askers);
        let (known, _) = askers.used(key);
        if known.len() < max_counted && !known.contains(&asker) {
            known.push(asker);
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }

    /// Returns the key for request coalescing, or `None` if the question is not popular enough.
    pub fn common(&self, slot: &Place) -> Option<CacheKey> {
        slot.shared
            .filter(|_| sharing::is_common(slot.asked, &self.terms().settings))
    }
}

/// A part of the conversation's hash: enough to distinguish thousands, and useless for finding the
/// conversation.
fn fingerprint(conversation: ConversationId) -> u64 {
    let hash = Sha256::digest(conversation.to_string());
    hash.first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
