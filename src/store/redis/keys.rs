//! The keys in Redis. All begin with [`PREFIX`]. A conversation's keys expire when it has not been
//! written to for the retention period.
//!
//! | key | holds |
//! |---|---|
//! | `c:CONVERSATION` | hash: `record`; `t:TURN`, a turn; `m:MESSAGE`, the message's turn id |
//! | `o:CONVERSATION` | sorted set: its turns, ordered by time |
//! | `gone:CONVERSATION` | the last turn deleted with the conversation |
//! | `v:VISITOR` | sorted set: the visitor's conversations by start time |
//! | `w` | sorted set: turns waiting for a follow-up, as `TURN/CONVERSATION` |
//! | `i` | hash: incidents by start time and id |
//! | `l` | the service's lifetime |
//! | `a:KEY` | hash: `v`, a cached answer; `c`, the conversation that it came from |
//! | `ak` | sorted set: the cached answers by age |
//! | `ao:CONVERSATION` | set: the cached answers that came from the conversation |
//! | `run:CONVERSATION` | the running turn and its instance, for as long as the lease is renewed |
//! | `runs` | sorted set: the running turns by the end of their lease |
//! | `f:TURN` | stream: the turn's frames |
//! | `late:TURN` | the instance that asks for the follow-up |
//! | `here:INSTANCE` | the instance's heartbeat |
//!
//! Records are encoded as on disk: a version byte, then JSON. Records of another version are left
//! unchanged.

use sha2::{Digest as _, Sha256};

use super::client::PREFIX;
use crate::domain::{ConversationId, TurnId};
use crate::store::CacheKey;

/// The prefix of the keys of cached answers.
pub(super) const ANSWER_PREFIX: &str = "failsoft:a:";

/// The prefix of the keys of the answers of a conversation.
pub(super) const ORIGIN_PREFIX: &str = "failsoft:ao:";

pub(super) const PENDING_FOLLOWUPS: &str = "failsoft:w";
pub(super) const INCIDENTS: &str = "failsoft:i";
pub(super) const SERVICE_LIFETIME: &str = "failsoft:l";
pub(super) const ANSWER_INDEX: &str = "failsoft:ak";
pub(super) const RUNNING_TURNS: &str = "failsoft:runs";

pub(super) fn conversation(id: ConversationId) -> String {
    format!("{PREFIX}c:{id}")
}

pub(super) fn turn_index(id: ConversationId) -> String {
    format!("{PREFIX}o:{id}")
}

pub(super) fn deleted_marker(id: ConversationId) -> String {
    format!("{PREFIX}gone:{id}")
}

pub(super) fn visitor(subject: &str) -> String {
    format!("{PREFIX}v:{:x}", Sha256::digest(subject))
}

pub(super) fn turn_member(conversation: ConversationId, turn: TurnId) -> String {
    format!("{turn}/{conversation}")
}

pub(super) fn answer(key: CacheKey) -> String {
    format!("{ANSWER_PREFIX}{key}")
}

pub(super) fn answers_of(id: ConversationId) -> String {
    format!("{ORIGIN_PREFIX}{id}")
}

pub(super) fn running_turn(id: ConversationId) -> String {
    format!("{PREFIX}run:{id}")
}

pub(super) fn frames(turn: TurnId) -> String {
    format!("{PREFIX}f:{turn}")
}

pub(super) fn followup_claim(turn: TurnId) -> String {
    format!("{PREFIX}late:{turn}")
}

/// Parses `TURN/CONVERSATION` members. Skips others.
pub(super) fn parse_members(members: &[String]) -> Vec<(ConversationId, TurnId)> {
    let parse = |member: &String| {
        let (turn, id) = member.split_once('/')?;
        Some((id.parse().ok()?, turn.parse().ok()?))
    };
    members.iter().filter_map(parse).collect()
}
