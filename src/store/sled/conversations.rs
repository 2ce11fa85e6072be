//! Conversations in the tree. All functions block. The keys of the tree, of all kinds:
//!
//! | key | holds |
//! |---|---|
//! | `c/CONVERSATION` | the conversation's record |
//! | `v/VISITOR/BEGAN/CONVERSATION` | nothing: index of a visitor's conversations by start time |
//! | `t/CONVERSATION/TURN` | a turn; ordered by time |
//! | `m/CONVERSATION/MESSAGE` | the id of the turn that the message started |
//! | `r/CONVERSATION/TURN` | nothing: index of running turns |
//! | `w/CONVERSATION/TURN` | nothing: index of turns waiting for a follow-up |
//! | `b/PROVIDER` | a breaker's state |
//! | `s/PROVIDER` | a provider's daily spend |
//! | `i/STARTED-ID` | an incident; ordered by time |
//! | `l` | the service's lifetime |
//! | `n/NAME` | a document of the service |
//! | `a/KEY` | a cached answer |
//! | `o/CONVERSATION/KEY` | nothing: index of the cached answers from a conversation |
//! | `j/…` | journal entries, see [`super::journal`] |
//!
//! Conversation and turn ids have a fixed length and visitors are stored as hashes, so no
//! client-chosen name can make one key look like another.

use std::fmt::Display;

use sha2::{Digest as _, Sha256};
use sled::Db;

use super::answers;
use super::tree::{Result, get, mark, put, remove};
use crate::domain::{ClientMsgId, ConversationId, TurnId, TurnRecord, TurnState, TurnUpdate};
use crate::store::ConversationRecord;
use crate::store::codec::{decode, decode_conversation};

fn conversation_key(id: ConversationId) -> String {
    format!("c/{id}")
}

fn subject_prefix(subject: &str) -> String {
    format!("v/{:x}/", Sha256::digest(subject))
}

/// The key of a conversation in its visitor's index. `None` if it is anonymous.
fn subject_key(id: ConversationId, record: &ConversationRecord) -> Option<String> {
    let prefix = subject_prefix(record.subject.as_ref()?);
    Some(format!("{prefix}{:016x}/{id}", record.started_at.0))
}

/// The key of something in a conversation: a turn, or an index entry of a turn or a message.
fn key(kind: char, id: ConversationId, name: impl Display) -> String {
    format!("{kind}/{id}/{name}")
}

fn turn_key(id: ConversationId, turn: TurnId) -> String {
    key('t', id, turn)
}

/// Parses a `CONVERSATION/TURN` key below `index`.
fn parse_index_key(key: &[u8], index: &str) -> Option<(ConversationId, TurnId)> {
    let key = str::from_utf8(key).ok()?.strip_prefix(index)?;
    let (conversation, turn) = key.split_once('/')?;
    Some((conversation.parse().ok()?, turn.parse().ok()?))
}

pub(super) fn conversation(db: &Db, id: ConversationId) -> Result<Option<ConversationRecord>> {
    let bytes = db.get(conversation_key(id))?;
    bytes.map(|bytes| decode_conversation(&bytes)).transpose()
}

pub(super) fn latest_conversation(db: &Db, subject: &str) -> Result<Option<ConversationId>> {
    for key in db.scan_prefix(subject_prefix(subject)).keys().rev() {
        let key = key?;
        let name = str::from_utf8(&key)
            .ok()
            .and_then(|key| key.rsplit('/').next());
        // The index entry alone is no proof: a crash may have prevented the record's write.
        if let Some(id) = name.and_then(|name| name.parse().ok())
            && let Ok(Some(record)) = conversation(db, id)
            && record.subject.as_deref() == Some(subject)
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

pub(super) fn turn(db: &Db, id: ConversationId, turn: TurnId) -> Result<Option<TurnRecord>> {
    get(db, "turn", &turn_key(id, turn))
}

pub(super) fn turn_by_message(
    db: &Db,
    id: ConversationId,
    message: &ClientMsgId,
) -> Result<Option<TurnRecord>> {
    match get(db, "message", &key('m', id, message))? {
        Some(first) => turn(db, id, first),
        None => Ok(None),
    }
}

/// Returns the last `limit` turns before `before`, oldest first.
pub(super) fn turns(
    db: &Db,
    id: ConversationId,
    before: Option<TurnId>,
    limit: usize,
) -> Result<Vec<TurnRecord>> {
    let first = format!("t/{id}/");
    // '0' follows '/', so this is the first key behind all of the conversation's turns.
    let end = before.map_or_else(|| format!("t/{id}0"), |before| turn_key(id, before));
    let mut found = Vec::new();
    for bytes in db.range(first..end).values().rev() {
        if found.len() >= limit {
            break;
        }
        found.extend(decode::<TurnRecord>("turn", &bytes?));
    }
    found.reverse();
    Ok(found)
}

/// Returns the conversation's last turn according to the keys.
pub(super) fn last_turn(db: &Db, id: ConversationId) -> Result<Option<TurnId>> {
    let last = db.scan_prefix(format!("t/{id}/")).keys().next_back();
    let last = last
        .transpose()?
        .and_then(|key| parse_index_key(&key, "t/"));
    Ok(last.map(|(_, turn)| turn))
}

pub(super) fn is_followup_pending(db: &Db, id: ConversationId, turn: TurnId) -> Result<bool> {
    Ok(db.contains_key(key('w', id, turn))?)
}

/// Returns the turns waiting for a follow-up, oldest first.
pub(super) fn pending_followups(db: &Db) -> Result<Vec<(ConversationId, TurnId)>> {
    let mut found = Vec::new();
    for key in db.scan_prefix("w/").keys() {
        found.extend(parse_index_key(&key?, "w/"));
    }
    found.sort_by_key(|(conversation, turn)| (*turn, *conversation));
    Ok(found)
}

/// Writes a conversation's record unless it has one.
pub(super) fn create_conversation(
    db: &Db,
    id: ConversationId,
    record: &ConversationRecord,
) -> Result {
    let key = conversation_key(id);
    if db.contains_key(&key)? {
        return Ok(());
    }
    if let Some(index_key) = subject_key(id, record) {
        mark(db, &index_key)?;
    }
    put(db, &key, record)
}

pub(super) fn set_followup_pending(
    db: &Db,
    id: ConversationId,
    turn: TurnId,
    is_pending: bool,
) -> Result {
    let key = key('w', id, turn);
    if is_pending {
        mark(db, &key)
    } else {
        remove(db, key)
    }
}

/// Writes the text of a running turn so far.
pub(super) fn write_checkpoint(db: &Db, id: ConversationId, turn: &TurnRecord) -> Result {
    // The index decides, so a turn that ended or was deleted meanwhile does not come back.
    let is_running = db.contains_key(key('r', id, turn.turn))?;
    if is_running && turn.state == TurnState::Running {
        put(db, &turn_key(id, turn.turn), turn)?;
    }
    Ok(())
}

pub(super) fn write_turn(db: &Db, id: ConversationId, turn: &TurnRecord) -> Result {
    let running = key('r', id, turn.turn);
    let is_running = turn.state == TurnState::Running;
    if is_running {
        mark(db, &running)?;
    }
    // If a crash prevented the write of the message's first turn, this turn takes the message.
    let message = key('m', id, &turn.client_msg_id);
    let has_turn = match get(db, "message", &message)? {
        Some(first) => first == turn.turn || db.contains_key(turn_key(id, first))?,
        None => false,
    };
    if !has_turn {
        put(db, &message, &turn.turn)?;
    }
    put(db, &turn_key(id, turn.turn), turn)?;
    if !is_running {
        remove(db, &running)?;
    }
    Ok(())
}

pub(super) fn update_turn(
    db: &Db,
    id: ConversationId,
    turn_id: TurnId,
    change: &TurnUpdate,
) -> Result {
    if let Some(mut record) = turn(db, id, turn_id)? {
        record.apply(change.clone());
        put(db, &turn_key(id, turn_id), &record)?;
    }
    // Last, so that a crash in between leaves the turn pending.
    if matches!(change, TurnUpdate::Followup(_)) {
        remove(db, key('w', id, turn_id))?;
    }
    Ok(())
}

pub(super) fn delete_conversation(db: &Db, id: ConversationId) -> Result {
    answers::remove_from_conversation(db, id)?;
    // The record goes last, so that the owner is known while anything is left.
    for kind in ["t", "m", "r", "w"] {
        for key in db.scan_prefix(format!("{kind}/{id}/")).keys() {
            remove(db, key?)?;
        }
    }
    if let Ok(Some(record)) = conversation(db, id)
        && let Some(index_key) = subject_key(id, &record)
    {
        remove(db, index_key)?;
    }
    remove(db, conversation_key(id))
}

/// Interrupts the turns that a dead process left running, with their text as last saved, marks
/// them as waiting for a follow-up and returns them.
///
/// Time and memory depend on the number of running turns, not on the size of the store.
pub(crate) fn interrupt_running(db: &Db) -> Result<Vec<(ConversationId, TurnId)>> {
    let mut interrupted = Vec::new();
    for running in db.scan_prefix("r/").keys() {
        let running = running?;
        if let Some((id, turn_id)) = parse_index_key(&running, "r/")
            && let Some(record) = turn(db, id, turn_id)?
            && record.state != TurnState::Done
        {
            put(db, &turn_key(id, turn_id), &record.into_interrupted())?;
            mark(db, &key('w', id, turn_id))?;
            interrupted.push((id, turn_id));
        }
        remove(db, running)?;
    }
    db.flush()?;
    Ok(interrupted)
}
