//! Frames in the form in which a log retains them.
//!
//! Up to a thousand logs are retained at once, so token frames are stored without their envelope.

use bytestring::ByteString;

use super::encode_frame;
use crate::domain::{Frame, TurnId};

/// A frame without the fields that its log knows.
pub(super) enum StoredFrame {
    /// The most common frame: a few bytes of text. Encoded it would be many times as long.
    Token {
        attempt: u32,
        text: Box<str>,
    },
    Encoded(Box<str>),
}

impl StoredFrame {
    pub(super) fn from_frame(frame: Frame) -> Self {
        match frame {
            Frame::Token { attempt, text, .. } => Self::Token {
                attempt,
                text: text.into(),
            },
            other => Self::Encoded((&*encode_frame(&other)).into()),
        }
    }

    /// Returns the frame as sent to clients.
    pub(super) fn encode(&self, turn: TurnId, seq: u64) -> ByteString {
        match self {
            Self::Token { attempt, text } => encode_frame(&TokenFrame {
                kind: "token",
                turn,
                seq,
                attempt: *attempt,
                text,
            }),
            Self::Encoded(frame) => (&**frame).into(),
        }
    }
}

/// A [`Frame::Token`] that borrows its text from the log.
#[derive(serde::Serialize)]
struct TokenFrame<'a> {
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
    fn stored_token_encodes_like_its_frame() {
        let turn = TurnId::next_after(None, 1, 2);
        let frame = Frame::Token {
            turn,
            seq: 7,
            attempt: 2,
            text: "a\n\"é\"".into(),
        };
        assert_eq!(
            StoredFrame::from_frame(frame.clone()).encode(turn, 7),
            encode_frame(&frame)
        );
    }
}
