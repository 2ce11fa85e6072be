//! A frame as a log keeps it: as little as it can be, since a thousand logs may be kept at once, and encoded for who reads it.

use bytestring::ByteString;

use super::encode;
use crate::chat::{Frame, TurnId};

/// A frame without what its log knows.
pub(super) enum Kept {
    /// Most are tokens, of a few bytes each; encoded they would be many times as long.
    Token { attempt: u32, text: Box<str> },
    /// Any other, encoded.
    Other(Box<str>),
}

impl Kept {
    pub(super) fn of(frame: Frame) -> Self {
        match frame {
            Frame::Token { attempt, text, .. } => Self::Token {
                attempt,
                text: text.into(),
            },
            other => Self::Other((&*encode(&other)).into()),
        }
    }

    /// As its bytes on the wire.
    pub(super) fn encoded(&self, turn: TurnId, seq: u64) -> ByteString {
        match self {
            Self::Token { attempt, text } => encode(&Token {
                kind: "token",
                turn,
                seq,
                attempt: *attempt,
                text,
            }),
            Self::Other(frame) => (&**frame).into(),
        }
    }
}

/// A [`Frame::Token`] whose text is the log's.
#[derive(serde::Serialize)]
struct Token<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    turn: TurnId,
    seq: u64,
    attempt: u32,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_token_is_encoded_as_its_frame_is() {
        let turn = TurnId::after(None, 1, 2);
        let frame = Frame::Token {
            turn,
            seq: 7,
            attempt: 2,
            text: "a\n\"é\"".into(),
        };
        assert_eq!(Kept::of(frame.clone()).encoded(turn, 7), encode(&frame));
    }
}
