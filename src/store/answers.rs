//! Saved answers in memory, bounded by their bytes.

use std::collections::HashMap;

use super::{CacheKey, CachedAnswer};
use crate::chat::ConversationId;

/// The most bytes of saved answers kept.
const MOST_BYTES: usize = 64 << 20;

/// Saved answers in memory. Where they are too many bytes, those saved longest ago go first.
#[derive(Default)]
pub(super) struct Answers {
    held: HashMap<CacheKey, CachedAnswer>,
    bytes: usize,
}

impl Answers {
    /// The answer under this key.
    pub(super) fn get(&self, key: CacheKey) -> Option<CachedAnswer> {
        self.held.get(&key).cloned()
    }

    /// All keys, those saved longest ago first.
    pub(super) fn keys(&self) -> Vec<CacheKey> {
        let mut keys: Vec<_> = self
            .held
            .iter()
            .map(|(key, answer)| (answer.saved, *key))
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Holds an answer in the place of what was there.
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

    /// Removes an answer.
    pub(super) fn remove(&mut self, key: CacheKey) {
        if let Some(gone) = self.held.remove(&key) {
            self.bytes -= gone.weight();
        }
    }

    /// Removes all that come from a conversation.
    pub(super) fn forget(&mut self, conversation: ConversationId) {
        let bytes = &mut self.bytes;
        self.held.retain(|_, answer| {
            let stays = answer.conversation != Some(conversation);
            *bytes -= if stays { 0 } else { answer.weight() };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{cached, conversation, key};

    #[test]
    fn those_saved_longest_ago_go_first_and_the_count_of_bytes_is_right() {
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
