//! The journal: the records that changed and still have to be replicated to Redis.
//!
//! An entry names the changed record but not the change. The record's current state is replicated,
//! so a record that changed a thousand times during an outage is sent once. An entry is written
//! before its change and carries a number, so that it is removed only if the record has not changed
//! since the entry was read. Entries are replicated in key order.
//!
//! | key | names |
//! |---|---|
//! | `j/a/KEY` | a cached answer, written or removed |
//! | `j/f/CONVERSATION` | a deleted conversation |
//! | `j/i/STARTED-ID` | an incident |
//! | `j/l/` | the service's lifetime |
//! | `j/n/CONVERSATION` | a conversation's record |
//! | `j/t/TURN/CONVERSATION` | a turn and its pending follow-up; ordered by time |

use std::ops::Bound;

use sled::{Db, IVec};

use super::tree::Result;
use super::{answers, conversations, documents};
use crate::domain::{ConversationId, TurnId, TurnRecord};
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, DocumentKind};

/// The identity of a changed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKey {
    Answer(CacheKey),
    DeletedConversation(ConversationId),
    Document(DocumentKind, String),
    Conversation(ConversationId),
    Turn(ConversationId, TurnId),
}

/// The current state of a changed record. `None` stands for a record that no longer exists.
#[derive(Debug)]
pub enum RecordState {
    Answer(CacheKey, Option<CachedAnswer>),
    DeletedConversation(ConversationId),
    Document(DocumentKind, String, Option<Vec<u8>>),
    Conversation(ConversationId, Option<ConversationRecord>),
    /// A turn, and whether it waits for a follow-up.
    Turn(ConversationId, TurnId, Option<Box<TurnRecord>>, bool),
}

impl RecordKey {
    fn entry_key(&self) -> String {
        match self {
            RecordKey::Answer(key) => format!("j/a/{key}"),
            RecordKey::DeletedConversation(id) => format!("j/f/{id}"),
            RecordKey::Document(kind, key) => format!("j/{}/{key}", kind.letter()),
            RecordKey::Conversation(id) => format!("j/n/{id}"),
            RecordKey::Turn(conversation, turn) => format!("j/t/{turn}/{conversation}"),
        }
    }

    fn parse(key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix("j/")?;
        let (kind, name) = key.split_once('/')?;
        match kind {
            "a" => Some(RecordKey::Answer(CacheKey::parse(name)?)),
            "f" => Some(RecordKey::DeletedConversation(name.parse().ok()?)),
            "i" => Some(RecordKey::Document(DocumentKind::Incident, name.into())),
            "l" => Some(RecordKey::Document(DocumentKind::Lifetime, name.into())),
            "n" => Some(RecordKey::Conversation(name.parse().ok()?)),
            "t" => {
                let (turn, id) = name.split_once('/')?;
                Some(RecordKey::Turn(id.parse().ok()?, turn.parse().ok()?))
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub record: RecordKey,
    change_number: IVec,
}

impl JournalEntry {
    pub fn key(&self) -> String {
        self.record.entry_key()
    }

    pub fn is_deletion(&self) -> bool {
        matches!(self.record, RecordKey::DeletedConversation(_))
    }
}

pub(super) fn record_change(db: &Db, record: &RecordKey) -> Result {
    let number = db.generate_id()?;
    db.insert(record.entry_key(), &number.to_be_bytes())?;
    Ok(())
}

/// Returns the next entries in key order, with `after` only those behind it.
pub(super) fn read_entries(
    db: &Db,
    after: Option<&JournalEntry>,
    limit: usize,
) -> Result<Vec<JournalEntry>> {
    let from = after.map_or(Bound::Included(b"j/".to_vec()), |entry| {
        Bound::Excluded(entry.record.entry_key().into_bytes())
    });
    let end = Bound::Excluded(b"j0".to_vec());
    let mut found = Vec::new();
    for entry in db.range((from, end)).take(limit) {
        let (key, change_number) = entry?;
        // Entries of a later version are left for that version to replicate.
        found.extend(RecordKey::parse(&key).map(|record| JournalEntry {
            record,
            change_number,
        }));
    }
    Ok(found)
}

pub(super) fn read_state(db: &Db, record: &RecordKey) -> Result<RecordState> {
    Ok(match record {
        RecordKey::Answer(key) => RecordState::Answer(*key, answers::get_answer(db, *key)?),
        RecordKey::DeletedConversation(id) => RecordState::DeletedConversation(*id),
        RecordKey::Document(kind, key) => {
            RecordState::Document(*kind, key.clone(), documents::get(db, *kind, key)?)
        }
        // An unreadable record is left for the version that wrote it.
        RecordKey::Conversation(id) => {
            RecordState::Conversation(*id, conversations::conversation(db, *id).ok().flatten())
        }
        RecordKey::Turn(id, turn) => {
            let record = conversations::turn(db, *id, *turn)?.map(Box::new);
            let is_pending = conversations::is_followup_pending(db, *id, *turn)?;
            RecordState::Turn(*id, *turn, record, is_pending)
        }
    })
}

pub(super) fn awaits_replication(db: &Db, record: &RecordKey) -> Result<bool> {
    Ok(db.contains_key(record.entry_key())?)
}

/// Removes entries. An entry stays if its record changed since it was read.
pub(super) fn clear_entries(db: &Db, entries: &[JournalEntry]) -> Result {
    for entry in entries {
        // A failed swap means that the record changed again, and the new entry has to stay.
        let old = Some(&entry.change_number);
        let _ = db.compare_and_swap(entry.key(), old, None::<IVec>)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::contract::{cache_key, conversation, turn_id};

    #[test]
    fn entries_are_ordered_and_stay_until_cleared_unchanged() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let late = RecordKey::Turn(conversation(1), turn_id(9));
        let early = RecordKey::Turn(conversation(2), turn_id(5));
        for changed in [
            &late,
            &early,
            &RecordKey::DeletedConversation(conversation(3)),
            &RecordKey::Answer(cache_key(1)),
            &early,
        ] {
            record_change(&db, changed).unwrap();
        }
        let all = read_entries(&db, None, 9).unwrap();
        let names: Vec<_> = all.iter().map(|entry| entry.record.clone()).collect();
        let expected = [
            RecordKey::Answer(cache_key(1)),
            RecordKey::DeletedConversation(conversation(3)),
            RecordKey::Turn(conversation(2), turn_id(5)),
            RecordKey::Turn(conversation(1), turn_id(9)),
        ];
        assert_eq!(names, expected);
        assert_eq!(read_entries(&db, Some(&all[1]), 1).unwrap(), all[2..3]);
        record_change(&db, &late).unwrap();
        clear_entries(&db, &all).unwrap();
        let left: Vec<_> = read_entries(&db, None, 9)
            .unwrap()
            .into_iter()
            .map(|entry| entry.record)
            .collect();
        assert_eq!(left, [RecordKey::Turn(conversation(1), turn_id(9))]);
        assert!(
            awaits_replication(&db, &left[0]).unwrap()
                && !awaits_replication(&db, &RecordKey::Answer(cache_key(1))).unwrap()
        );
    }
}
