//! Cached answers in memory.

use std::collections::HashMap;

use super::{CacheKey, CachedAnswer};
use crate::chat::ConversationId;

const MOST_BYTES: usize = 64 << 20;

/// Cached answers in memory, bounded by bytes. The oldest are evicted first.
#[derive(Default)]
pub(super) struct Answers {
    held: HashMap<CacheKey, CachedAnswer>,
    bytes: usize,
}

impl Answers {
    pub(super) fn get(&self, key: CacheKey) -> Option<CachedAnswer> {
        self.held.get(&key).cloned()
    }

    /// Returns all keys, oldest answer first.
    pub(super) fn keys(&self) -> Vec<CacheKey> {
        let mut keys: Vec<_> = self
            .held
            .iter()
            .map(|(key, answer)| (answer.saved, *key))
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    pub(super) fn write(&mut self, key: CacheKey, answer: CachedAnswer) {
        self.remove(key);
        self.bytes += answer.weight();
        self.held.insert(key, answer);
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.keys().first()
        {
            self.remove(*oldest);
        }
    }

    pub(super) fn remove(&mut self, key: CacheKey) {
        if let Some(removed) = self.held.remove(&key) {
            self.bytes -= removed.weight();
        }
    }

    pub(super) fn forget(&mut self, conversation: ConversationId) {
        let bytes = &mut self.bytes;
        self.held.retain(|_, answer| {
            let keep = answer.conversation != Some(conversation);
            *bytes -= if keep { 0 } else { answer.weight() };
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{cached, conversation, key};

    #[test]
    fn oldest_answers_are_evicted_and_the_byte_count_stays_exact() {
        let mut answers = Answers::default();
        let long = "x".repeat(MOST_BYTES / 4);
        for n in 1..=5 {
            answers.write(key(n), cached(n, u64::from(10 - n), &long));
        }
        assert_eq!(answers.keys(), [key(3), key(2), key(1)]);
        answers.forget(conversation(3));
        answers.write(key(1), cached(1, 1, "short"));
        answers.remove(key(2));
        answers.remove(key(9));
        assert_eq!(
            (answers.keys(), answers.bytes),
            (vec![key(1)], cached(1, 1, "short").weight())
        );
    }
}
