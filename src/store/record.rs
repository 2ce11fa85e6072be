//! How a record is written: one byte of version, then JSON.
//!
//! A later version of the program reads what an earlier one wrote; what it cannot read it passes over and says so, without a word of the
//! contents, and never panics.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::chat::TurnRecord;

/// The version that this program writes. It goes up when an old record could no longer be read as a new one.
pub const VERSION: u8 = 1;

/// What a turn takes besides its text, in bytes: names, times, numbers. For bounds alone, so a guess will do.
const TURN_OVERHEAD: usize = 512;

/// A record as it is written.
///
/// # Errors
/// `Broken` for a value that JSON cannot hold; none of the house's records is one.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|_| StoreError::Broken("a record cannot be written as JSON".into()))?;
    Ok(bytes)
}

/// The record that these bytes hold; none, and a warning, where they are of an unknown version or no such record.
///
/// `what` names the kind of record in the log.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Option<T> {
    let read = read(bytes);
    if read.is_none() {
        // The parser's own words may quote the record, so they stay out of the log.
        tracing::warn!(
            record = what,
            version = bytes.first().copied(),
            "unreadable record passed over"
        );
    }
    read
}

/// The same without a word: for who looks at many, and says in one how many do not read.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

/// About how much memory a turn takes, in bytes.
pub fn weight(turn: &TurnRecord) -> usize {
    let drafts = turn.drafts.iter().map(|draft| draft.text.len());
    let followup = turn.followup.as_ref().map_or(0, |late| late.text.len());
    TURN_OVERHEAD + turn.question.len() + turn.text.len() + drafts.sum::<usize>() + followup
}

/// About how much memory a record takes that is mostly this text, in bytes.
pub fn weight_of_text(text: &str) -> usize {
    TURN_OVERHEAD + text.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::store::contract::turn;

    #[test]
    fn a_record_survives_its_bytes() {
        let turn = turn(7, "m", "what?").interrupted();
        let bytes = encode(&turn).unwrap();
        assert_eq!(bytes[0], VERSION);
        assert_eq!(decode::<TurnRecord>("turn", &bytes), Some(turn));
    }

    #[test]
    fn what_is_of_no_known_version_or_no_record_is_none() {
        let mut later = encode(&turn(7, "m", "what?")).unwrap();
        later[0] = VERSION + 1;
        for bytes in [
            &later[..],
            &[],
            &[VERSION],
            b"\x01{\"turn\":",
            b"\x01[]",
            b"\x01\xff\xfe",
        ] {
            assert_eq!(decode::<TurnRecord>("turn", bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn all_text_weighs() {
        let mut heavy = turn(7, "m", "what?");
        let before = weight(&heavy);
        heavy.text = "x".repeat(1000);
        assert_eq!(weight(&heavy), before + 1000);
    }
}
