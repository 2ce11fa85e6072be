//! Cached answers in memory.

use std::collections::HashMap;

use crate::domain::ConversationId;
use crate::store::{CacheKey, CachedAnswer};

const MAX_BYTES: usize = 64 << 20;

/// Cached answers in memory, bounded by bytes. The oldest are evicted first.
#[derive(Default)]
pub(crate) struct AnswerMap {
    answers: HashMap<CacheKey, CachedAnswer>,
    bytes: usize,
}

impl AnswerMap {
    pub(crate) fn get(&self, key: CacheKey) -> Option<CachedAnswer> {
        self.answers.get(&key).cloned()
    }

    /// Returns all keys, oldest answer first.
    pub(crate) fn keys(&self) -> Vec<CacheKey> {
        let mut keys: Vec<_> = self
            .answers
            .iter()
            .map(|(key, answer)| (answer.saved_at, *key))
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    pub(crate) fn insert(&mut self, key: CacheKey, answer: CachedAnswer) {
        self.remove(key);
        self.bytes += answer.memory_bytes();
        self.answers.insert(key, answer);
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.keys().first()
        {
            self.remove(*oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: CacheKey) {
        if let Some(removed) = self.answers.remove(&key) {
            self.bytes -= removed.memory_bytes();
        }
    }

    pub(crate) fn remove_from_conversation(&mut self, conversation: ConversationId) {
        let bytes = &mut self.bytes;
        self.answers.retain(|_, answer| {
            let keep = answer.conversation != Some(conversation);
            *bytes -= if keep { 0 } else { answer.memory_bytes() };
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{cache_key, cached_answer, conversation};

    #[test]
    fn oldest_answers_are_evicted_and_the_byte_count_stays_exact() {
        let mut answers = AnswerMap::default();
        let long = "x".repeat(MAX_BYTES / 4);
        for n in 1..=5 {
            answers.insert(cache_key(n), cached_answer(n, u64::from(10 - n), &long));
        }
        assert_eq!(answers.keys(), [cache_key(3), cache_key(2), cache_key(1)]);
        answers.remove_from_conversation(conversation(3));
        answers.insert(cache_key(1), cached_answer(1, 1, "short"));
        answers.remove(cache_key(2));
        answers.remove(cache_key(9));
        assert_eq!(
            (answers.keys(), answers.bytes),
            (
                vec![cache_key(1)],
                cached_answer(1, 1, "short").memory_bytes()
            )
        );
    }
}
