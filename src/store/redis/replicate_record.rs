//! Replication of one record: the local and the shared view are merged and written, unless the
//! shared one changed meanwhile.

use ::redis::{Cmd, ScriptInvocation};
use serde::Serialize;

use super::client::{BACKGROUND_TIMEOUT, RedisCallError};
use super::reader::RedisReader;
use super::{keys, merge, scripts};
use crate::domain::{ConversationId, Incident, ServiceLifetime, TurnId, TurnRecord};
use crate::store::codec::{RECORD_VERSION, decode, encode};
use crate::store::sled::RecordState;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, DocumentKind, MAX_INCIDENTS};

/// `true` if the record is written, or Redis does not need it. `false` if the shared record changed
/// since it was read: retry at once. `Rejected` if something else is stored under its key: retry
/// later.
pub(super) type ReplicationResult = Result<bool, RedisCallError>;

fn encode_record(record: &impl Serialize) -> Result<Vec<u8>, RedisCallError> {
    encode(record).map_err(|_| RedisCallError::Rejected)
}

impl RedisReader {
    pub(super) async fn replicate(&self, state: RecordState) -> ReplicationResult {
        match state {
            RecordState::Answer(key, answer) => self.replicate_answer(key, answer).await,
            RecordState::DeletedConversation(id) => self.replicate_deletion(id).await,
            RecordState::Document(kind, key, Some(document)) => {
                self.replicate_document(kind, &key, &document).await
            }
            RecordState::Conversation(id, Some(record)) => {
                self.replicate_conversation(id, &record).await
            }
            RecordState::Turn(id, _, Some(turn), is_pending) => {
                self.replicate_turn(id, *turn, is_pending).await
            }
            RecordState::Turn(id, turn, None, is_pending) => {
                self.replicate_pending_mark(id, turn, is_pending).await
            }
            // Deleted since its change was journaled.
            RecordState::Document(_, _, None) | RecordState::Conversation(_, None) => Ok(true),
        }
    }

    /// Runs a writing script. It returns 0 if the shared record changed since it was read.
    async fn run_script(&self, script: &ScriptInvocation<'_>) -> ReplicationResult {
        let reply: i64 = self.client.script(BACKGROUND_TIMEOUT, script).await?;
        Ok(reply != 0)
    }

    fn retention_seconds(&self) -> u64 {
        self.terms.borrow().retention.as_secs()
    }

    async fn replicate_turn(
        &self,
        id: ConversationId,
        local: TurnRecord,
        is_pending: bool,
    ) -> ReplicationResult {
        let turn = local.turn;
        let message = local.client_msg_id.to_string();
        let read = Cmd::hget(keys::conversation(id), format!("t:{turn}"));
        let old: Option<Vec<u8>> = self.client.command(BACKGROUND_TIMEOUT, &read).await?;
        let merged = match old.as_ref().map(|bytes| decode("turn", bytes)) {
            None => local,
            Some(Some(shared)) => merge::merge_turns(local, shared),
            // Its writer is of another version and knows the turn better.
            Some(None) => return Ok(true),
        };
        let is_pending = is_pending && merged.followup.is_none();
        let mut put = scripts::PUT_TURN.key((
            keys::conversation(id),
            keys::turn_index(id),
            keys::PENDING_FOLLOWUPS,
            keys::deleted_marker(id),
        ));
        put.arg((
            turn.to_string(),
            old.unwrap_or_default(),
            encode_record(&merged)?,
            message,
        ));
        put.arg((
            u8::from(is_pending),
            keys::turn_member(id, turn),
            self.retention_seconds(),
        ));
        self.run_script(&put).await
    }

    /// Replicates the pending mark of a turn that has no record, for example not yet.
    async fn replicate_pending_mark(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> ReplicationResult {
        let set = keys::PENDING_FOLLOWUPS;
        let member = keys::turn_member(id, turn);
        let command = if is_pending {
            Cmd::zadd(set, member, 0)
        } else {
            Cmd::zrem(set, member)
        };
        self.client
            .command::<i64>(BACKGROUND_TIMEOUT, &command)
            .await?;
        Ok(true)
    }

    async fn replicate_conversation(
        &self,
        id: ConversationId,
        record: &ConversationRecord,
    ) -> ReplicationResult {
        let subject = record.subject.as_deref();
        let visitor = keys::visitor(subject.unwrap_or_default());
        let mut put = scripts::CREATE_CONVERSATION.key((keys::conversation(id), visitor));
        put.arg((encode_record(record)?, record.started_at.0, id.to_string()));
        put.arg((u8::from(subject.is_some()), self.retention_seconds()));
        self.run_script(&put).await
    }

    async fn replicate_deletion(&self, id: ConversationId) -> ReplicationResult {
        let mut put = scripts::DELETE_CONVERSATION.key((
            keys::conversation(id),
            keys::turn_index(id),
            keys::deleted_marker(id),
            keys::PENDING_FOLLOWUPS,
            keys::answers_of(id),
            keys::ANSWER_INDEX,
        ));
        put.arg((
            id.to_string(),
            keys::ANSWER_PREFIX,
            self.retention_seconds(),
        ));
        self.run_script(&put).await
    }

    async fn replicate_document(
        &self,
        kind: DocumentKind,
        key: &str,
        document: &[u8],
    ) -> ReplicationResult {
        match kind {
            DocumentKind::Incident => match decode::<Incident>(kind.name(), document) {
                Some(_) => self.replicate_incident(key, document).await,
                None => Ok(true),
            },
            DocumentKind::Lifetime => match decode(kind.name(), document) {
                Some(life) => self.replicate_lifetime(life).await,
                None => Ok(true),
            },
            _ => Ok(true),
        }
    }

    async fn replicate_incident(&self, key: &str, incident: &[u8]) -> ReplicationResult {
        let mut put = scripts::PUT_FIELD.key(keys::INCIDENTS);
        put.arg((
            format!("i/{key}"),
            incident,
            &[RECORD_VERSION][..],
            MAX_INCIDENTS,
        ));
        self.run_script(&put).await
    }

    async fn replicate_lifetime(&self, local: ServiceLifetime) -> ReplicationResult {
        let read = Cmd::get(keys::SERVICE_LIFETIME);
        let old: Option<Vec<u8>> = self.client.command(BACKGROUND_TIMEOUT, &read).await?;
        let merged = match old.as_ref().map(|bytes| decode("service lifetime", bytes)) {
            None => local,
            Some(Some(shared)) => merge::merge_lifetimes(local, shared),
            Some(None) => return Ok(true),
        };
        let mut put = scripts::COMPARE_AND_SET.key(keys::SERVICE_LIFETIME);
        put.arg((old.unwrap_or_default(), encode_record(&merged)?));
        self.run_script(&put).await
    }

    async fn replicate_answer(
        &self,
        key: CacheKey,
        answer: Option<CachedAnswer>,
    ) -> ReplicationResult {
        let version = &[RECORD_VERSION][..];
        let Some(answer) = answer else {
            let mut remove = scripts::REMOVE_ANSWER.key((keys::answer(key), keys::ANSWER_INDEX));
            remove.arg((version, key.to_string(), keys::ORIGIN_PREFIX));
            return self.run_script(&remove).await;
        };
        let origin = answer
            .conversation
            .map(|id| id.to_string())
            .unwrap_or_default();
        let mut put = scripts::PUT_ANSWER.key((
            keys::answer(key),
            keys::ANSWER_INDEX,
            format!("{}{origin}", keys::ORIGIN_PREFIX),
        ));
        let ttl = self.terms.borrow().answer_ttl.as_secs();
        put.arg((encode_record(&answer)?, version, origin, key.to_string()));
        put.arg((answer.saved_at.0, ttl, keys::ORIGIN_PREFIX));
        self.run_script(&put).await
    }
}
