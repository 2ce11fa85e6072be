//! Replication of one record: the local and the shared view are merged and written, unless the
//! shared one changed meanwhile.

use ::redis::{Cmd, cmd};

use super::client::{BACKGROUND_TIMEOUT, PREFIX, RedisCallError};
use super::keys;
use super::merge;
use super::reader::RedisReader;
use super::scripts;
use crate::domain::{ConversationId, Incident, ServiceLifetime, TurnId, TurnRecord};
use crate::store::codec::{RECORD_VERSION, decode, encode};
use crate::store::sled::RecordState;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, MAX_INCIDENTS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplicationResult {
    /// It is written, or Redis does not need it.
    Applied,
    /// The shared record changed since it was read. Retry at once.
    Conflict,
    /// It cannot be written, because something else is stored under its key. Retry later.
    Rejected,
    Unavailable,
}

impl From<Result<i64, RedisCallError>> for ReplicationResult {
    fn from(reply: Result<i64, RedisCallError>) -> Self {
        match reply {
            Ok(0) => ReplicationResult::Conflict,
            Ok(_) => ReplicationResult::Applied,
            Err(RedisCallError::Rejected) => ReplicationResult::Rejected,
            Err(RedisCallError::Unavailable) => ReplicationResult::Unavailable,
        }
    }
}

impl RedisReader {
    pub(super) async fn replicate(&self, standing: RecordState) -> ReplicationResult {
        match standing {
            RecordState::Answer(key, answer) => self.replicate_answer(key, answer).await,
            RecordState::DeletedConversation(id) => self.replicate_deletion(id).await,
            RecordState::Incident(name, Some(incident)) => {
                self.replicate_incident(&name, &incident).await
            }
            RecordState::ServiceLifetime(Some(life)) => self.replicate_lifetime(life).await,
            RecordState::Conversation(id, Some(record)) => {
                self.replicate_conversation(id, &record).await
            }
            RecordState::Turn(conversation, _, Some(turn), is_pending) => {
                self.replicate_turn(conversation, *turn, is_pending).await
            }
            RecordState::Turn(conversation, turn, None, is_pending) => {
                self.replicate_pending_mark(conversation, turn, is_pending)
                    .await
            }
            // Deleted since its change was journaled.
            RecordState::Incident(_, None)
            | RecordState::ServiceLifetime(None)
            | RecordState::Conversation(_, None) => ReplicationResult::Applied,
        }
    }

    async fn replicate_turn(
        &self,
        conversation: ConversationId,
        local: TurnRecord,
        is_pending: bool,
    ) -> ReplicationResult {
        let key = keys::conversation(conversation);
        let turn = local.turn;
        let message = local.client_msg_id.to_string();
        let read = self
            .client
            .command(
                BACKGROUND_TIMEOUT,
                cmd("HGET").arg(&key).arg(format!("t:{turn}")),
            )
            .await;
        let old: Option<Vec<u8>> = match read {
            Ok(old) => old,
            Err(error) => return ReplicationResult::from(Err(error)),
        };
        let merged = match old
            .as_ref()
            .map(|bytes| decode::<TurnRecord>("turn", bytes))
        {
            None => local,
            Some(Some(shared)) => merge::merge_turns(local, shared),
            // Its writer is of another version and knows the turn better.
            Some(None) => return ReplicationResult::Applied,
        };
        let is_pending = is_pending && merged.followup.is_none();
        let Ok(bytes) = encode(&merged) else {
            return ReplicationResult::Rejected;
        };
        let mut put = Self::new_invocation(&scripts::PUT_TURN);
        put.key(key)
            .key(keys::turn_index(conversation))
            .key(keys::pending_followups())
            .key(keys::deleted_marker(conversation));
        put.arg(turn.to_string())
            .arg(old.unwrap_or_default())
            .arg(bytes)
            .arg(message);
        put.arg(u8::from(is_pending))
            .arg(keys::turn_member(conversation, turn))
            .arg(self.terms().retention.as_secs());
        self.run_script(&put).await.into()
    }

    /// Replicates the pending mark of a turn that has no record, for example not yet.
    async fn replicate_pending_mark(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> ReplicationResult {
        let set = keys::pending_followups();
        let member = keys::turn_member(conversation, turn);
        let command = if is_pending {
            Cmd::zadd(set, member, 0)
        } else {
            Cmd::zrem(set, member)
        };
        self.client
            .command::<i64>(BACKGROUND_TIMEOUT, &command)
            .await
            .map(|_| 1)
            .into()
    }

    async fn replicate_conversation(
        &self,
        id: ConversationId,
        record: &ConversationRecord,
    ) -> ReplicationResult {
        let Ok(bytes) = encode(record) else {
            return ReplicationResult::Rejected;
        };
        let subject = record.subject.as_deref();
        let mut put = Self::new_invocation(&scripts::CREATE_CONVERSATION);
        put.key(keys::conversation(id))
            .key(keys::visitor(subject.unwrap_or_default()));
        put.arg(bytes)
            .arg(record.started_at.0)
            .arg(id.to_string())
            .arg(u8::from(subject.is_some()));
        put.arg(self.terms().retention.as_secs());
        self.run_script(&put).await.into()
    }

    async fn replicate_deletion(&self, id: ConversationId) -> ReplicationResult {
        let mut put = Self::new_invocation(&scripts::DELETE_CONVERSATION);
        put.key(keys::conversation(id))
            .key(keys::turn_index(id))
            .key(keys::deleted_marker(id))
            .key(keys::pending_followups());
        put.key(keys::answers_of(id)).key(keys::answer_index());
        put.arg(id.to_string())
            .arg(format!("{PREFIX}a:"))
            .arg(self.terms().retention.as_secs());
        self.run_script(&put).await.into()
    }

    async fn replicate_incident(&self, name: &str, incident: &Incident) -> ReplicationResult {
        let Ok(bytes) = encode(incident) else {
            return ReplicationResult::Rejected;
        };
        let mut put = Self::new_invocation(&scripts::PUT_FIELD);
        put.key(keys::incidents())
            .arg(name)
            .arg(bytes)
            .arg(&[RECORD_VERSION][..])
            .arg(MAX_INCIDENTS);
        self.run_script(&put).await.into()
    }

    async fn replicate_lifetime(&self, local: ServiceLifetime) -> ReplicationResult {
        let read = self
            .client
            .command(BACKGROUND_TIMEOUT, cmd("GET").arg(keys::service_lifetime()))
            .await;
        let old: Option<Vec<u8>> = match read {
            Ok(old) => old,
            Err(error) => return ReplicationResult::from(Err(error)),
        };
        let merged = match old.as_ref().map(|bytes| decode("service lifetime", bytes)) {
            None => local,
            Some(Some(shared)) => merge::merge_lifetimes(local, shared),
            Some(None) => return ReplicationResult::Applied,
        };
        let Ok(bytes) = encode(&merged) else {
            return ReplicationResult::Rejected;
        };
        let mut put = Self::new_invocation(&scripts::COMPARE_AND_SET);
        put.key(keys::service_lifetime())
            .arg(old.unwrap_or_default())
            .arg(bytes);
        self.run_script(&put).await.into()
    }

    async fn replicate_answer(
        &self,
        key: CacheKey,
        answer: Option<CachedAnswer>,
    ) -> ReplicationResult {
        let origins = format!("{PREFIX}ao:");
        let Some(answer) = answer else {
            let mut put = Self::new_invocation(&scripts::REMOVE_ANSWER);
            put.key(keys::answer(key)).key(keys::answer_index());
            put.arg(&[RECORD_VERSION][..])
                .arg(key.to_string())
                .arg(origins);
            return self.run_script(&put).await.into();
        };
        let Ok(bytes) = encode(&answer) else {
            return ReplicationResult::Rejected;
        };
        let origin = answer
            .conversation
            .map(|id| id.to_string())
            .unwrap_or_default();
        let mut put = Self::new_invocation(&scripts::PUT_ANSWER);
        put.key(keys::answer(key))
            .key(keys::answer_index())
            .key(format!("{origins}{origin}"));
        put.arg(bytes)
            .arg(&[RECORD_VERSION][..])
            .arg(origin)
            .arg(key.to_string())
            .arg(answer.saved_at.0);
        put.arg(self.terms().answer_ttl.as_secs()).arg(origins);
        self.run_script(&put).await.into()
    }
}
