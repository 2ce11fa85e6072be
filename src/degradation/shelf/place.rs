//! A question's place on the shelf: under which keys it is looked for and saved, and how many asked it.
//!
//! From how many conversations a question came is counted here, in memory, by the hash of the question and a part of the hash of the
//! conversation; no question's text is kept for it. What an answer had reached is saved with it.

use sha2::{Digest as _, Sha256};

use super::{Shelf, lock};
use crate::chat::ConversationId;
use crate::degradation::cache::key::{Scope, key};
use crate::degradation::cache::sharing;
use crate::settings::{CacheSettings, Share};
use crate::store::CacheKey;

/// A question's place on the shelf.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) conversation: ConversationId,
    pub(super) own: CacheKey,
    /// Where others find the answer, or theirs is found; none where it is nobody else's business.
    pub(super) shared: Option<CacheKey>,
    /// Whether the model sees nothing of the conversation but the question.
    pub(super) alone: bool,
    /// From how many conversations the question came so far, this one included.
    pub(super) asked: u32,
    /// How many drills had begun; none while one ran.
    pub(super) drills: Option<u64>,
}

/// Who asks, and with what before.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The conversation.
    pub conversation: ConversationId,
    /// Whether it belongs to no known visitor.
    pub anonymous: bool,
    /// Whether it is known to be the conversation's first message.
    pub first: bool,
    /// Whether it is known that the model sees nothing but the question.
    pub alone: bool,
}

impl Shelf {
    /// The question's place, and that it was asked; none for a question without a word, or where nothing is to be saved.
    pub fn place(&self, question: &str, asker: Asker) -> Option<Place> {
        let Asker {
            conversation,
            anonymous,
            first,
            alone,
        } = asker;
        let terms = self.terms();
        if !terms.settings.enabled {
            return None;
        }
        let own = key(Scope::Own(conversation), &terms.system_prompt, question)?;
        let open = sharing::is_open(question, first, anonymous);
        let shared = if open {
            key(Scope::Shared, &terms.system_prompt, question)
        } else {
            None
        };
        let asked = shared.map_or(0, |shared| {
            self.asked(shared, conversation, &terms.settings)
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

    /// From how many conversations this came, this one included; counted up to as many as it takes.
    fn asked(&self, key: CacheKey, conversation: ConversationId, settings: &CacheSettings) -> u32 {
        if settings.share != Share::Repeated {
            return 1;
        }
        let asker = fingerprint(conversation);
        let most = usize::try_from(settings.repeated_min).unwrap_or(usize::MAX);
        let mut askers = lock(&self.askers);
        let (known, _) = askers.used(key);
        if known.len() < most && !known.contains(&asker) {
            known.push(asker);
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }

    /// Whether many ask this, so that one answer will do for those who ask now.
    pub fn common(&self, place: &Place) -> Option<CacheKey> {
        place
            .shared
            .filter(|_| sharing::is_common(place.asked, &self.terms().settings))
    }
}

/// A part of the conversation's hash: enough to tell some thousand apart, and no key to the conversation.
fn fingerprint(conversation: ConversationId) -> u64 {
    let hash = Sha256::digest(conversation.to_string());
    hash.first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
