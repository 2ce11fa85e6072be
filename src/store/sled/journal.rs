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

use super::cached;
use super::layout::{self, meaning};
use super::queue::Op;
use crate::chat::{ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::record::decode;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

/// The identity of a changed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Answer(CacheKey),
    Forgotten(ConversationId),
    /// An incident, by its key in the tree.
    Incident(String),
    Life,
    Conversation(ConversationId),
    Turn(ConversationId, TurnId),
}

/// The current state of a changed record. `None` stands for a record that no longer exists.
#[derive(Debug)]
pub enum Standing {
    Answer(CacheKey, Option<CachedAnswer>),
    Forgotten(ConversationId),
    /// An incident, with its key in the tree.
    Incident(String, Option<Incident>),
    Life(Option<Life>),
    Conversation(ConversationId, Option<ConversationRecord>),
    /// A turn, and whether it waits for a follow-up.
    Turn(ConversationId, TurnId, Option<Box<TurnRecord>>, bool),
}

impl Changed {
    fn key(&self) -> String {
        match self {
            Changed::Answer(key) => format!("j/a/{key}"),
            Changed::Forgotten(id) => format!("j/f/{id}"),
            Changed::Incident(key) => format!("j/{key}"),
            Changed::Life => "j/l/".into(),
            Changed::Conversation(id) => format!("j/n/{id}"),
            Changed::Turn(conversation, turn) => format!("j/t/{turn}/{conversation}"),
        }
    }

    fn parse(key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix("j/")?;
        let (kind, name) = key.split_once('/')?;
        match kind {
            "a" => Some(Changed::Answer(CacheKey::parse(name)?)),
            "f" => Some(Changed::Forgotten(name.parse().ok()?)),
            "i" => Some(Changed::Incident(key.to_owned())),
            "l" => Some(Changed::Life),
            "n" => Some(Changed::Conversation(name.parse().ok()?)),
            "t" => {
                let (turn, conversation) = name.split_once('/')?;
                Some(Changed::Turn(
                    conversation.parse().ok()?,
                    turn.parse().ok()?,
                ))
            }
            _ => None,
        }
    }

    /// Lists the records that an operation changes and other instances need.
    fn of(op: &Op) -> Vec<Self> {
        match op {
            Op::Begin(id, _) => vec![Changed::Conversation(*id)],
            Op::Turn(conversation, turn) => vec![Changed::Turn(*conversation, turn.turn)],
            Op::Amend(conversation, turn, _) | Op::Waiting(conversation, turn, _) => {
                vec![Changed::Turn(*conversation, *turn)]
            }
            Op::Forget(id) => vec![Changed::Forgotten(*id)],
            Op::Incident(incident) => vec![Changed::Incident(layout::incident_key(incident))],
            Op::Life(_) => vec![Changed::Life],
            Op::Cached(key, _) => vec![Changed::Answer(*key)],
            Op::Uncached(keys) => keys.iter().map(|key| Changed::Answer(*key)).collect(),
            _ => Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub changed: Changed,
    number: IVec,
}

impl Mark {
    pub fn name(&self) -> String {
        self.changed.key()
    }
}

pub(super) fn mark(db: &Db, op: &Op) -> Result<(), StoreError> {
    for record in Changed::of(op) {
        let number = db.generate_id().map_err(|error| meaning(&error))?;
        layout::put(db, &record.key(), number.to_be_bytes().to_vec())?;
    }
    Ok(())
}

/// Returns the next entries in key order, with `after` only those behind it.
pub(super) fn marks(db: &Db, after: Option<&Mark>, limit: usize) -> Result<Vec<Mark>, StoreError> {
    let from = after.map_or(Bound::Included(b"j/".to_vec()), |entry| {
        Bound::Excluded(entry.changed.key().into_bytes())
    });
    let mut found = Vec::new();
    for entry in db
        .range((from, Bound::Excluded(b"j0".to_vec())))
        .take(limit)
    {
        let (key, number) = entry.map_err(|error| meaning(&error))?;
        // Entries of a later version are left for that version to replicate.
        found.extend(Changed::parse(&key).map(|changed| Mark { changed, number }));
    }
    Ok(found)
}

pub(super) fn standing(db: &Db, record: &Changed) -> Result<Standing, StoreError> {
    Ok(match record {
        Changed::Answer(key) => Standing::Answer(*key, cached::get_answer(db, *key)?),
        Changed::Forgotten(id) => Standing::Forgotten(*id),
        Changed::Incident(key) => {
            let bytes = layout::get(db, key)?;
            Standing::Incident(
                key.clone(),
                bytes.and_then(|bytes| decode("incident", &bytes)),
            )
        }
        Changed::Life => Standing::Life(layout::life(db)?),
        // An unreadable record is left for the version that wrote it.
        Changed::Conversation(id) => {
            Standing::Conversation(*id, layout::conversation(db, *id).ok().flatten())
        }
        Changed::Turn(conversation, turn) => {
            let record = layout::turn(db, *conversation, *turn)?.map(Box::new);
            Standing::Turn(
                *conversation,
                *turn,
                record,
                layout::waits(db, *conversation, *turn)?,
            )
        }
    })
}

pub(super) fn is_marked(db: &Db, record: &Changed) -> Result<bool, StoreError> {
    Ok(layout::get(db, &record.key())?.is_some())
}

/// Removes entries. An entry stays if its record changed since it was read.
pub(super) fn unmark(db: &Db, entries: &[Mark]) -> Result<(), StoreError> {
    for entry in entries {
        // A failed swap means that the record changed again, and the new entry has to stay.
        let _ = db
            .compare_and_swap(entry.changed.key(), Some(&entry.number), None::<IVec>)
            .map_err(|error| meaning(&error))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::contract::{cached, conversation, key, turn, turn_id};

    #[test]
    fn entries_are_ordered_and_stay_until_cleared_unchanged() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let late = Op::Turn(conversation(1), turn(9, "m", "?"));
        let early = Op::Turn(conversation(2), turn(5, "m", "?"));
        for op in [
            &late,
            &early,
            &Op::Forget(conversation(3)),
            &Op::Cached(key(1), cached(1, 1, "a")),
            &early,
        ] {
            mark(&db, op).unwrap();
        }
        let all = marks(&db, None, 9).unwrap();
        let names: Vec<_> = all.iter().map(|entry| entry.changed.clone()).collect();
        let expected = [
            Changed::Answer(key(1)),
            Changed::Forgotten(conversation(3)),
            Changed::Turn(conversation(2), turn_id(5)),
            Changed::Turn(conversation(1), turn_id(9)),
        ];
        assert_eq!(names, expected);
        assert_eq!(marks(&db, Some(&all[1]), 1).unwrap(), all[2..3]);
        mark(&db, &late).unwrap();
        unmark(&db, &all).unwrap();
        let left: Vec<_> = marks(&db, None, 9)
            .unwrap()
            .into_iter()
            .map(|entry| entry.changed)
            .collect();
        assert_eq!(left, [Changed::Turn(conversation(1), turn_id(9))]);
        assert!(
            is_marked(&db, &left[0]).unwrap() && !is_marked(&db, &Changed::Answer(key(1))).unwrap()
        );
    }
}
