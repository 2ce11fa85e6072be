//! Which keys hold what in Redis. All begin with [`PREFIX`]; what belongs to a conversation goes when it was not written to for the retention.
//!
//! | key | holds |
//! |---|---|
//! | `c:CONVERSATION` | a hash: `record`, the conversation's record; `t:TURN`, a turn; `m:MESSAGE`, the turn that the message opened |
//! | `o:CONVERSATION` | a sorted set: its turns, in the order of time |
//! | `gone:CONVERSATION` | the last turn that was forgotten with it |
//! | `v:VISITOR` | a sorted set: the visitor's conversations by when they began |
//! | `w` | a sorted set: turns that wait for a late answer, as `TURN/CONVERSATION` |
//! | `i` | a hash: incidents, by when they began and their ids |
//! | `l` | when the service was seen to run |
//! | `a:KEY` | a hash: `v`, a saved answer; `c`, the conversation that it comes from |
//! | `ak` | a sorted set: the saved answers by when they were saved |
//! | `ao:CONVERSATION` | a set: the saved answers that come from there |
//! | `run:CONVERSATION` | the turn that runs there, with the instance that answers it, for as long as that renews it |
//! | `runs` | a sorted set: the turns that run, by when their lease ends |
//! | `f:TURN` | a stream: the turn's frames |
//! | `late:TURN` | the instance that asks for a late answer |
//! | `here:INSTANCE` | that it lives |
//!
//! Records are written as on disk: a byte of version, then JSON. One of another version is left as it is.

use sha2::{Digest as _, Sha256};

use super::link::PREFIX;
use crate::chat::{ConversationId, TurnId};
use crate::store::CacheKey;

pub(super) fn conversation(id: ConversationId) -> String {
    format!("{PREFIX}c:{id}")
}

pub(super) fn order(id: ConversationId) -> String {
    format!("{PREFIX}o:{id}")
}

pub(super) fn gone(id: ConversationId) -> String {
    format!("{PREFIX}gone:{id}")
}

pub(super) fn visitor(subject: &str) -> String {
    format!("{PREFIX}v:{:x}", Sha256::digest(subject))
}

pub(super) fn waiting() -> String {
    format!("{PREFIX}w")
}

pub(super) fn waits(conversation: ConversationId, turn: TurnId) -> String {
    format!("{turn}/{conversation}")
}

pub(super) fn incidents() -> String {
    format!("{PREFIX}i")
}

pub(super) fn life() -> String {
    format!("{PREFIX}l")
}

pub(super) fn answer(key: CacheKey) -> String {
    format!("{PREFIX}a:{key}")
}

pub(super) fn answers() -> String {
    format!("{PREFIX}ak")
}

pub(super) fn origin(id: ConversationId) -> String {
    format!("{PREFIX}ao:{id}")
}

pub(super) fn run(id: ConversationId) -> String {
    format!("{PREFIX}run:{id}")
}

pub(super) fn runs() -> String {
    format!("{PREFIX}runs")
}

pub(super) fn frames(turn: TurnId) -> String {
    format!("{PREFIX}f:{turn}")
}

pub(super) fn late(turn: TurnId) -> String {
    format!("{PREFIX}late:{turn}")
}

/// The turn that a name in a list is of.
pub(super) fn named(name: &str) -> Option<(ConversationId, TurnId)> {
    let (turn, conversation) = name.split_once('/')?;
    Some((conversation.parse().ok()?, turn.parse().ok()?))
}
