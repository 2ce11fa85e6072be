//! Reads of the shared records, bounded in time and size. Records of another version are skipped.

use std::time::Duration;

use ::redis::{Cmd, pipe};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::client::{BACKGROUND_TIMEOUT, CallResult, HOT_PATH_TIMEOUT, RedisClient};
use super::keys;
use super::scripts;
use crate::domain::{ClientMsgId, ConversationId, Incident, ServiceLifetime, TurnId, TurnRecord};
use crate::store::codec::{decode, decode_conversation};
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

#[derive(Clone, Copy, Debug)]
pub struct RetentionTerms {
    /// The lifetime of a conversation after its last write.
    pub retention: Duration,
    pub answer_ttl: Duration,
}

/// The number of keys of a kind that one call reads.
const MAX_KEYS: isize = 20_000;

#[derive(Clone)]
pub(super) struct RedisReader {
    pub(super) client: RedisClient,
    pub(super) terms: watch::Receiver<RetentionTerms>,
}

/// Turns of a conversation, and the last turn deleted with it.
#[derive(Debug, Default)]
pub(super) struct TurnPage {
    pub(super) turns: Vec<TurnRecord>,
    pub(super) last_deleted: Option<TurnId>,
}

impl RedisReader {
    /// Reads a record. `None` also if it is unreadable.
    async fn record<T: DeserializeOwned>(
        &self,
        limit: Duration,
        kind: &'static str,
        command: &Cmd,
    ) -> CallResult<Option<T>> {
        let bytes: Option<Vec<u8>> = self.client.command(limit, command).await?;
        Ok(bytes.and_then(|bytes| decode(kind, &bytes)))
    }

    /// Returns the conversation's record, and `true` if the conversation was deleted.
    pub(super) async fn conversation(
        &self,
        id: ConversationId,
    ) -> CallResult<(Result<Option<ConversationRecord>, StoreError>, bool)> {
        let mut commands = pipe();
        commands
            .hget(keys::conversation(id), "record")
            .exists(keys::deleted_marker(id));
        let (bytes, is_deleted): (Option<Vec<u8>>, bool) =
            self.client.pipeline(HOT_PATH_TIMEOUT, &commands).await?;
        let record = bytes.map(|bytes| decode_conversation(&bytes)).transpose();
        Ok((record, is_deleted))
    }

    /// Returns the visitor's last ten conversations, latest first.
    pub(super) async fn conversations_of(&self, subject: &str) -> CallResult<Vec<ConversationId>> {
        let command = Cmd::zrevrange(keys::visitor(subject), 0, 9);
        let names: Vec<String> = self.client.command(HOT_PATH_TIMEOUT, &command).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns a turn, and the last turn deleted with its conversation.
    pub(super) async fn turn(
        &self,
        id: ConversationId,
        turn: TurnId,
    ) -> CallResult<(Option<TurnRecord>, Option<TurnId>)> {
        let mut commands = pipe();
        commands
            .hget(keys::conversation(id), format!("t:{turn}"))
            .get(keys::deleted_marker(id));
        let (bytes, last_deleted): (Option<Vec<u8>>, Option<String>) =
            self.client.pipeline(HOT_PATH_TIMEOUT, &commands).await?;
        let record = bytes.and_then(|bytes| decode("turn", &bytes));
        Ok((record, last_deleted.and_then(|turn| turn.parse().ok())))
    }

    pub(super) async fn turn_by_message(
        &self,
        id: ConversationId,
        message: &ClientMsgId,
    ) -> CallResult<Option<TurnRecord>> {
        let mut script = scripts::TURN_BY_MESSAGE.key(keys::conversation(id));
        script.arg(message.to_string());
        let bytes: Option<Vec<u8>> = self.client.script(HOT_PATH_TIMEOUT, &script).await?;
        Ok(bytes.and_then(|bytes| decode("turn", &bytes)))
    }

    /// Returns the last `limit` turns, oldest first. With `before`, only earlier turns.
    pub(super) async fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> CallResult<TurnPage> {
        let mut script = scripts::LAST_TURNS.key((
            keys::conversation(id),
            keys::turn_index(id),
            keys::deleted_marker(id),
        ));
        let end = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
        script.arg((end, limit));
        let found: Vec<Vec<u8>> = self.client.script(HOT_PATH_TIMEOUT, &script).await?;
        let mut found = found.into_iter();
        let deleted = found.next().unwrap_or_default();
        let last_deleted = str::from_utf8(&deleted)
            .ok()
            .and_then(|turn| turn.parse().ok());
        Ok(TurnPage {
            turns: found.filter_map(|bytes| decode("turn", &bytes)).collect(),
            last_deleted,
        })
    }

    /// Returns the turns waiting for a follow-up, oldest first.
    pub(super) async fn pending_followups(&self) -> CallResult<Vec<(ConversationId, TurnId)>> {
        let command = Cmd::zrange(keys::PENDING_FOLLOWUPS, 0, MAX_KEYS);
        let names: Vec<String> = self.client.command(BACKGROUND_TIMEOUT, &command).await?;
        Ok(keys::parse_members(&names))
    }

    pub(super) async fn incidents(&self) -> CallResult<Vec<Incident>> {
        let command = Cmd::hvals(keys::INCIDENTS);
        let found: Vec<Vec<u8>> = self.client.command(BACKGROUND_TIMEOUT, &command).await?;
        let incidents = found.iter().filter_map(|bytes| decode("incident", bytes));
        Ok(incidents.collect())
    }

    /// Returns the time span in which any instance ran.
    pub(super) async fn service_lifetime(&self) -> CallResult<Option<ServiceLifetime>> {
        let command = Cmd::get(keys::SERVICE_LIFETIME);
        self.record(BACKGROUND_TIMEOUT, "service lifetime", &command)
            .await
    }

    pub(super) async fn get_answer(&self, key: CacheKey) -> CallResult<Option<CachedAnswer>> {
        let command = Cmd::hget(keys::answer(key), "v");
        self.record(HOT_PATH_TIMEOUT, "cached answer", &command)
            .await
    }

    /// Returns the keys of all cached answers, oldest first.
    pub(super) async fn answer_keys(&self) -> CallResult<Vec<CacheKey>> {
        let mut script = scripts::ANSWER_KEYS.key(keys::ANSWER_INDEX);
        script.arg((keys::ANSWER_PREFIX, MAX_KEYS));
        let names: Vec<String> = self.client.script(BACKGROUND_TIMEOUT, &script).await?;
        let keys = names.iter().filter_map(|name| CacheKey::parse(name));
        Ok(keys.collect())
    }
}
