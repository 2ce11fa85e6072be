//! Running turns as shared by the instances: who runs a turn, its frames, and requests to it.
//!
//! A running turn has a lease that its instance renews. While it has one, no instance starts
//! another turn in the conversation. Its frames go to a stream in batches, so that any instance can
//! show it. Requests (stop) and events (started, followed, follow-up) are published. An instance
//! that misses a message finds out by polling.

use std::sync::Arc;
use std::time::Duration;

use ::redis::streams::{StreamRangeReply, StreamReadOptions, StreamReadReply};
use ::redis::{AsyncCommands as _, Value, cmd};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::keys;
use super::link::{BEHIND, HOT, Link, LinkError, PREFIX, SIGN};
use super::scripts;
use crate::chat::{ClientMsgId, ConversationId, Followup, TurnId};

/// The lifetime of an unrenewed lease. After it, a dead instance's turns count as interrupted.
pub const LEASE: Duration = Duration::from_secs(5);

/// The lifetime of a turn's stream after the last frame.
const STREAM_STAYS: Duration = Duration::from_secs(10 * 60);

/// Batches kept per turn: at one every 50 ms, more than six minutes.
const BATCHES: usize = 8192;

/// The time an instance has for a follow-up before another one may try, unless it dies first.
const LATE_LEASE: Duration = Duration::from_secs(5 * 60);

const AT_ONCE: usize = 64;

const CHANNEL: &str = "turns";

/// A message between instances about a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    #[serde(rename = "opened")]
    Opened(ConversationId, TurnId),
    #[serde(rename = "stop")]
    Stop(ConversationId, TurnId),
    /// A visitor on another instance follows the turn.
    #[serde(rename = "followed")]
    Followed(ConversationId, TurnId),
    #[serde(rename = "late")]
    Late(ConversationId, TurnId, Followup),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    Mine,
    /// Another instance's turn is running in the conversation.
    Busy(TurnId),
    /// The message has a turn already.
    Known(TurnId),
}

#[derive(Debug)]
pub struct Batch {
    pub conversation: ConversationId,
    pub turn: TurnId,
    /// The new frames, one per line. Empty to only renew the lease.
    pub frames: String,
    pub ended: bool,
}

/// An entry of a stream: its id, and its frames, one per line.
pub type Part = (String, String);

#[derive(Clone)]
pub struct SharedTurns {
    client: Link,
    instance: Arc<str>,
}

impl SharedTurns {
    pub fn new(client: Link, instance: Arc<str>) -> Self {
        Self { client, instance }
    }

    pub fn link(&self) -> &Link {
        &self.client
    }

    /// Claims the conversation for a turn that `message` starts with the frame `start`.
    ///
    /// # Errors
    /// As [`RedisClient::call`]. The caller then starts the turn without a claim.
    pub async fn claim(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        message: &ClientMsgId,
        start: &str,
    ) -> Result<Claimed, LinkError> {
        let started = self.said(&Told::Opened(conversation, turn));
        let mut claim = scripts::CLAIM.key(keys::run(conversation));
        claim
            .key(keys::runs())
            .key(keys::frames(turn))
            .key(keys::conversation(conversation));
        claim
            .arg(turn.to_string())
            .arg(&*self.instance)
            .arg(message.to_string())
            .arg(start);
        claim
            .arg(millis(LEASE))
            .arg(millis(STREAM_STAYS))
            .arg(keys::waits(conversation, turn));
        claim.arg(format!("{PREFIX}{CHANNEL}")).arg(started);
        let (code, other): (i64, String) = self.client.script(HOT, &claim).await?;
        match (code, other.parse()) {
            (1, Ok(other)) => Ok(Claimed::Busy(other)),
            (2, Ok(other)) => Ok(Claimed::Known(other)),
            _ => Ok(Claimed::Mine),
        }
    }

    /// Returns the turns that other instances run in these conversations, in the same order.
    pub async fn running(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<TurnId>>, LinkError> {
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("MGET");
        get.arg(
            conversations
                .iter()
                .map(|id| keys::run(*id))
                .collect::<Vec<_>>(),
        );
        let found: Vec<Option<String>> = self.client.command(HOT, &get).await?;
        let elsewhere = |run: Option<String>| {
            let run = run?;
            let (turn, instance) = run.split_once(' ')?;
            turn.parse().ok().filter(|_| *instance != *self.instance)
        };
        Ok(found.into_iter().map(elsewhere).collect())
    }

    /// Appends frames to the streams of turns and renews their leases.
    ///
    /// # Errors
    /// As [`RedisClient::call`]. Some of the frames may have been appended.
    pub async fn append(&self, batches: &[Batch]) -> Result<(), LinkError> {
        for chunk in batches.chunks(AT_ONCE) {
            let mut append = scripts::APPEND.key(keys::runs());
            append
                .arg(&*self.instance)
                .arg(millis(LEASE))
                .arg(millis(STREAM_STAYS))
                .arg(BATCHES);
            for batch in chunk {
                append
                    .key(keys::run(batch.conversation))
                    .key(keys::frames(batch.turn));
                append
                    .arg(batch.turn.to_string())
                    .arg(keys::waits(batch.conversation, batch.turn));
                append.arg(&batch.frames).arg(u8::from(batch.ended));
            }
            self.client.script::<i64>(BEHIND, &append).await?;
        }
        Ok(())
    }

    /// Returns a turn's whole stream.
    pub async fn frames(&self, turn: TurnId) -> Result<Vec<Part>, LinkError> {
        let key = keys::frames(turn);
        let found: StreamRangeReply = self
            .client
            .ask(
                HOT,
                |mut manager| async move { manager.xrange_all(key).await },
            )
            .await?;
        Ok(found
            .ids
            .iter()
            .filter_map(|entry| Some((entry.id.clone(), payload(entry.map.get("f")?)?)))
            .collect())
    }

    /// Returns the new entries of streams, each after the given id. Skips streams without any.
    pub async fn news(
        &self,
        after: &[(TurnId, String)],
    ) -> Result<Vec<(TurnId, Vec<Part>)>, LinkError> {
        let keys: Vec<_> = after.iter().map(|(turn, _)| keys::frames(*turn)).collect();
        let ids: Vec<_> = after.iter().map(|(_, id)| id.clone()).collect();
        let streams = keys.clone();
        let options = StreamReadOptions::default().count(256);
        let read = self.client.ask(BEHIND, |mut manager| async move {
            manager
                .xread_options::<_, _, Option<StreamReadReply>>(&streams, &ids, &options)
                .await
        });
        let Some(found) = read.await? else {
            return Ok(Vec::new());
        };
        let mut news = Vec::new();
        for stream in found.keys {
            let turn = keys
                .iter()
                .position(|key| *key == stream.key)
                .and_then(|at| after.get(at));
            let parts = stream.ids.iter();
            let parts =
                parts.filter_map(|entry| Some((entry.id.clone(), payload(entry.map.get("f")?)?)));
            news.extend(turn.map(|(turn, _)| (*turn, parts.collect())));
        }
        Ok(news)
    }

    /// Takes over the turns whose lease has expired, for the time of a lease, so that this instance
    /// ends them.
    pub async fn lapsed(&self) -> Result<Vec<(ConversationId, TurnId)>, LinkError> {
        let mut lapsed = scripts::LAPSED.key(keys::runs());
        lapsed.arg(millis(LEASE)).arg(AT_ONCE);
        let names: Vec<String> = self.client.script(BEHIND, &lapsed).await?;
        Ok(names.iter().filter_map(|name| keys::named(name)).collect())
    }

    /// Claims a turn's follow-up. Returns `true` if this instance may ask for it, which is always
    /// the case while Redis is unavailable.
    pub async fn claim_late(&self, turn: TurnId) -> bool {
        let mut claim = scripts::CLAIM_LATE.key(keys::late(turn));
        claim
            .arg(&*self.instance)
            .arg(millis(LATE_LEASE))
            .arg(format!("{PREFIX}{SIGN}"));
        self.client
            .script::<i64>(BEHIND, &claim)
            .await
            .map_or(true, |mine| mine == 1)
    }

    pub async fn tell(&self, message: &Told) {
        // A lost message does no harm: the others also poll.
        let _ = self
            .client
            .publish(BEHIND, CHANNEL, self.said(message).as_bytes())
            .await;
    }

    fn said(&self, message: &Told) -> String {
        serde_json::to_string(&(&*self.instance, message)).unwrap_or_default()
    }

    /// Subscribes to the messages of other instances.
    pub fn hear(&self) -> Heard {
        Heard {
            messages: self.client.hear(CHANNEL),
            instance: Arc::clone(&self.instance),
        }
    }
}

pub struct Heard {
    messages: broadcast::Receiver<Arc<[u8]>>,
    instance: Arc<str>,
}

impl Heard {
    /// # Errors
    /// `MessagesLagged` if some were dropped. The caller then has to read the state they reported.
    pub async fn next(&mut self) -> Result<Told, Missed> {
        loop {
            match self.messages.recv().await {
                // A message that cannot be decoded is of a later version.
                Ok(message) => {
                    let read = serde_json::from_slice::<(String, Told)>(&message);
                    let message = read.ok().filter(|(from, _)| **from != *self.instance);
                    if let Some((_, message)) = message {
                        return Ok(message);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(Missed),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Messages were dropped because the receiver fell behind.
#[derive(Clone, Copy, Debug)]
pub struct Missed;

fn payload(value: &Value) -> Option<String> {
    ::redis::from_redis_value_ref(value).ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
