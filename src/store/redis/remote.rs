//! Reads of the shared records, bounded in time and size. Records of another version are skipped.

use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, Script, cmd, pipe};
use tokio::sync::watch;

use super::keys;
use super::link::{BEHIND, HOT, Link, LinkError, PREFIX};
use super::scripts;
use crate::chat::{ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::record::decode;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The lifetime of a conversation after its last write.
    pub retention: Duration,
    pub answers: Duration,
}

/// The number of keys of a kind that one call reads.
const MOST: usize = 20_000;

#[derive(Clone)]
pub(super) struct Remote {
    pub(super) link: Link,
    pub(super) terms: watch::Receiver<Terms>,
}

/// Turns of a conversation, and the last turn deleted with it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) turns: Vec<TurnRecord>,
    pub(super) gone: Option<TurnId>,
}

impl Remote {
    pub(super) fn terms(&self) -> Terms {
        *self.terms.borrow()
    }

    async fn read<T: FromRedisValue>(
        &self,
        limit: Duration,
        command: &Cmd,
    ) -> Result<T, LinkError> {
        self.link.command(limit, command).await
    }

    /// Returns the conversation's record, and `true` if the conversation was deleted.
    pub(super) async fn conversation(
        &self,
        id: ConversationId,
    ) -> Result<(Result<Option<ConversationRecord>, StoreError>, bool), LinkError> {
        let mut commands = pipe();
        commands
            .hget(keys::conversation(id), "record")
            .exists(keys::gone(id));
        let (bytes, is_deleted): (Option<Vec<u8>>, bool) =
            self.link.pipeline(HOT, &commands).await?;
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
    pub(super) async fn of_visitor(&self, subject: &str) -> Result<Vec<ConversationId>, LinkError> {
        let mut command = cmd("ZREVRANGE");
        command.arg(keys::visitor(subject)).arg(0).arg(9);
        let names: Vec<String> = self.read(HOT, &command).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns a turn, and the last turn deleted with its conversation.
    pub(super) async fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> Result<(Option<TurnRecord>, Option<TurnId>), LinkError> {
        let mut commands = pipe();
        commands
            .hget(keys::conversation(conversation), format!("t:{turn}"))
            .get(keys::gone(conversation));
        let (bytes, last_deleted): (Option<Vec<u8>>, Option<String>) =
            self.link.pipeline(HOT, &commands).await?;
        let record = bytes.and_then(|bytes| decode("turn", &bytes));
        Ok((record, last_deleted.and_then(|turn| turn.parse().ok())))
    }

    pub(super) async fn turn_of(
        &self,
        conversation: ConversationId,
        message: &ClientMsgId,
    ) -> Result<Option<TurnRecord>, LinkError> {
        let mut script = scripts::TURN_OF.key(keys::conversation(conversation));
        let bytes: Option<Vec<u8>> = self
            .link
            .script(HOT, script.arg(message.to_string()))
            .await?;
        Ok(bytes.and_then(|bytes| decode("turn", &bytes)))
    }

    /// Returns the last `limit` turns, oldest first. With `before`, only earlier turns.
    pub(super) async fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> Result<Turns, LinkError> {
        let mut script = scripts::TURNS.key(keys::conversation(conversation));
        script
            .key(keys::order(conversation))
            .key(keys::gone(conversation));
        script
            .arg(before.map_or_else(|| "+".to_owned(), |before| format!("({before}")))
            .arg(limit);
        let found: Vec<Vec<u8>> = self.link.script(HOT, &script).await?;
        let mut found = found.into_iter();
        let gone = found
            .next()
            .and_then(|gone| std::str::from_utf8(&gone).ok()?.parse().ok());
        Ok(Turns {
            turns: found.filter_map(|bytes| decode("turn", &bytes)).collect(),
            gone,
        })
    }

    /// Returns the turns waiting for a follow-up, oldest first.
    pub(super) async fn waiting(&self) -> Result<Vec<(ConversationId, TurnId)>, LinkError> {
        let mut command = cmd("ZRANGE");
        command.arg(keys::waiting()).arg(0).arg(MOST);
        let names: Vec<String> = self.read(BEHIND, &command).await?;
        Ok(names.iter().filter_map(|name| keys::named(name)).collect())
    }

    pub(super) async fn incidents(&self) -> Result<Vec<Incident>, LinkError> {
        let mut command = cmd("HVALS");
        command.arg(keys::incidents());
        let found: Vec<Vec<u8>> = self.read(BEHIND, &command).await?;
        Ok(found
            .iter()
            .filter_map(|bytes| decode("incident", bytes))
            .collect())
    }

    /// Returns the time span in which any instance ran.
    pub(super) async fn life(&self) -> Result<Option<Life>, LinkError> {
        let mut command = cmd("GET");
        command.arg(keys::life());
        let bytes: Option<Vec<u8>> = self.read(BEHIND, &command).await?;
        Ok(bytes.and_then(|bytes| decode("service lifetime", &bytes)))
    }

    pub(super) async fn cached(&self, key: CacheKey) -> Result<Option<CachedAnswer>, LinkError> {
        let mut command = cmd("HGET");
        command.arg(keys::answer(key)).arg("v");
        let bytes: Option<Vec<u8>> = self.read(HOT, &command).await?;
        Ok(bytes.and_then(|bytes| decode("cached answer", &bytes)))
    }

    /// Returns the keys of all cached answers, oldest first.
    pub(super) async fn cached_keys(&self) -> Result<Vec<CacheKey>, LinkError> {
        let mut script = scripts::ANSWERS.key(keys::answers());
        let names: Vec<String> = self
            .link
            .script(BEHIND, script.arg(format!("{PREFIX}a:")).arg(MOST))
            .await?;
        Ok(names
            .iter()
            .filter_map(|name| CacheKey::parse(name))
            .collect())
    }

    /// Runs a writing script in the background and returns its reply.
    pub(super) async fn change(
        &self,
        script: &::redis::ScriptInvocation<'_>,
    ) -> Result<i64, LinkError> {
        self.link.script(BEHIND, script).await
    }

    pub(super) fn script(script: &Script) -> ::redis::ScriptInvocation<'_> {
        script.prepare_invoke()
    }
}
