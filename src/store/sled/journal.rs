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

use super::answers;
use super::queue::WriteOp;
use super::schema::{self, map_sled_error};
use crate::domain::{ConversationId, Incident, ServiceLifetime, TurnId, TurnRecord};
use crate::store::codec::decode;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

/// The identity of a changed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKey {
    Answer(CacheKey),
    DeletedConversation(ConversationId),
    /// An incident, by its key in the tree.
    Incident(String),
    ServiceLifetime,
    Conversation(ConversationId),
    Turn(ConversationId, TurnId),
}

/// The current state of a changed record. `None` stands for a record that no longer exists.
#[derive(Debug)]
pub enum RecordState {
    Answer(CacheKey, Option<CachedAnswer>),
    DeletedConversation(ConversationId),
    /// An incident, with its key in the tree.
    Incident(String, Option<Incident>),
    ServiceLifetime(Option<ServiceLifetime>),
    Conversation(ConversationId, Option<ConversationRecord>),
    /// A turn, and whether it waits for a follow-up.
    Turn(ConversationId, TurnId, Option<Box<TurnRecord>>, bool),
}

impl RecordKey {
    fn entry_key(&self) -> String {
        match self {
            RecordKey::Answer(key) => format!("j/a/{key}"),
            RecordKey::DeletedConversation(id) => format!("j/f/{id}"),
            RecordKey::Incident(key) => format!("j/{key}"),
            RecordKey::ServiceLifetime => "j/l/".into(),
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
            "i" => Some(RecordKey::Incident(key.to_owned())),
            "l" => Some(RecordKey::ServiceLifetime),
            "n" => Some(RecordKey::Conversation(name.parse().ok()?)),
            "t" => {
                let (turn, conversation) = name.split_once('/')?;
                Some(RecordKey::Turn(
                    conversation.parse().ok()?,
                    turn.parse().ok()?,
                ))
            }
            _ => None,
        }
    }

    /// Lists the records that an operation changes and other instances need.
    fn changed_by(op: &WriteOp) -> Vec<Self> {
        match op {
            WriteOp::CreateConversation(id, _) => vec![RecordKey::Conversation(*id)],
            WriteOp::WriteTurn(conversation, turn) => {
                vec![RecordKey::Turn(*conversation, turn.turn)]
            }
            WriteOp::UpdateTurn(conversation, turn, _)
            | WriteOp::SetFollowupPending(conversation, turn, _) => {
                vec![RecordKey::Turn(*conversation, *turn)]
            }
            WriteOp::DeleteConversation(id) => vec![RecordKey::DeletedConversation(*id)],
            WriteOp::WriteIncident(incident) => {
                vec![RecordKey::Incident(schema::incident_key(incident))]
            }
            WriteOp::SaveServiceLifetime(_) => vec![RecordKey::ServiceLifetime],
            WriteOp::PutAnswer(key, _) => vec![RecordKey::Answer(*key)],
            WriteOp::RemoveAnswers(keys) => {
                keys.iter().map(|key| RecordKey::Answer(*key)).collect()
            }
            _ => Vec::new(),
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
}

pub(super) fn record_changes(db: &Db, op: &WriteOp) -> Result<(), StoreError> {
    for record in RecordKey::changed_by(op) {
        let number = db.generate_id().map_err(|error| map_sled_error(&error))?;
        schema::put(db, &record.entry_key(), number.to_be_bytes().to_vec())?;
    }
    Ok(())
}

/// Returns the next entries in key order, with `after` only those behind it.
pub(super) fn read_entries(
    db: &Db,
    after: Option<&JournalEntry>,
    limit: usize,
) -> Result<Vec<JournalEntry>, StoreError> {
    let from = after.map_or(Bound::Included(b"j/".to_vec()), |entry| {
        Bound::Excluded(entry.record.entry_key().into_bytes())
    });
    let mut found = Vec::new();
    for entry in db
        .range((from, Bound::Excluded(b"j0".to_vec())))
        .take(limit)
    {
        let (key, number) = entry.map_err(|error| map_sled_error(&error))?;
        // Entries of a later version are left for that version to replicate.
        found.extend(RecordKey::parse(&key).map(|changed| JournalEntry {
            record: changed,
            change_number: number,
        }));
    }
    Ok(found)
}

pub(super) fn read_state(db: &Db, record: &RecordKey) -> Result<RecordState, StoreError> {
    Ok(match record {
        RecordKey::Answer(key) => RecordState::Answer(*key, answers::get_answer(db, *key)?),
        RecordKey::DeletedConversation(id) => RecordState::DeletedConversation(*id),
        RecordKey::Incident(key) => {
            let bytes = schema::get(db, key)?;
            RecordState::Incident(
                key.clone(),
                bytes.and_then(|bytes| decode("incident", &bytes)),
            )
        }
        RecordKey::ServiceLifetime => RecordState::ServiceLifetime(schema::service_lifetime(db)?),
        // An unreadable record is left for the version that wrote it.
        RecordKey::Conversation(id) => {
            RecordState::Conversation(*id, schema::conversation(db, *id).ok().flatten())
        }
        RecordKey::Turn(conversation, turn) => {
            let record = schema::turn(db, *conversation, *turn)?.map(Box::new);
            RecordState::Turn(
                *conversation,
                *turn,
                record,
                schema::is_followup_pending(db, *conversation, *turn)?,
            )
        }
    })
}

pub(super) fn awaits_replication(db: &Db, record: &RecordKey) -> Result<bool, StoreError> {
    Ok(schema::get(db, &record.entry_key())?.is_some())
}

/// Removes entries. An entry stays if its record changed since it was read.
pub(super) fn clear_entries(db: &Db, entries: &[JournalEntry]) -> Result<(), StoreError> {
    for entry in entries {
        // A failed swap means that the record changed again, and the new entry has to stay.
        let _ = db
            .compare_and_swap(
                entry.record.entry_key(),
                Some(&entry.change_number),
                None::<IVec>,
            )
            .map_err(|error| map_sled_error(&error))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::contract::{cache_key, cached_answer, conversation, turn, turn_id};

    #[test]
    fn entries_are_ordered_and_stay_until_cleared_unchanged() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let late = WriteOp::WriteTurn(conversation(1), turn(9, "m", "?"));
        let early = WriteOp::WriteTurn(conversation(2), turn(5, "m", "?"));
        for op in [
            &late,
            &early,
            &WriteOp::DeleteConversation(conversation(3)),
            &WriteOp::PutAnswer(cache_key(1), cached_answer(1, 1, "a")),
            &early,
        ] {
            record_changes(&db, op).unwrap();
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
        record_changes(&db, &late).unwrap();
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
