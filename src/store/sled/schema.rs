//! The keys of the tree, and every read and change of it. All functions block.
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

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use sled::{Db, Error};

use super::answers;
use super::journal;
use super::queue::WriteOp;
use crate::domain::{
    ClientMsgId, ConversationId, Incident, ServiceLifetime, TurnId, TurnRecord, TurnState,
    TurnUpdate,
};
use crate::store::codec::{decode, encode};
use crate::store::{
    BreakerRecord, ConversationRecord, DailySpendRecord, MAX_INCIDENTS, StoreError,
};

fn conversation_key(id: ConversationId) -> String {
    format!("c/{id}")
}

fn subject_prefix(subject: &str) -> String {
    format!("v/{:x}/", Sha256::digest(subject))
}

/// The key of a conversation in its visitor's index. `None` if it is anonymous.
fn subject_key(id: ConversationId, record: &ConversationRecord) -> Option<String> {
    let subject = record.subject.as_ref()?;
    Some(format!(
        "{}{:016x}/{id}",
        subject_prefix(subject),
        record.started_at.0
    ))
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

fn pending_key(conversation: ConversationId, turn: TurnId) -> String {
    format!("w/{conversation}/{turn}")
}

fn breaker_key(provider: &str) -> String {
    format!("b/{provider}")
}

fn daily_spend_key(provider: &str) -> String {
    format!("s/{provider}")
}

pub(super) fn incident_key(incident: &Incident) -> String {
    format!("i/{:020}-{}", incident.started.0, incident.id)
}

fn document_key(name: &str) -> String {
    format!("n/{name}")
}

const LIFETIME_KEY: &str = "l";

/// Parses a `CONVERSATION/TURN` key below `index`.
fn parse_index_key(key: &[u8], index: &str) -> Option<(ConversationId, TurnId)> {
    let (conversation, turn) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix(index)?
        .split_once('/')?;
    Some((conversation.parse().ok()?, turn.parse().ok()?))
}

/// Maps an error of sled. Its message contains paths and is not passed on.
pub(super) fn map_sled_error(error: &Error) -> StoreError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    match error {
        // sled keeps a large page in its own file, which may be missing or truncated.
        Error::Io(io) if !matches!(io.kind(), NotFound | InvalidData | UnexpectedEof) => {
            StoreError::Unavailable(format!("the disk refuses ({})", io.kind()))
        }
        _ => StoreError::Damaged("part of it cannot be read".into()),
    }
}

pub(super) fn get(db: &Db, key: &str) -> Result<Option<sled::IVec>, StoreError> {
    db.get(key).map_err(|error| map_sled_error(&error))
}

///
/// # Errors
/// `Damaged` if the record exists but cannot be decoded: its owner must not be guessed.
pub(super) fn conversation(
    db: &Db,
    id: ConversationId,
) -> Result<Option<ConversationRecord>, StoreError> {
    let Some(bytes) = get(db, &conversation_key(id))? else {
        return Ok(None);
    };
    let record = decode("conversation", &bytes);
    let unreadable = || StoreError::Damaged("a conversation's record cannot be read".into());
    record.map(Some).ok_or_else(unreadable)
}

pub(super) fn latest_conversation(
    db: &Db,
    subject: &str,
) -> Result<Option<ConversationId>, StoreError> {
    for key in db.scan_prefix(subject_prefix(subject)).keys().rev() {
        let key = key.map_err(|error| map_sled_error(&error))?;
        let name = std::str::from_utf8(&key)
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

pub(super) fn turn(
    db: &Db,
    conversation: ConversationId,
    turn: TurnId,
) -> Result<Option<TurnRecord>, StoreError> {
    let bytes = get(db, &turn_key(conversation, turn))?;
    Ok(bytes.and_then(|bytes| decode("turn", &bytes)))
}

pub(super) fn turn_by_message(
    db: &Db,
    conversation: ConversationId,
    message: &ClientMsgId,
) -> Result<Option<TurnRecord>, StoreError> {
    match turn_id_of_message(db, conversation, message)? {
        Some(id) => turn(db, conversation, id),
        None => Ok(None),
    }
}

fn turn_id_of_message(
    db: &Db,
    conversation: ConversationId,
    message: &ClientMsgId,
) -> Result<Option<TurnId>, StoreError> {
    let bytes = get(db, &message_key(conversation, message))?;
    Ok(bytes.and_then(|bytes| decode("message", &bytes)))
}

/// Returns the last `limit` turns before `before`, oldest first.
pub(super) fn turns(
    db: &Db,
    conversation: ConversationId,
    before: Option<TurnId>,
    limit: usize,
) -> Result<Vec<TurnRecord>, StoreError> {
    let first = format!("t/{conversation}/");
    // '0' follows '/', so this is the first key behind all of the conversation's turns.
    let end = before.map_or_else(
        || format!("t/{conversation}0"),
        |before| turn_key(conversation, before),
    );
    let mut found = Vec::new();
    for entry in db.range(first..end).rev() {
        if found.len() >= limit {
            break;
        }
        let (_, bytes) = entry.map_err(|error| map_sled_error(&error))?;
        found.extend(decode::<TurnRecord>("turn", &bytes));
    }
    found.reverse();
    Ok(found)
}

/// Returns the conversation's last turn according to the keys.
pub(super) fn last_turn(db: &Db, id: ConversationId) -> Result<Option<TurnId>, StoreError> {
    let last = db.scan_prefix(format!("t/{id}/")).keys().next_back();
    let key = last.transpose().map_err(|error| map_sled_error(&error))?;
    Ok(key
        .and_then(|key| parse_index_key(&key, "t/"))
        .map(|(_, turn)| turn))
}

pub(super) fn breakers(db: &Db) -> Result<Vec<BreakerRecord>, StoreError> {
    read_all(db, "b/", "breaker")
}

pub(super) fn daily_spend(db: &Db) -> Result<Vec<DailySpendRecord>, StoreError> {
    read_all(db, "s/", "daily spend")
}

pub(super) fn incidents(db: &Db) -> Result<Vec<Incident>, StoreError> {
    read_all(db, "i/", "incident")
}

pub(super) fn service_lifetime(db: &Db) -> Result<Option<ServiceLifetime>, StoreError> {
    Ok(get(db, LIFETIME_KEY)?.and_then(|bytes| decode("service lifetime", &bytes)))
}

pub(super) fn is_followup_pending(
    db: &Db,
    conversation: ConversationId,
    turn: TurnId,
) -> Result<bool, StoreError> {
    Ok(get(db, &pending_key(conversation, turn))?.is_some())
}

pub(super) fn document(db: &Db, name: &str) -> Result<Option<String>, StoreError> {
    Ok(get(db, &document_key(name))?.and_then(|bytes| decode("document", &bytes)))
}

/// Returns the turns waiting for a follow-up, oldest first.
pub(super) fn pending_followups(db: &Db) -> Result<Vec<(ConversationId, TurnId)>, StoreError> {
    let mut found = Vec::new();
    for key in db.scan_prefix("w/").keys() {
        found.extend(parse_index_key(
            &key.map_err(|error| map_sled_error(&error))?,
            "w/",
        ));
    }
    found.sort_by_key(|(conversation, turn)| (*turn, *conversation));
    Ok(found)
}

fn read_all<T: DeserializeOwned>(
    db: &Db,
    prefix: &str,
    kind: &'static str,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    for entry in db.scan_prefix(prefix) {
        let (_, bytes) = entry.map_err(|error| map_sled_error(&error))?;
        found.extend(decode::<T>(kind, &bytes));
    }
    Ok(found)
}

pub(super) fn put(db: &Db, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
    db.insert(key, value)
        .map(drop)
        .map_err(|error| map_sled_error(&error))
}

pub(super) fn remove(db: &Db, key: impl AsRef<[u8]>) -> Result<(), StoreError> {
    db.remove(key)
        .map(drop)
        .map_err(|error| map_sled_error(&error))
}

/// Applies a change. It is visible at once and durable after the next flush.
///
/// A crash leaves a prefix of the single writes, so they are ordered such that every prefix is
/// consistent: a turn is written after the keys that lead to it, and leaves the index of running
/// turns after it has ended. sled's batches would do too, but at the price of two flushes each.
pub(super) fn apply(db: &Db, op: &WriteOp) -> Result<(), StoreError> {
    match op {
        WriteOp::CreateConversation(id, record) => {
            let key = conversation_key(*id);
            match get(db, &key)? {
                Some(_) => Ok(()),
                None => {
                    if let Some(index_key) = subject_key(*id, record) {
                        put(db, &index_key, Vec::new())?;
                    }
                    put(db, &key, encode(record)?)
                }
            }
        }
        WriteOp::WriteTurn(conversation, turn) => write_turn(db, *conversation, turn),
        WriteOp::UpdateTurn(conversation, turn, change) => {
            update_turn(db, *conversation, *turn, change)
        }
        WriteOp::SetFollowupPending(conversation, turn, true) => {
            put(db, &pending_key(*conversation, *turn), Vec::new())
        }
        WriteOp::SetFollowupPending(conversation, turn, false) => {
            remove(db, pending_key(*conversation, *turn))
        }
        WriteOp::Checkpoint(conversation, turn) => {
            // The index decides, so a turn that ended or was deleted meanwhile does not come back.
            let is_running = get(db, &running_key(*conversation, turn.turn))?.is_some();
            if is_running && turn.state == TurnState::Running {
                put(db, &turn_key(*conversation, turn.turn), encode(turn)?)?;
            }
            Ok(())
        }
        WriteOp::DeleteConversation(id) | WriteOp::DropLocal(id) => delete_conversation(db, *id),
        WriteOp::ClearEntries(marks) => journal::clear_entries(db, marks),
        WriteOp::WriteBreaker(provider, Some(record)) => {
            put(db, &breaker_key(provider), encode(record)?)
        }
        WriteOp::WriteBreaker(provider, None) => remove(db, breaker_key(provider)),
        WriteOp::SaveDailySpend(record) => {
            put(db, &daily_spend_key(&record.provider), encode(record)?)
        }
        WriteOp::WriteIncident(incident) => write_incident(db, incident),
        WriteOp::SaveServiceLifetime(life) => put(db, LIFETIME_KEY, encode(life)?),
        WriteOp::PutDocument(name, text) => put(db, &document_key(name), encode(text)?),
        WriteOp::PutAnswer(key, answer) => answers::put_answer(db, *key, answer),
        WriteOp::RemoveAnswers(keys) => keys
            .iter()
            .try_for_each(|key| answers::remove_answer(db, *key)),
        #[cfg(test)]
        #[allow(clippy::panic)]
        WriteOp::Panic => panic!("test panic"),
    }
}

fn write_turn(db: &Db, conversation: ConversationId, turn: &TurnRecord) -> Result<(), StoreError> {
    let running = running_key(conversation, turn.turn);
    let is_running = turn.state == TurnState::Running;
    if is_running {
        put(db, &running, Vec::new())?;
    }
    // If a crash prevented the write of the message's first turn, this turn takes the message.
    let message = message_key(conversation, &turn.client_msg_id);
    let has_turn = match turn_id_of_message(db, conversation, &turn.client_msg_id)? {
        Some(first) => first == turn.turn || get(db, &turn_key(conversation, first))?.is_some(),
        None => false,
    };
    if !has_turn {
        put(db, &message, encode(&turn.turn)?)?;
    }
    put(db, &turn_key(conversation, turn.turn), encode(turn)?)?;
    if !is_running {
        remove(db, &running)?;
    }
    Ok(())
}

fn update_turn(
    db: &Db,
    conversation: ConversationId,
    id: TurnId,
    change: &TurnUpdate,
) -> Result<(), StoreError> {
    if let Some(mut record) = turn(db, conversation, id)? {
        record.apply(change.clone());
        put(db, &turn_key(conversation, id), encode(&record)?)?;
    }
    // Last, so that a crash in between leaves the turn pending.
    if matches!(change, TurnUpdate::Followup(_)) {
        remove(db, pending_key(conversation, id))?;
    }
    Ok(())
}

fn write_incident(db: &Db, incident: &Incident) -> Result<(), StoreError> {
    put(db, &incident_key(incident), encode(incident)?)?;
    let too_many = db.scan_prefix("i/").count().saturating_sub(MAX_INCIDENTS);
    for key in db.scan_prefix("i/").keys().take(too_many) {
        remove(db, key.map_err(|error| map_sled_error(&error))?)?;
    }
    Ok(())
}

fn delete_conversation(db: &Db, id: ConversationId) -> Result<(), StoreError> {
    answers::remove_from_conversation(db, id)?;
    // The record goes last, so that the owner is known while anything is left.
    for kind in ["t", "m", "r", "w"] {
        for key in db.scan_prefix(format!("{kind}/{id}/")).keys() {
            remove(db, key.map_err(|error| map_sled_error(&error))?)?;
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
pub(crate) fn interrupt_running(db: &Db) -> Result<Vec<(ConversationId, TurnId)>, StoreError> {
    let mut interrupted = Vec::new();
    for key in db.scan_prefix("r/").keys() {
        let key = key.map_err(|error| map_sled_error(&error))?;
        if let Some((conversation, id)) = parse_index_key(&key, "r/")
            && let Some(record) = turn(db, conversation, id)?
            && record.state != TurnState::Done
        {
            put(
                db,
                &turn_key(conversation, id),
                encode(&record.into_interrupted())?,
            )?;
            put(db, &pending_key(conversation, id), Vec::new())?;
            interrupted.push((conversation, id));
        }
        remove(db, key)?;
    }
    db.flush().map_err(|error| map_sled_error(&error))?;
    Ok(interrupted)
}
