//! Handing one record over: what is known here is merged with what is known there, and written if nothing changed meanwhile.

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

/// What came of handing a record over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is there, or is of no use there.
    Taken,
    /// What is there changed meanwhile: once more.
    Changed,
    /// It cannot be written there: something else is under its key. Later.
    Refused,
    /// Redis is away.
    Away,
}

impl From<Result<i64, LinkError>> for Offered {
    fn from(said: Result<i64, LinkError>) -> Self {
        match said {
            Ok(0) => Offered::Changed,
            Ok(_) => Offered::Taken,
            Err(LinkError::Refused) => Offered::Refused,
            Err(LinkError::Away) => Offered::Away,
        }
    }
}

impl Remote {
    /// Hands over what changed, as it stands here.
    pub(super) async fn offer(&self, standing: Standing) -> Offered {
        match standing {
            Standing::Answer(key, answer) => self.offer_answer(key, answer).await,
            Standing::Forgotten(id) => self.offer_forgotten(id).await,
            Standing::Incident(name, Some(incident)) => self.offer_incident(&name, &incident).await,
            Standing::Life(Some(life)) => self.offer_life(life).await,
            Standing::Conversation(id, Some(record)) => self.offer_conversation(id, &record).await,
            Standing::Turn(conversation, _, Some(turn), waits) => {
                self.offer_turn(conversation, *turn, waits).await
            }
            Standing::Turn(conversation, turn, None, waits) => {
                self.offer_waiting(conversation, turn, waits).await
            }
            // Forgotten meanwhile, or outgrown.
            Standing::Incident(_, None)
            | Standing::Life(None)
            | Standing::Conversation(_, None) => Offered::Taken,
        }
    }

    async fn offer_turn(
        &self,
        conversation: ConversationId,
        here: TurnRecord,
        waits: bool,
    ) -> Offered {
        let key = keys::conversation(conversation);
        let (turn, message) = (here.turn, here.client_msg_id.to_string());
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
            None => here,
            Some(Some(there)) => merge::turns(here, there),
            // Of another version: who wrote it knows more.
            Some(None) => return Offered::Taken,
        };
        let waits = waits && merged.followup.is_none();
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
        put.arg(u8::from(waits))
            .arg(keys::waits(conversation, turn))
            .arg(self.terms().retention.as_secs());
        self.change(&put).await.into()
    }

    /// Of a turn that is not written yet, or any more, there is only whether it waits.
    async fn offer_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        waits: bool,
    ) -> Offered {
        let (list, name) = (keys::waiting(), keys::waits(conversation, turn));
        let command = if waits {
            Cmd::zadd(list, name, 0)
        } else {
            Cmd::zrem(list, name)
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

    async fn offer_life(&self, here: Life) -> Offered {
        let read = self
            .link
            .command(BEHIND, cmd("GET").arg(keys::life()))
            .await;
        let old: Option<Vec<u8>> = match read {
            Ok(old) => old,
            Err(error) => return Offered::from(Err(error)),
        };
        let merged = match old.as_ref().map(|bytes| decode("life", bytes)) {
            None => here,
            Some(Some(there)) => merge::lives(here, there),
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
        let from = answer
            .conversation
            .map(|id| id.to_string())
            .unwrap_or_default();
        let mut put = Self::script(&scripts::PUT_ANSWER);
        put.key(keys::answer(key))
            .key(keys::answers())
            .key(format!("{origins}{from}"));
        put.arg(bytes)
            .arg(&[VERSION][..])
            .arg(from)
            .arg(key.to_string())
            .arg(answer.saved.0);
        put.arg(self.terms().answers.as_secs()).arg(origins);
        self.change(&put).await.into()
    }
}
