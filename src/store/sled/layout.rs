//! Which keys hold what, and every read and change of the tree, blocking.
//!
//! | key | holds |
//! |---|---|
//! | `c/CONVERSATION` | the conversation's record |
//! | `t/CONVERSATION/TURN` | a turn; in the order of the keys, which is that of time |
//! | `m/CONVERSATION/MESSAGE` | the id of the turn that the message opened |
//! | `r/CONVERSATION/TURN` | nothing: that the turn runs |
//! | `b/PROVIDER` | a breaker's state |
//!
//! Ids of conversations and turns have a fixed length, so whatever a client calls its message, no key can be taken for another.

use sled::{Batch, Db, Error};

use super::queue::Op;
use crate::chat::{ClientMsgId, ConversationId, TurnId, TurnRecord, TurnState};
use crate::store::record::{decode, encode};
use crate::store::{BreakerRecord, ConversationRecord, StoreError};

fn conversation_key(id: ConversationId) -> String {
    format!("c/{id}")
}

fn turn_key(conversation: ConversationId, turn: TurnId) -> String {
    format!("t/{conversation}/{turn}")
}

fn message_key(conversation: ConversationId, message: &ClientMsgId) -> String {
    format!("m/{conversation}/{message}")
}

fn running_key(conversation: ConversationId, turn: TurnId) -> String {
    format!("r/{conversation}/{turn}")
}

/// The turn that a key of the running index names.
fn running(key: &[u8]) -> Option<(ConversationId, TurnId)> {
    let (conversation, turn) = std::str::from_utf8(key).ok()?.strip_prefix("r/")?.split_once('/')?;
    Some((conversation.parse().ok()?, turn.parse().ok()?))
}

/// What an error of sled means for the one who asked. Its own words carry paths, so they are not passed on.
pub(super) fn meaning(error: &Error) -> StoreError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    match error {
        // A large page lies in a file of its own, which may be missing or cut.
        Error::Io(io) if !matches!(io.kind(), NotFound | InvalidData | UnexpectedEof) => {
            StoreError::Broken(format!("the disk refuses ({})", io.kind()))
        }
        _ => StoreError::Damaged("part of it cannot be read".into()),
    }
}

fn get(db: &Db, key: &str) -> Result<Option<sled::IVec>, StoreError> {
    db.get(key).map_err(|error| meaning(&error))
}

/// The conversation's record.
///
/// # Errors
/// `Damaged` where it is there but cannot be read: whose conversation it is must not be guessed.
pub(super) fn conversation(db: &Db, id: ConversationId) -> Result<Option<ConversationRecord>, StoreError> {
    let Some(bytes) = get(db, &conversation_key(id))? else {
        return Ok(None);
    };
    let record = decode("conversation", &bytes);
    let unreadable = || StoreError::Damaged("a conversation's record cannot be read".into());
    record.map(Some).ok_or_else(unreadable)
}

/// One turn.
pub(super) fn turn(
    db: &Db,
    conversation: ConversationId,
    turn: TurnId,
) -> Result<Option<TurnRecord>, StoreError> {
    let bytes = get(db, &turn_key(conversation, turn))?;
    Ok(bytes.and_then(|bytes| decode("turn", &bytes)))
}

/// The turn that a message opened.
pub(super) fn turn_of(
    db: &Db,
    conversation: ConversationId,
    message: &ClientMsgId,
) -> Result<Option<TurnRecord>, StoreError> {
    match opened(db, conversation, message)? {
        Some(id) => turn(db, conversation, id),
        None => Ok(None),
    }
}

fn opened(
    db: &Db,
    conversation: ConversationId,
    message: &ClientMsgId,
) -> Result<Option<TurnId>, StoreError> {
    let bytes = get(db, &message_key(conversation, message))?;
    Ok(bytes.and_then(|bytes| decode("message", &bytes)))
}

/// The last turns before `before`, oldest first.
pub(super) fn turns(
    db: &Db,
    conversation: ConversationId,
    before: Option<TurnId>,
    limit: usize,
) -> Result<Vec<TurnRecord>, StoreError> {
    let first = format!("t/{conversation}/");
    // '0' follows '/': the first key behind all of the conversation's.
    let end = before.map_or_else(|| format!("t/{conversation}0"), |before| turn_key(conversation, before));
    let mut found = Vec::new();
    for entry in db.range(first..end).rev() {
        if found.len() >= limit {
            break;
        }
        let (_, bytes) = entry.map_err(|error| meaning(&error))?;
        found.extend(decode::<TurnRecord>("turn", &bytes));
    }
    found.reverse();
    Ok(found)
}

/// All breakers.
pub(crate) fn breakers(db: &Db) -> Result<Vec<BreakerRecord>, StoreError> {
    let mut found = Vec::new();
    for entry in db.scan_prefix("b/") {
        let (_, bytes) = entry.map_err(|error| meaning(&error))?;
        found.extend(decode::<BreakerRecord>("breaker", &bytes));
    }
    Ok(found)
}

/// Makes a change, each whole or not at all, also over a crash. It is visible at once and durable after the next flush.
pub(super) fn apply(db: &Db, op: &Op) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    match op {
        Op::Begin(id, record) => {
            let key = conversation_key(*id);
            if get(db, &key)?.is_none() {
                batch.insert(key.as_str(), encode(record)?);
            }
        }
        Op::Turn(conversation, turn) => write_turn(db, &mut batch, *conversation, turn)?,
        Op::Checkpoint(conversation, turn) => {
            // The index decides: a turn that ended or was forgotten meanwhile does not come back.
            let runs = get(db, &running_key(*conversation, turn.turn))?.is_some();
            if runs && turn.state == TurnState::Running {
                batch.insert(turn_key(*conversation, turn.turn).as_str(), encode(turn)?);
            }
        }
        Op::Forget(id) => forget(db, &mut batch, *id)?,
        Op::Breaker(provider, record) => {
            let key = format!("b/{provider}");
            match record {
                Some(record) => batch.insert(key.as_str(), encode(record)?),
                None => batch.remove(key.as_str()),
            }
        }
        #[cfg(test)]
        #[allow(clippy::panic)]
        Op::Panic => panic!("asked to"),
    }
    db.apply_batch(batch).map_err(|error| meaning(&error))
}

fn write_turn(
    db: &Db,
    batch: &mut Batch,
    conversation: ConversationId,
    turn: &TurnRecord,
) -> Result<(), StoreError> {
    if opened(db, conversation, &turn.client_msg_id)?.is_none() {
        let key = message_key(conversation, &turn.client_msg_id);
        batch.insert(key.as_str(), encode(&turn.turn)?);
    }
    let running = running_key(conversation, turn.turn);
    if turn.state == TurnState::Running {
        batch.insert(running.as_str(), &[]);
    } else {
        batch.remove(running.as_str());
    }
    batch.insert(turn_key(conversation, turn.turn).as_str(), encode(turn)?);
    Ok(())
}

fn forget(db: &Db, batch: &mut Batch, id: ConversationId) -> Result<(), StoreError> {
    for kind in ["t", "m", "r"] {
        for key in db.scan_prefix(format!("{kind}/{id}/")).keys() {
            batch.remove(key.map_err(|error| meaning(&error))?);
        }
    }
    batch.remove(conversation_key(id).as_str());
    Ok(())
}

/// Turns that the index says are running belong to a process that is gone: they become interrupted, with their text as last saved.
///
/// Work and memory are proportional to the turns that ran, not to the store. Gives those turns, for who wants to answer them late.
pub(crate) fn interrupt_running(db: &Db) -> Result<Vec<(ConversationId, TurnId)>, StoreError> {
    let mut interrupted = Vec::new();
    for key in db.scan_prefix("r/").keys() {
        let key = key.map_err(|error| meaning(&error))?;
        let mut batch = Batch::default();
        if let Some((conversation, id)) = running(&key)
            && let Some(record) = turn(db, conversation, id)?
            && record.state == TurnState::Running
        {
            let record = record.interrupted();
            batch.insert(turn_key(conversation, id).as_str(), encode(&record)?);
            interrupted.push((conversation, id));
        }
        batch.remove(key);
        db.apply_batch(batch).map_err(|error| meaning(&error))?;
    }
    db.flush().map_err(|error| meaning(&error))?;
    Ok(interrupted)
}
