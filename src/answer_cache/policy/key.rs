//! The cache key: a hash of everything an answer depends on.

use sha2::{Digest, Sha256};

use super::question::normalize_question;
use crate::domain::ConversationId;
use crate::store::CacheKey;

/// Hashed into every key. Raise it when answers saved by earlier versions must not be found.
const KEY_FORMAT: &str = "failsoft saved answer 1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    /// Every conversation that asks the same question, as far as `cache.share` allows.
    Shared,
    Conversation(ConversationId),
}

/// Returns the key of the answer to `question` under this system prompt, or `None` if the question
/// has no words.
///
/// The hash covers all parts completely, each with its length before it, so that no two different
/// lists of parts give the same input.
pub fn cache_key(scope: CacheScope, system_prompt: &str, question: &str) -> Option<CacheKey> {
    let question = normalize_question(question)?;
    let conversation = match scope {
        CacheScope::Shared => String::new(),
        CacheScope::Conversation(id) => id.to_string(),
    };
    Some(hash_parts(&[
        KEY_FORMAT,
        &conversation,
        system_prompt,
        &question,
    ]))
}

fn hash_parts(parts: &[&str]) -> CacheKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    CacheKey(hash.finalize().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn own(n: u8) -> CacheScope {
        CacheScope::Conversation(ConversationId::from_random([n; 16]))
    }

    #[test]
    fn every_part_changes_the_key() {
        let mut keys = HashSet::new();
        for scope in [CacheScope::Shared, own(1), own(2)] {
            for system in ["", "Be kind.", "Be kind. "] {
                for question in ["a", "b", "ab"] {
                    assert!(keys.insert(cache_key(scope, system, question).unwrap()));
                }
            }
        }
        assert_eq!(
            cache_key(own(1), "s", "What is Rust?"),
            cache_key(own(1), "s", "what is rust")
        );
        assert_eq!(cache_key(own(1), "s", "?"), None);
    }

    #[test]
    fn parts_split_differently_have_different_keys() {
        let cuts = [["ab", "c"], ["a", "bc"], ["", "abc"], ["abc", ""]];
        let keys: HashSet<_> = cuts.iter().map(|parts| hash_parts(parts)).collect();
        assert_eq!(keys.len(), cuts.len());
        // Questions are not truncated: the last character of a long one counts.
        let long = "x".repeat(100_000);
        assert_ne!(
            cache_key(own(1), "", &format!("{long}a")),
            cache_key(own(1), "", &format!("{long}b"))
        );
    }

    #[test]
    fn key_is_stable_across_releases() {
        let known = cache_key(CacheScope::Shared, "Be kind.", "What is Rust?")
            .unwrap()
            .to_string();
        assert_eq!(known, KNOWN);
    }

    const KNOWN: &str = "599d2926f3241c710bbad5169747ee2144d7458b8c29f8286f9d5e0e233981ed";
}
