//! The journal: which records changed and are still to be handed over to what several instances share.
//!
//! A mark names what changed, not how: what is handed over is the record as it stands then, so a record that changed a thousand times while
//! Redis was away is handed over once. A mark is written before the change that it stands for, and carries a number, so that it is only
//! removed if nothing changed since it was read. The order of the marks is that in which they are to be handed over.
//!
//! | key | names |
//! |---|---|
//! | `j/a/KEY` | a saved answer, written or removed |
//! | `j/f/CONVERSATION` | a conversation that was forgotten |
//! | `j/i/STARTED-ID` | an incident |
//! | `j/l/` | when the service was seen to run |
//! | `j/n/CONVERSATION` | a conversation's record |
//! | `j/t/TURN/CONVERSATION` | a turn, and whether it waits for a late answer; in the order of time |

use std::ops::Bound;

use sled::{Db, IVec};

use super::cached;
use super::layout::{self, meaning};
use super::queue::Op;
use crate::chat::{ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::record::decode;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A saved answer.
    Answer(CacheKey),
    /// A conversation was forgotten.
    Forgotten(ConversationId),
    /// An incident, by its key in the tree.
    Incident(String),
    /// When the service was seen to run.
    Life,
    /// A conversation's record.
    Conversation(ConversationId),
    /// A turn.
    Turn(ConversationId, TurnId),
}

/// What changed, as it stands; none where it is not there any more.
#[derive(Debug)]
pub enum Standing {
    /// A saved answer.
    Answer(CacheKey, Option<CachedAnswer>),
    /// A conversation was forgotten.
    Forgotten(ConversationId),
    /// An incident, with its key in the tree.
    Incident(String, Option<Incident>),
    /// When the service was seen to run.
    Life(Option<Life>),
    /// A conversation's record.
    Conversation(ConversationId, Option<ConversationRecord>),
    /// A turn, and whether it waits for a late answer.
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

/// A mark of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What changed.
    pub changed: Changed,
    /// Which change it was.
    number: IVec,
}

impl Mark {
    /// What it is called in the tree.
    pub fn name(&self) -> String {
        self.changed.key()
    }
}

/// Marks what an operation is about to change.
pub(super) fn mark(db: &Db, op: &Op) -> Result<(), StoreError> {
    for changed in Changed::of(op) {
        let number = db.generate_id().map_err(|error| meaning(&error))?;
        layout::put(db, &changed.key(), number.to_be_bytes().to_vec())?;
    }
    Ok(())
}

/// The next marks in their order, those behind `after` if given.
pub(super) fn marks(db: &Db, after: Option<&Mark>, limit: usize) -> Result<Vec<Mark>, StoreError> {
    let from = after.map_or(Bound::Included(b"j/".to_vec()), |mark| {
        Bound::Excluded(mark.changed.key().into_bytes())
    });
    let mut found = Vec::new();
    for entry in db
        .range((from, Bound::Excluded(b"j0".to_vec())))
        .take(limit)
    {
        let (key, number) = entry.map_err(|error| meaning(&error))?;
        // A mark of a later version is for that version to hand over.
        found.extend(Changed::parse(&key).map(|changed| Mark { changed, number }));
    }
    Ok(found)
}

/// What a change came to.
pub(super) fn standing(db: &Db, changed: &Changed) -> Result<Standing, StoreError> {
    Ok(match changed {
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
        // One that does not read is for the version that wrote it.
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

/// Whether this is still to be handed over.
pub(super) fn is_marked(db: &Db, changed: &Changed) -> Result<bool, StoreError> {
    Ok(layout::get(db, &changed.key())?.is_some())
}

/// Removes marks, where nothing changed since they were read.
pub(super) fn unmark(db: &Db, marks: &[Mark]) -> Result<(), StoreError> {
    for mark in marks {
        // That it was marked anew meanwhile is as good an end.
        let _ = db
            .compare_and_swap(mark.changed.key(), Some(&mark.number), None::<IVec>)
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
    fn marks_come_in_order_and_stay_until_what_they_name_was_handed_over_as_it_is() {
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
        let names: Vec<_> = all.iter().map(|mark| mark.changed.clone()).collect();
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
            .map(|mark| mark.changed)
            .collect();
        assert_eq!(left, [Changed::Turn(conversation(1), turn_id(9))]);
        assert!(
            is_marked(&db, &left[0]).unwrap() && !is_marked(&db, &Changed::Answer(key(1))).unwrap()
        );
    }
}
