//! Replication of one record: the local and the shared view are merged and written, unless the
//! shared one changed meanwhile.

use ::redis::{Cmd, cmd};

use super::keys;
use super::link::{BEHIND, LinkError, PREFIX};
use super::merge;
use super::remote::Remote;
use super::scripts;
use crate::chat::{ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::record::{VERSION, decode, encode};
use crate::store::sled::Standing;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, INCIDENTS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is written, or Redis does not need it.
    Taken,
    /// The shared record changed since it was read. Retry at once.
    Changed,
    /// It cannot be written, because something else is stored under its key. Retry later.
    Refused,
    Away,
}

impl From<Result<i64, LinkError>> for Offered {
    fn from(reply: Result<i64, LinkError>) -> Self {
        match reply {
            Ok(0) => Offered::Changed,
            Ok(_) => Offered::Taken,
            Err(LinkError::Refused) => Offered::Refused,
            Err(LinkError::Away) => Offered::Away,
        }
    }
}

impl Remote {
    pub(super) async fn offer(&self, standing: Standing) -> Offered {
        match standing {
            Standing::Answer(key, answer) => self.offer_answer(key, answer).await,
            Standing::Forgotten(id) => self.offer_forgotten(id).await,
            Standing::Incident(name, Some(incident)) => self.offer_incident(&name, &incident).await,
            Standing::Life(Some(life)) => self.offer_life(life).await,
            Standing::Conversation(id, Some(record)) => self.offer_conversation(id, &record).await,
            Standing::Turn(conversation, _, Some(turn), is_pending) => {
                self.offer_turn(conversation, *turn, is_pending).await
            }
            Standing::Turn(conversation, turn, None, is_pending) => {
                self.offer_waiting(conversation, turn, is_pending).await
            }
            // Deleted since its change was journaled.
            Standing::Incident(_, None)
            | Standing::Life(None)
            | Standing::Conversation(_, None) => Offered::Taken,
        }
    }

    async fn offer_turn(
        &self,
        conversation: ConversationId,
        local: TurnRecord,
        is_pending: bool,
    ) -> Offered {
        let key = keys::conversation(conversation);
        let turn = local.turn;
        let message = local.client_msg_id.to_string();
        let read = self
            .link
            .command(BEHIND, cmd("HGET").arg(&key).arg(format!("t:{turn}")))
            .await;
        let old: Option<Vec<u8>> = match read {
            Ok(old) => old,
            Err(error) => return Offered::from(Err(error)),
        };
        let merged = match old
            .as_ref()
            .map(|bytes| decode::<TurnRecord>("turn", bytes))
        {
            None => local,
            Some(Some(shared)) => merge::turns(local, shared),
            // Its writer is of another version and knows the turn better.
            Some(None) => return Offered::Taken,
        };
        let is_pending = is_pending && merged.followup.is_none();
        let Ok(bytes) = encode(&merged) else {
            return Offered::Refused;
        };
        let mut put = Self::script(&scripts::PUT_TURN);
        put.key(key)
            .key(keys::order(conversation))
            .key(keys::waiting())
            .key(keys::gone(conversation));
        put.arg(turn.to_string())
            .arg(old.unwrap_or_default())
            .arg(bytes)
            .arg(message);
        put.arg(u8::from(is_pending))
            .arg(keys::waits(conversation, turn))
            .arg(self.terms().retention.as_secs());
        self.change(&put).await.into()
    }

    /// Replicates the pending mark of a turn that has no record, for example not yet.
    async fn offer_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> Offered {
        let set = keys::waiting();
        let member = keys::waits(conversation, turn);
        let command = if is_pending {
            Cmd::zadd(set, member, 0)
        } else {
            Cmd::zrem(set, member)
        };
        self.link
            .command::<i64>(BEHIND, &command)
            .await
            .map(|_| 1)
            .into()
    }

    async fn offer_conversation(&self, id: ConversationId, record: &ConversationRecord) -> Offered {
        let Ok(bytes) = encode(record) else {
            return Offered::Refused;
        };
        let subject = record.subject.as_deref();
        let mut put = Self::script(&scripts::BEGIN);
        put.key(keys::conversation(id))
            .key(keys::visitor(subject.unwrap_or_default()));
        put.arg(bytes)
            .arg(record.began.0)
            .arg(id.to_string())
            .arg(u8::from(subject.is_some()));
        put.arg(self.terms().retention.as_secs());
        self.change(&put).await.into()
    }

    async fn offer_forgotten(&self, id: ConversationId) -> Offered {
        let mut put = Self::script(&scripts::FORGET);
        put.key(keys::conversation(id))
            .key(keys::order(id))
            .key(keys::gone(id))
            .key(keys::waiting());
        put.key(keys::origin(id)).key(keys::answers());
        put.arg(id.to_string())
            .arg(format!("{PREFIX}a:"))
            .arg(self.terms().retention.as_secs());
        self.change(&put).await.into()
    }

    async fn offer_incident(&self, name: &str, incident: &Incident) -> Offered {
        let Ok(bytes) = encode(incident) else {
            return Offered::Refused;
        };
        let mut put = Self::script(&scripts::PUT_FIELD);
        put.key(keys::incidents())
            .arg(name)
            .arg(bytes)
            .arg(&[VERSION][..])
            .arg(INCIDENTS);
        self.change(&put).await.into()
    }

    async fn offer_life(&self, local: Life) -> Offered {
        let read = self
            .link
            .command(BEHIND, cmd("GET").arg(keys::life()))
            .await;
        let old: Option<Vec<u8>> = match read {
            Ok(old) => old,
            Err(error) => return Offered::from(Err(error)),
        };
        let merged = match old.as_ref().map(|bytes| decode("service lifetime", bytes)) {
            None => local,
            Some(Some(shared)) => merge::lives(local, shared),
            Some(None) => return Offered::Taken,
        };
        let Ok(bytes) = encode(&merged) else {
            return Offered::Refused;
        };
        let mut put = Self::script(&scripts::SWAP);
        put.key(keys::life())
            .arg(old.unwrap_or_default())
            .arg(bytes);
        self.change(&put).await.into()
    }

    async fn offer_answer(&self, key: CacheKey, answer: Option<CachedAnswer>) -> Offered {
        let origins = format!("{PREFIX}ao:");
        let Some(answer) = answer else {
            let mut put = Self::script(&scripts::DROP_ANSWER);
            put.key(keys::answer(key)).key(keys::answers());
            put.arg(&[VERSION][..]).arg(key.to_string()).arg(origins);
            return self.change(&put).await.into();
        };
        let Ok(bytes) = encode(&answer) else {
            return Offered::Refused;
        };
        let origin = answer
            .conversation
            .map(|id| id.to_string())
            .unwrap_or_default();
        let mut put = Self::script(&scripts::PUT_ANSWER);
        put.key(keys::answer(key))
            .key(keys::answers())
            .key(format!("{origins}{origin}"));
        put.arg(bytes)
            .arg(&[VERSION][..])
            .arg(origin)
            .arg(key.to_string())
            .arg(answer.saved.0);
        put.arg(self.terms().answers.as_secs()).arg(origins);
        self.change(&put).await.into()
    }
}
