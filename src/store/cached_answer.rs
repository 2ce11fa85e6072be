//! The stored form of cached answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::codec::text_memory_bytes;
use crate::domain::{ConversationId, Timestamp, TurnId};

/// The key of a cached answer: a SHA-256 hash of everything the answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Display for CacheKey {
    /// Writes 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl CacheKey {
    pub fn parse(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut key = [0; 32];
        if pairs.len() != key.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in key.iter_mut().zip(pairs) {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(key))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachedAnswer {
    pub text: String,
    #[serde(rename = "saved")]
    pub saved_at: Timestamp,
    /// The conversation that it came from and is deleted with. `None` for a warmed answer.
    pub conversation: Option<ConversationId>,
    pub turn: Option<TurnId>,
    /// The model saw nothing of the conversation but the question.
    #[serde(rename = "first")]
    pub is_context_free: bool,
    /// The number of distinct conversations that had asked the question at the last write.
    #[serde(rename = "asked")]
    pub asker_count: u32,
}

impl CachedAnswer {
    pub(super) fn memory_bytes(&self) -> usize {
        text_memory_bytes(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn key_round_trips_and_malformed_text_is_rejected() {
        let mut bytes = [0; 32];
        for (n, byte) in (0_u8..).zip(&mut bytes) {
            *byte = n * 8 + 3;
        }
        let text = CacheKey(bytes).to_string();
        assert_eq!(
            (text.len(), CacheKey::parse(&text)),
            (64, Some(CacheKey(bytes)))
        );
        for bad in [
            "",
            "0",
            &text[1..],
            &format!("{text}00"),
            &text.replace('b', "x"),
            &"é".repeat(32),
        ] {
            assert_eq!(CacheKey::parse(bad), None, "{bad}");
        }
    }
}
