//! Saved answers, as they are kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::weight_of_text;
use crate::chat::{At, ConversationId, TurnId};

/// Which saved answer: a whole SHA-256 hash of everything that the answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Display for CacheKey {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl CacheKey {
    /// The key that is written so.
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

/// A saved answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachedAnswer {
    /// The answer, whole.
    pub text: String,
    /// When it was given.
    pub saved: At,
    /// Whose it was: it goes when that conversation does. None for one that was asked for ahead of time, by nobody.
    pub conversation: Option<ConversationId>,
    /// The turn that it was given in.
    pub turn: Option<TurnId>,
    /// Whether the model saw nothing of the conversation but the question.
    pub first: bool,
    /// From how many conversations the question had come when this was last written, as far as that was counted.
    pub asked: u32,
}

impl CachedAnswer {
    /// About how much memory it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        weight_of_text(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text() {
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
