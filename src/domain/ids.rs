//! Ids of conversations, turns and client messages.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {format}")]
pub struct InvalidId {
    name: &'static str,
    format: &'static str,
}

/// A conversation id: 128 random bits, written as 22 characters of base64url.
///
/// It is a secret: whoever knows it can read an anonymous conversation. `Debug` therefore shows
/// only the first four characters, and the full id is never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId([u8; 16]);

impl ConversationId {
    /// The caller must pass bytes of a cryptographic random source.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "{}…", text.get(..4).unwrap_or_default())
    }
}

impl FromStr for ConversationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = InvalidId {
            name: "conversation",
            format: "22 characters of base64url",
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad)?;
        bytes.try_into().map(Self).map_err(|_| bad)
    }
}

/// A turn id: 48 bits of time and 64 random bits, written as 28 lower-case hexadecimal digits.
///
/// Later turns of a conversation have greater ids, in binary and as text (like ULID, with a simpler
/// alphabet).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TurnId {
    ms: u64,
    random: u64,
}

impl TurnId {
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.ms)
    }

    /// An id greater than `last`, even if the clock went backwards.
    pub fn next_after(last: Option<TurnId>, now_ms: u64, chance: u64) -> Self {
        let ms = last.map_or(now_ms, |last| now_ms.max(last.ms + 1)) & 0xffff_ffff_ffff;
        Self { ms, random: chance }
    }
}

impl fmt::Display for TurnId {
    // Every frame contains the id, and the standard integer formatter is ten times slower.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = u128::from(self.ms) << 64 | u128::from(self.random);
        let mut text = [b'0'; 28];
        for (position, byte) in text.iter_mut().rev().enumerate() {
            let digit = u8::try_from(digits >> (4 * position) & 0xf).unwrap_or_default();
            *byte = if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            };
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TurnId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = InvalidId {
            name: "turn",
            format: "28 hexadecimal digits",
        };
        if text.len() != 28 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad);
        }
        let (ms, chance) = text.split_at(12);
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| bad);
        Ok(Self {
            ms: number(ms)?,
            random: number(chance)?,
        })
    }
}

/// The id that a client gave to a message: 1 to 64 characters. A repeated id means the same turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientMsgId(String);

/// The prefix of ids generated for HTTP requests.
const HTTP_CALL_PREFIX: &str = "api-";

impl ClientMsgId {
    pub fn for_turn(turn: TurnId) -> Self {
        Self(turn.to_string())
    }

    pub fn for_http_call(chance: u64) -> Self {
        Self(format!("{HTTP_CALL_PREFIX}{chance:016x}"))
    }

    /// `true` if the id was generated for an HTTP request. A client could send such an id as well.
    pub fn is_http_call(&self) -> bool {
        self.0.starts_with(HTTP_CALL_PREFIX)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClientMsgId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                name: "client_msg_id",
                format: "1 to 64 printable characters",
            })
        }
    }
}

macro_rules! serialize_as_text {
    ($($id:ty),*) => {$(
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serialize_as_text!(ConversationId, TurnId, ClientMsgId);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text() {
        let conversation = ConversationId::from_random([7; 16]);
        assert_eq!(conversation.to_string().len(), 22);
        assert_eq!(conversation.to_string().parse(), Ok(conversation));
        let turn = TurnId::next_after(None, 1_700_000_000_000, u64::MAX);
        assert_eq!(turn.to_string().parse(), Ok(turn));
        for (ms, chance) in [(1_700_000_000_000, u64::MAX), (0, 0), (0xa, 0x9_0000_000f)] {
            let text = TurnId::next_after(None, ms, chance).to_string();
            assert_eq!(text, format!("{ms:012x}{chance:016x}"));
        }
    }

    #[test]
    fn a_later_turn_is_greater_even_if_the_clock_went_back() {
        let first = TurnId::next_after(None, 5_000, u64::MAX);
        let second = TurnId::next_after(Some(first), 1_000, 0);
        assert!(second > first && second.to_string() > first.to_string());
    }

    #[test]
    fn invalid_ids_are_rejected() {
        for bad in [
            "",
            "short",
            "!!!!!!!!!!!!!!!!!!!!!!",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(bad.parse::<ConversationId>().is_err(), "{bad}");
        }
        for bad in [
            "",
            "00",
            "zz00000000000000000000000000",
            "+000000000000000000000000000",
        ] {
            assert!(bad.parse::<TurnId>().is_err(), "{bad}");
        }
        assert!("x".repeat(65).parse::<ClientMsgId>().is_err());
        assert!("".parse::<ClientMsgId>().is_err());
        assert!("é".repeat(64).parse::<ClientMsgId>().is_ok());
    }

    #[test]
    fn debug_hides_the_conversation_id() {
        let id = ConversationId::from_random([9; 16]);
        assert!(!format!("{id:?}").contains(&id.to_string()));
    }
}
