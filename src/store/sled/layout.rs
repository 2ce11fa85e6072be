//! Which keys hold what, and every read and change of the tree, blocking.
//!
//! | key | holds |
//! |---|---|
//! | `c/CONVERSATION` | the conversation's record |
//! | `v/VISITOR/BEGAN/CONVERSATION` | nothing: that the conversation, begun then, is that visitor's |
//! | `t/CONVERSATION/TURN` | a turn; in the order of the keys, which is that of time |
//! | `m/CONVERSATION/MESSAGE` | the id of the turn that the message opened |
//! | `r/CONVERSATION/TURN` | nothing: that the turn runs |
//! | `w/CONVERSATION/TURN` | nothing: that the turn waits for a late answer |
//! | `b/PROVIDER` | a breaker's state |
//! | `s/PROVIDER` | what its day cost so far |
//! | `i/STARTED-ID` | an incident; in the order of the keys, which is that of time |
//! | `l` | when the service was seen to run |
//! | `n/NAME` | a note of the service's own |
//! | `a/KEY` | a saved answer |
//! | `o/CONVERSATION/KEY` | nothing: that the saved answer comes from there |
//! | `j/…` | what is to be handed over to a shared store, see [`super::journal`] |
//!
//! Ids of conversations and turns have a fixed length, and a visitor stands there as a hash, so whatever others call themselves or their
//! messages, no key can be taken for another.

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use sled::{Db, Error};

use super::cached;
use super::journal;
use super::queue::Op;
use crate::chat::{
    Amendment, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord, TurnState,
};
use crate::store::record::{decode, encode};
use crate::store::{BreakerRecord, ConversationRecord, INCIDENTS, SpentRecord, StoreError};

fn conversation_key(id: ConversationId) -> String {
    format!("c/{id}")
}

fn subject_prefix(subject: &str) -> String {
    format!("v/{:x}/", Sha256::digest(subject))
}

/// The key under which a visitor's conversation is found; in the order of the keys, which is that of time.
fn subject_key(id: ConversationId, record: &ConversationRecord) -> Option<String> {
    let subject = record.subject.as_ref()?;
    Some(format!(
        "{}{:016x}/{id}",
        subject_prefix(subject),
        record.began.0
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

fn waiting_key(conversation: ConversationId, turn: TurnId) -> String {
    format!("w/{conversation}/{turn}")
}

fn breaker_key(provider: &str) -> String {
    format!("b/{provider}")
}

fn spent_key(provider: &str) -> String {
    format!("s/{provider}")
}

pub(super) fn incident_key(incident: &Incident) -> String {
    format!("i/{:020}-{}", incident.started.0, incident.id)
}

fn note_key(name: &str) -> String {
    format!("n/{name}")
}

/// The one key of the service's life.
const LIFE: &str = "l";

/// The turn that a key of an index names.
fn named(key: &[u8], index: &str) -> Option<(ConversationId, TurnId)> {
    let (conversation, turn) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix(index)?
        .split_once('/')?;
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

/// What a key holds.
pub(super) fn get(db: &Db, key: &str) -> Result<Option<sled::IVec>, StoreError> {
    db.get(key).map_err(|error| meaning(&error))
}

/// The conversation's record.
///
/// # Errors
/// `Damaged` where it is there but cannot be read: whose conversation it is must not be guessed.
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

/// The visitor's conversation that was begun last.
pub(super) fn newest_of(db: &Db, subject: &str) -> Result<Option<ConversationId>, StoreError> {
    for key in db.scan_prefix(subject_prefix(subject)).keys().rev() {
        let key = key.map_err(|error| meaning(&error))?;
        let name = std::str::from_utf8(&key)
            .ok()
            .and_then(|key| key.rsplit('/').next());
        // A crash may have kept the record from being written, and then the conversation is not theirs.
        if let Some(id) = name.and_then(|name| name.parse().ok())
            && let Ok(Some(record)) = conversation(db, id)
            && record.subject.as_deref() == Some(subject)
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
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
    let end = before.map_or_else(
        || format!("t/{conversation}0"),
        |before| turn_key(conversation, before),
    );
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

/// The conversation's last turn, as its key names it.
pub(super) fn last_turn(db: &Db, id: ConversationId) -> Result<Option<TurnId>, StoreError> {
    let last = db.scan_prefix(format!("t/{id}/")).keys().next_back();
    let key = last.transpose().map_err(|error| meaning(&error))?;
    Ok(key.and_then(|key| named(&key, "t/")).map(|(_, turn)| turn))
}

/// All breakers.
pub(super) fn breakers(db: &Db) -> Result<Vec<BreakerRecord>, StoreError> {
    all(db, "b/", "breaker")
}

/// What each provider's day cost.
pub(super) fn spent(db: &Db) -> Result<Vec<SpentRecord>, StoreError> {
    all(db, "s/", "spent")
}

/// All incidents, oldest first.
pub(super) fn incidents(db: &Db) -> Result<Vec<Incident>, StoreError> {
    all(db, "i/", "incident")
}

/// When the service was seen to run.
pub(super) fn life(db: &Db) -> Result<Option<Life>, StoreError> {
    Ok(get(db, LIFE)?.and_then(|bytes| decode("life", &bytes)))
}

/// Whether a turn waits for a late answer.
pub(super) fn waits(
    db: &Db,
    conversation: ConversationId,
    turn: TurnId,
) -> Result<bool, StoreError> {
    Ok(get(db, &waiting_key(conversation, turn))?.is_some())
}

/// A note of the service's own.
pub(super) fn note(db: &Db, name: &str) -> Result<Option<String>, StoreError> {
    Ok(get(db, &note_key(name))?.and_then(|bytes| decode("note", &bytes)))
}

/// The turns that wait for a late answer, oldest first.
pub(super) fn waiting(db: &Db) -> Result<Vec<(ConversationId, TurnId)>, StoreError> {
    let mut found = Vec::new();
    for key in db.scan_prefix("w/").keys() {
        found.extend(named(&key.map_err(|error| meaning(&error))?, "w/"));
    }
    found.sort_by_key(|(conversation, turn)| (*turn, *conversation));
    Ok(found)
}

fn all<T: DeserializeOwned>(
    db: &Db,
    prefix: &str,
    what: &'static str,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    for entry in db.scan_prefix(prefix) {
        let (_, bytes) = entry.map_err(|error| meaning(&error))?;
        found.extend(decode::<T>(what, &bytes));
    }
    Ok(found)
}

/// Writes what a key holds.
pub(super) fn put(db: &Db, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
    db.insert(key, value)
        .map(drop)
        .map_err(|error| meaning(&error))
}

/// Removes a key.
pub(super) fn remove(db: &Db, key: impl AsRef<[u8]>) -> Result<(), StoreError> {
    db.remove(key).map(drop).map_err(|error| meaning(&error))
}

/// Makes a change. It is visible at once and durable after the next flush.
///
/// What a crash leaves is a prefix of all single writes, so their order is chosen such that every prefix reads well: a turn comes after what
/// leads to it, and leaves the running index after it has ended. sled's own batches would do too, at the price of two flushes each.
pub(super) fn apply(db: &Db, op: &Op) -> Result<(), StoreError> {
    match op {
        Op::Begin(id, record) => {
            let key = conversation_key(*id);
            match get(db, &key)? {
                Some(_) => Ok(()),
                None => {
                    if let Some(found_by) = subject_key(*id, record) {
                        put(db, &found_by, Vec::new())?;
                    }
                    put(db, &key, encode(record)?)
                }
            }
        }
        Op::Turn(conversation, turn) => write_turn(db, *conversation, turn),
        Op::Amend(conversation, turn, change) => amend(db, *conversation, *turn, change),
        Op::Waiting(conversation, turn, true) => {
            put(db, &waiting_key(*conversation, *turn), Vec::new())
        }
        Op::Waiting(conversation, turn, false) => remove(db, waiting_key(*conversation, *turn)),
        Op::Checkpoint(conversation, turn) => {
            // The index decides: a turn that ended or was forgotten meanwhile does not come back.
            let runs = get(db, &running_key(*conversation, turn.turn))?.is_some();
            if runs && turn.state == TurnState::Running {
                put(db, &turn_key(*conversation, turn.turn), encode(turn)?)?;
            }
            Ok(())
        }
        Op::Forget(id) | Op::Outdated(id) => forget(db, *id),
        Op::Unmark(marks) => journal::unmark(db, marks),
        Op::Breaker(provider, Some(record)) => put(db, &breaker_key(provider), encode(record)?),
        Op::Breaker(provider, None) => remove(db, breaker_key(provider)),
        Op::Spent(record) => put(db, &spent_key(&record.provider), encode(record)?),
        Op::Incident(incident) => write_incident(db, incident),
        Op::Life(life) => put(db, LIFE, encode(life)?),
        Op::Note(name, text) => put(db, &note_key(name), encode(text)?),
        Op::Cached(key, answer) => cached::put_answer(db, *key, answer),
        Op::Uncached(keys) => keys
            .iter()
            .try_for_each(|key| cached::remove_answer(db, *key)),
        #[cfg(test)]
        #[allow(clippy::panic)]
        Op::Panic => panic!("asked to"),
    }
}

fn write_turn(db: &Db, conversation: ConversationId, turn: &TurnRecord) -> Result<(), StoreError> {
    let running = running_key(conversation, turn.turn);
    let runs = turn.state == TurnState::Running;
    if runs {
        put(db, &running, Vec::new())?;
    }
    // A message may lead to a turn that a crash kept from being written: then it is free again.
    let message = message_key(conversation, &turn.client_msg_id);
    let opened = match opened(db, conversation, &turn.client_msg_id)? {
        Some(first) => first == turn.turn || get(db, &turn_key(conversation, first))?.is_some(),
        None => false,
    };
    if !opened {
        put(db, &message, encode(&turn.turn)?)?;
    }
    put(db, &turn_key(conversation, turn.turn), encode(turn)?)?;
    if !runs {
        remove(db, &running)?;
    }
    Ok(())
}

fn amend(
    db: &Db,
    conversation: ConversationId,
    id: TurnId,
    change: &Amendment,
) -> Result<(), StoreError> {
    if let Some(mut record) = turn(db, conversation, id)? {
        record.amend(change.clone());
        put(db, &turn_key(conversation, id), encode(&record)?)?;
    }
    // Last: who is not known to be answered still waits.
    if matches!(change, Amendment::Followup(_)) {
        remove(db, waiting_key(conversation, id))?;
    }
    Ok(())
}

fn write_incident(db: &Db, incident: &Incident) -> Result<(), StoreError> {
    put(db, &incident_key(incident), encode(incident)?)?;
    let too_many = db.scan_prefix("i/").count().saturating_sub(INCIDENTS);
    for key in db.scan_prefix("i/").keys().take(too_many) {
        remove(db, key.map_err(|error| meaning(&error))?)?;
    }
    Ok(())
}

fn forget(db: &Db, id: ConversationId) -> Result<(), StoreError> {
    cached::forget(db, id)?;
    // The record goes last: as long as anything is left, its owner is known.
    for kind in ["t", "m", "r", "w"] {
        for key in db.scan_prefix(format!("{kind}/{id}/")).keys() {
            remove(db, key.map_err(|error| meaning(&error))?)?;
        }
    }
    if let Ok(Some(record)) = conversation(db, id)
        && let Some(found_by) = subject_key(id, &record)
    {
        remove(db, found_by)?;
    }
    remove(db, conversation_key(id))
}

/// Turns that the index says are running belong to a process that is gone: they become interrupted, with their text as last saved.
///
/// Work and memory are proportional to the turns that ran, not to the store. They wait for a late answer then. Gives them.
pub(crate) fn interrupt_running(db: &Db) -> Result<Vec<(ConversationId, TurnId)>, StoreError> {
    let mut interrupted = Vec::new();
    for key in db.scan_prefix("r/").keys() {
        let key = key.map_err(|error| meaning(&error))?;
        if let Some((conversation, id)) = named(&key, "r/")
            && let Some(record) = turn(db, conversation, id)?
            && record.state != TurnState::Done
        {
            put(
                db,
                &turn_key(conversation, id),
                encode(&record.interrupted())?,
            )?;
            put(db, &waiting_key(conversation, id), Vec::new())?;
            interrupted.push((conversation, id));
        }
        remove(db, key)?;
    }
    db.flush().map_err(|error| meaning(&error))?;
    Ok(interrupted)
}
