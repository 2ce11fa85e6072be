//! The encoding of records: one version byte, then JSON.
//!
//! A later version of the program reads the records of an earlier one. An unreadable record is
//! skipped and logged without its contents.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ConversationRecord, StoreError};
use crate::domain::TurnRecord;

/// The version written. Increment it when old records can no longer be read.
pub const RECORD_VERSION: u8 = 1;

/// Assumed size of a turn besides its text, in bytes. Only used for limits.
const TURN_OVERHEAD: usize = 512;

/// # Errors
/// `Unavailable` if JSON cannot represent the value. No record of ours is such a value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![RECORD_VERSION];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|_| StoreError::Unavailable("a record cannot be written as JSON".into()))?;
    Ok(bytes)
}

/// Decodes a record. Returns `None` and logs a warning if it is malformed or of an unknown version.
///
/// `kind` names the kind of record in the log.
pub fn decode<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Option<T> {
    let record = try_decode(bytes);
    if record.is_none() {
        // The parser's message may quote the record, so it is not logged.
        tracing::warn!(
            record = kind,
            version = bytes.first().copied(),
            "unreadable record skipped"
        );
    }
    record
}

/// # Errors
/// `Damaged` if the record cannot be decoded: its owner must not be guessed.
pub fn decode_conversation(bytes: &[u8]) -> Result<ConversationRecord, StoreError> {
    let unreadable = || StoreError::Damaged("a conversation's record cannot be read".into());
    decode("conversation", bytes).ok_or_else(unreadable)
}

/// Decodes a record without logging, for callers that count the failures themselves.
pub fn try_decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, json)) => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

pub fn turn_memory_bytes(turn: &TurnRecord) -> usize {
    let drafts = turn.drafts.iter().map(|draft| draft.text.len());
    let followup = turn.followup.iter().map(|followup| followup.text.len());
    let extras = drafts.chain(followup).sum::<usize>();
    TURN_OVERHEAD + turn.question.len() + turn.text.len() + extras
}

/// Approximate memory use of a record that is mostly this text, in bytes.
pub fn text_memory_bytes(text: &str) -> usize {
    TURN_OVERHEAD + text.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::store::contract::turn;

    #[test]
    fn record_round_trips_through_its_encoding() {
        let turn = turn(7, "m", "what?").into_interrupted();
        let bytes = encode(&turn).unwrap();
        assert_eq!(bytes[0], RECORD_VERSION);
        assert_eq!(decode::<TurnRecord>("turn", &bytes), Some(turn));
    }

    #[test]
    fn unknown_version_or_malformed_record_decodes_to_none() {
        let mut later = encode(&turn(7, "m", "what?")).unwrap();
        later[0] = RECORD_VERSION + 1;
        for bytes in [
            &later[..],
            &[],
            &[RECORD_VERSION],
            b"\x01{\"turn\":",
            b"\x01[]",
            b"\x01\xff\xfe",
        ] {
            assert_eq!(decode::<TurnRecord>("turn", bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn weight_counts_the_text_of_a_turn() {
        let mut heavy = turn(7, "m", "what?");
        let before = turn_memory_bytes(&heavy);
        heavy.text = "x".repeat(1000);
        assert_eq!(turn_memory_bytes(&heavy), before + 1000);
    }
}
