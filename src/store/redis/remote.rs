//! Reading what several instances share: bounded in time, and never more than what it is worth. What is not of this version is passed over.

use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, Script, cmd, pipe};
use tokio::sync::watch;

use super::keys;
use super::link::{BEHIND, HOT, Link, LinkError, PREFIX};
use super::scripts;
use crate::chat::{ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::store::record::decode;
use crate::store::{CacheKey, CachedAnswer, ConversationRecord, StoreError};

/// How long what is shared is kept.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A conversation, from the last time that it was written to.
    pub retention: Duration,
    /// A saved answer.
    pub answers: Duration,
}

/// The most names of a kind that are read at once.
const MOST: usize = 20_000;

/// What several instances share, as it is read.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) link: Link,
    pub(super) terms: watch::Receiver<Terms>,
}

/// The turns of a conversation, and the last that was forgotten of it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) turns: Vec<TurnRecord>,
    pub(super) gone: Option<TurnId>,
}

impl Remote {
    /// How long what is shared is kept, as things stand.
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

    /// The conversation's record, and whether it was forgotten.
    pub(super) async fn conversation(
        &self,
        id: ConversationId,
    ) -> Result<(Result<Option<ConversationRecord>, StoreError>, bool), LinkError> {
        let mut both = pipe();
        both.hget(keys::conversation(id), "record")
            .exists(keys::gone(id));
        let (bytes, gone): (Option<Vec<u8>>, bool) = self.link.pipeline(HOT, &both).await?;
        let record = match bytes.map(|bytes| decode("conversation", &bytes)) {
            None => Ok(None),
            Some(Some(record)) => Ok(Some(record)),
            Some(None) => Err(StoreError::Damaged(
                "a conversation's record cannot be read".into(),
            )),
        };
        Ok((record, gone))
    }

    /// The visitor's conversations, the one begun last first.
    pub(super) async fn of_visitor(&self, subject: &str) -> Result<Vec<ConversationId>, LinkError> {
        let mut command = cmd("ZREVRANGE");
        command.arg(keys::visitor(subject)).arg(0).arg(9);
        let names: Vec<String> = self.read(HOT, &command).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// One turn.
    pub(super) async fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> Result<(Option<TurnRecord>, Option<TurnId>), LinkError> {
        let mut both = pipe();
        both.hget(keys::conversation(conversation), format!("t:{turn}"))
            .get(keys::gone(conversation));
        let (bytes, gone): (Option<Vec<u8>>, Option<String>) =
            self.link.pipeline(HOT, &both).await?;
        let record = bytes.and_then(|bytes| decode("turn", &bytes));
        Ok((record, gone.and_then(|gone| gone.parse().ok())))
    }

    /// The turn that a message opened.
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

    /// The last turns, those before `before` if given, oldest first.
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

    /// The turns that wait for a late answer, oldest first.
    pub(super) async fn waiting(&self) -> Result<Vec<(ConversationId, TurnId)>, LinkError> {
        let mut command = cmd("ZRANGE");
        command.arg(keys::waiting()).arg(0).arg(MOST);
        let names: Vec<String> = self.read(BEHIND, &command).await?;
        Ok(names.iter().filter_map(|name| keys::named(name)).collect())
    }

    /// The incidents.
    pub(super) async fn incidents(&self) -> Result<Vec<Incident>, LinkError> {
        let mut command = cmd("HVALS");
        command.arg(keys::incidents());
        let found: Vec<Vec<u8>> = self.read(BEHIND, &command).await?;
        Ok(found
            .iter()
            .filter_map(|bytes| decode("incident", bytes))
            .collect())
    }

    /// When any instance was seen to run.
    pub(super) async fn life(&self) -> Result<Option<Life>, LinkError> {
        let mut command = cmd("GET");
        command.arg(keys::life());
        let bytes: Option<Vec<u8>> = self.read(BEHIND, &command).await?;
        Ok(bytes.and_then(|bytes| decode("life", &bytes)))
    }

    /// The saved answer under this key.
    pub(super) async fn cached(&self, key: CacheKey) -> Result<Option<CachedAnswer>, LinkError> {
        let mut command = cmd("HGET");
        command.arg(keys::answer(key)).arg("v");
        let bytes: Option<Vec<u8>> = self.read(HOT, &command).await?;
        Ok(bytes.and_then(|bytes| decode("saved answer", &bytes)))
    }

    /// The keys of all saved answers, those saved longest ago first.
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

    /// Runs a script that changes something, behind the scenes, and says what it says.
    pub(super) async fn change(
        &self,
        script: &::redis::ScriptInvocation<'_>,
    ) -> Result<i64, LinkError> {
        self.link.script(BEHIND, script).await
    }

    /// A script.
    pub(super) fn script(script: &Script) -> ::redis::ScriptInvocation<'_> {
        script.prepare_invoke()
    }
}
