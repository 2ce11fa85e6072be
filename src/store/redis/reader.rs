//! Reads of the shared records, bounded in time and size. Records of another version are skipped.

use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, Script, cmd, pipe};
use tokio::sync::watch;

use super::client::{BACKGROUND_TIMEOUT, HOT_PATH_TIMEOUT, PREFIX, RedisCallError, RedisClient};
use super::keys;
use super::scripts;
use crate::domain::{ClientMsgId, ConversationId, Incident, ServiceLifetime, TurnId, TurnRecord};
use crate::store::codec::decode;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

#[derive(Clone, Copy, Debug)]
pub struct RetentionTerms {
    /// The lifetime of a conversation after its last write.
    pub retention: Duration,
    pub answer_ttl: Duration,
}

/// The number of keys of a kind that one call reads.
const MAX_KEYS: usize = 20_000;

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
    pub(super) fn terms(&self) -> RetentionTerms {
        *self.terms.borrow()
    }

    async fn command<T: FromRedisValue>(
        &self,
        limit: Duration,
        command: &Cmd,
    ) -> Result<T, RedisCallError> {
        self.client.command(limit, command).await
    }

    /// Returns the conversation's record, and `true` if the conversation was deleted.
    pub(super) async fn conversation(
        &self,
        id: ConversationId,
    ) -> Result<(Result<Option<ConversationRecord>, StoreError>, bool), RedisCallError> {
        let mut commands = pipe();
        commands
            .hget(keys::conversation(id), "record")
            .exists(keys::deleted_marker(id));
        let (bytes, is_deleted): (Option<Vec<u8>>, bool) =
            self.client.pipeline(HOT_PATH_TIMEOUT, &commands).await?;
        let record = match bytes.map(|bytes| decode("conversation", &bytes)) {
            None => Ok(None),
            Some(Some(record)) => Ok(Some(record)),
            Some(None) => Err(StoreError::Damaged(
                "a conversation's record cannot be read".into(),
            )),
        };
        Ok((record, is_deleted))
    }

    /// Returns the visitor's last ten conversations, latest first.
    pub(super) async fn conversations_of(
        &self,
        subject: &str,
    ) -> Result<Vec<ConversationId>, RedisCallError> {
        let mut command = cmd("ZREVRANGE");
        command.arg(keys::visitor(subject)).arg(0).arg(9);
        let names: Vec<String> = self.command(HOT_PATH_TIMEOUT, &command).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns a turn, and the last turn deleted with its conversation.
    pub(super) async fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> Result<(Option<TurnRecord>, Option<TurnId>), RedisCallError> {
        let mut commands = pipe();
        commands
            .hget(keys::conversation(conversation), format!("t:{turn}"))
            .get(keys::deleted_marker(conversation));
        let (bytes, last_deleted): (Option<Vec<u8>>, Option<String>) =
            self.client.pipeline(HOT_PATH_TIMEOUT, &commands).await?;
        let record = bytes.and_then(|bytes| decode("turn", &bytes));
        Ok((record, last_deleted.and_then(|turn| turn.parse().ok())))
    }

    pub(super) async fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: &ClientMsgId,
    ) -> Result<Option<TurnRecord>, RedisCallError> {
        let mut script = scripts::TURN_BY_MESSAGE.key(keys::conversation(conversation));
        let bytes: Option<Vec<u8>> = self
            .client
            .script(HOT_PATH_TIMEOUT, script.arg(message.to_string()))
            .await?;
        Ok(bytes.and_then(|bytes| decode("turn", &bytes)))
    }

    /// Returns the last `limit` turns, oldest first. With `before`, only earlier turns.
    pub(super) async fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> Result<TurnPage, RedisCallError> {
        let mut script = scripts::LAST_TURNS.key(keys::conversation(conversation));
        script
            .key(keys::turn_index(conversation))
            .key(keys::deleted_marker(conversation));
        script
            .arg(before.map_or_else(|| "+".to_owned(), |before| format!("({before}")))
            .arg(limit);
        let found: Vec<Vec<u8>> = self.client.script(HOT_PATH_TIMEOUT, &script).await?;
        let mut found = found.into_iter();
        let gone = found
            .next()
            .and_then(|gone| std::str::from_utf8(&gone).ok()?.parse().ok());
        Ok(TurnPage {
            turns: found.filter_map(|bytes| decode("turn", &bytes)).collect(),
            last_deleted: gone,
        })
    }

    /// Returns the turns waiting for a follow-up, oldest first.
    pub(super) async fn pending_followups(
        &self,
    ) -> Result<Vec<(ConversationId, TurnId)>, RedisCallError> {
        let mut command = cmd("ZRANGE");
        command.arg(keys::pending_followups()).arg(0).arg(MAX_KEYS);
        let names: Vec<String> = self.command(BACKGROUND_TIMEOUT, &command).await?;
        Ok(names
            .iter()
            .filter_map(|name| keys::parse_member(name))
            .collect())
    }

    pub(super) async fn incidents(&self) -> Result<Vec<Incident>, RedisCallError> {
        let mut command = cmd("HVALS");
        command.arg(keys::incidents());
        let found: Vec<Vec<u8>> = self.command(BACKGROUND_TIMEOUT, &command).await?;
        Ok(found
            .iter()
            .filter_map(|bytes| decode("incident", bytes))
            .collect())
    }

    /// Returns the time span in which any instance ran.
    pub(super) async fn service_lifetime(&self) -> Result<Option<ServiceLifetime>, RedisCallError> {
        let mut command = cmd("GET");
        command.arg(keys::service_lifetime());
        let bytes: Option<Vec<u8>> = self.command(BACKGROUND_TIMEOUT, &command).await?;
        Ok(bytes.and_then(|bytes| decode("service lifetime", &bytes)))
    }

    pub(super) async fn get_answer(
        &self,
        key: CacheKey,
    ) -> Result<Option<CachedAnswer>, RedisCallError> {
        let mut command = cmd("HGET");
        command.arg(keys::answer(key)).arg("v");
        let bytes: Option<Vec<u8>> = self.command(HOT_PATH_TIMEOUT, &command).await?;
        Ok(bytes.and_then(|bytes| decode("cached answer", &bytes)))
    }

    /// Returns the keys of all cached answers, oldest first.
    pub(super) async fn answer_keys(&self) -> Result<Vec<CacheKey>, RedisCallError> {
        let mut script = scripts::ANSWER_KEYS.key(keys::answer_index());
        let names: Vec<String> = self
            .client
            .script(
                BACKGROUND_TIMEOUT,
                script.arg(format!("{PREFIX}a:")).arg(MAX_KEYS),
            )
            .await?;
        Ok(names
            .iter()
            .filter_map(|name| CacheKey::parse(name))
            .collect())
    }

    /// Runs a writing script in the background and returns its reply.
    pub(super) async fn run_script(
        &self,
        script: &::redis::ScriptInvocation<'_>,
    ) -> Result<i64, RedisCallError> {
        self.client.script(BACKGROUND_TIMEOUT, script).await
    }

    pub(super) fn new_invocation(script: &Script) -> ::redis::ScriptInvocation<'_> {
        script.prepare_invoke()
    }
}
