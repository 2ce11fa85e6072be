//! Running turns as shared by the instances: who runs a turn, its frames, and requests to it.
//!
//! A running turn has a lease that its instance renews. While it has one, no instance starts
//! another turn in the conversation. Its frames go to a stream in batches, so that any instance can
//! show it. Requests (stop) and events (started, followed, follow-up) are published. An instance
//! that misses a message finds out by polling.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::streams::{StreamId, StreamRangeReply, StreamReadOptions, StreamReadReply};
use ::redis::{AsyncCommands as _, cmd};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::client::{
    BACKGROUND_TIMEOUT, CallResult, HEARTBEAT_KEY, HOT_PATH_TIMEOUT, PREFIX, RedisClient,
};
use super::keys;
use super::scripts;
use crate::domain::{ClientMsgId, ConversationId, Followup, TurnId};

/// The lifetime of an unrenewed lease. After it, a dead instance's turns count as interrupted.
pub const TURN_LEASE: Duration = Duration::from_secs(5);

/// The lifetime of a turn's stream after the last frame.
const STREAM_TTL: Duration = Duration::from_secs(10 * 60);

/// Batches kept per turn: at one every 50 ms, more than six minutes.
const MAX_BATCHES: usize = 8192;

/// The time an instance has for a follow-up before another one may try, unless it dies first.
const FOLLOWUP_LEASE: Duration = Duration::from_secs(5 * 60);

const BATCH_SIZE: usize = 64;

const CHANNEL: &str = "turns";

/// A message between instances about a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnMessage {
    #[serde(rename = "opened")]
    Started(ConversationId, TurnId),
    #[serde(rename = "stop")]
    StopRequested(ConversationId, TurnId),
    /// A visitor on another instance follows the turn.
    #[serde(rename = "followed")]
    Followed(ConversationId, TurnId),
    #[serde(rename = "late")]
    FollowupReady(ConversationId, TurnId, Followup),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimReply {
    Granted,
    /// Another instance's turn is running in the conversation.
    Busy(TurnId),
    /// The message has a turn already.
    AlreadyStarted(TurnId),
}

#[derive(Debug)]
pub struct FrameBatch {
    pub conversation: ConversationId,
    pub turn: TurnId,
    /// The new frames, one per line. Empty to only renew the lease.
    pub frames: String,
    pub is_last: bool,
}

/// An entry of a stream: its id, and its frames, one per line.
pub type StreamPart = (String, String);

#[derive(Clone)]
pub struct TurnStreams {
    client: RedisClient,
    instance: Arc<str>,
}

impl TurnStreams {
    pub fn new(client: RedisClient, instance: Arc<str>) -> Self {
        Self { client, instance }
    }

    pub fn client(&self) -> &RedisClient {
        &self.client
    }

    /// Claims the conversation for a turn that `message` starts with the frame `start`.
    ///
    /// # Errors
    /// As [`RedisClient::call`]. The caller then starts the turn without a claim.
    pub async fn claim_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        message: &ClientMsgId,
        start: &str,
    ) -> CallResult<ClaimReply> {
        let started = self.encode(&TurnMessage::Started(conversation, turn));
        let mut claim = scripts::CLAIM_TURN.key(keys::running_turn(conversation));
        claim.key((
            keys::RUNNING_TURNS,
            keys::frames(turn),
            keys::conversation(conversation),
        ));
        claim.arg((
            turn.to_string(),
            &*self.instance,
            message.to_string(),
            start,
        ));
        let member = keys::turn_member(conversation, turn);
        claim.arg((millis(TURN_LEASE), millis(STREAM_TTL), member));
        claim.arg((format!("{PREFIX}{CHANNEL}"), started));
        let (code, other): (i64, String) = self.client.script(HOT_PATH_TIMEOUT, &claim).await?;
        match (code, other.parse()) {
            (1, Ok(other)) => Ok(ClaimReply::Busy(other)),
            (2, Ok(other)) => Ok(ClaimReply::AlreadyStarted(other)),
            _ => Ok(ClaimReply::Granted),
        }
    }

    /// Returns the turns that other instances run in these conversations, in the same order.
    pub async fn running_elsewhere(
        &self,
        conversations: &[ConversationId],
    ) -> CallResult<Vec<Option<TurnId>>> {
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = conversations
            .iter()
            .map(|id| keys::running_turn(*id))
            .collect();
        let mut get = cmd("MGET");
        get.arg(names);
        let found: Vec<Option<String>> = self.client.command(HOT_PATH_TIMEOUT, &get).await?;
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
    pub async fn append(&self, batches: &[FrameBatch]) -> CallResult<()> {
        for chunk in batches.chunks(BATCH_SIZE) {
            let mut append = scripts::APPEND_FRAMES.key(keys::RUNNING_TURNS);
            append.arg((
                &*self.instance,
                millis(TURN_LEASE),
                millis(STREAM_TTL),
                MAX_BATCHES,
            ));
            for batch in chunk {
                append.key((
                    keys::running_turn(batch.conversation),
                    keys::frames(batch.turn),
                ));
                let member = keys::turn_member(batch.conversation, batch.turn);
                append.arg((batch.turn.to_string(), member));
                append.arg((&batch.frames, u8::from(batch.is_last)));
            }
            let _: i64 = self.client.script(BACKGROUND_TIMEOUT, &append).await?;
        }
        Ok(())
    }

    /// Returns a turn's whole stream.
    pub async fn read_frames(&self, turn: TurnId) -> CallResult<Vec<StreamPart>> {
        let key = keys::frames(turn);
        let found: StreamRangeReply = self
            .client
            .call(HOT_PATH_TIMEOUT, |mut manager| async move {
                manager.xrange_all(key).await
            })
            .await?;
        Ok(found.ids.iter().filter_map(stream_part).collect())
    }

    /// Returns the new entries of streams, each after the given id. Skips streams without any.
    pub async fn read_new_frames(
        &self,
        after: &[(TurnId, String)],
    ) -> CallResult<Vec<(TurnId, Vec<StreamPart>)>> {
        let keys: Vec<_> = after.iter().map(|(turn, _)| keys::frames(*turn)).collect();
        let turns: HashMap<_, _> = after
            .iter()
            .map(|(turn, _)| (keys::frames(*turn), *turn))
            .collect();
        let ids: Vec<_> = after.iter().map(|(_, id)| id.clone()).collect();
        let options = StreamReadOptions::default().count(256);
        let read = self
            .client
            .call(BACKGROUND_TIMEOUT, |mut manager| async move {
                manager
                    .xread_options::<_, _, Option<StreamReadReply>>(&keys, &ids, &options)
                    .await
            });
        let Some(found) = read.await? else {
            return Ok(Vec::new());
        };
        let mut news = Vec::new();
        for stream in found.keys {
            let turn = turns.get(&stream.key);
            let parts = stream.ids.iter().filter_map(stream_part).collect();
            news.extend(turn.map(|turn| (*turn, parts)));
        }
        Ok(news)
    }

    /// Takes over the turns whose lease has expired, for the time of a lease, so that this instance
    /// ends them.
    pub async fn claim_expired(&self) -> CallResult<Vec<(ConversationId, TurnId)>> {
        let mut lapsed = scripts::CLAIM_EXPIRED_TURNS.key(keys::RUNNING_TURNS);
        lapsed.arg(millis(TURN_LEASE)).arg(BATCH_SIZE);
        let names: Vec<String> = self.client.script(BACKGROUND_TIMEOUT, &lapsed).await?;
        Ok(keys::parse_members(&names))
    }

    /// Claims a turn's follow-up. Returns `true` if this instance may ask for it, which is always
    /// the case while Redis is unavailable.
    pub async fn claim_followup(&self, turn: TurnId) -> bool {
        let mut claim = scripts::CLAIM_FOLLOWUP.key(keys::followup_claim(turn));
        let heartbeats = format!("{PREFIX}{HEARTBEAT_KEY}");
        claim.arg((&*self.instance, millis(FOLLOWUP_LEASE), heartbeats));
        let reply = self.client.script::<i64>(BACKGROUND_TIMEOUT, &claim).await;
        reply.map_or(true, |granted| granted == 1)
    }

    pub async fn publish(&self, message: &TurnMessage) {
        // A lost message does no harm: the others also poll.
        let text = self.encode(message);
        let _ = self
            .client
            .publish(BACKGROUND_TIMEOUT, CHANNEL, text.as_bytes())
            .await;
    }

    fn encode(&self, message: &TurnMessage) -> String {
        serde_json::to_string(&(&*self.instance, message)).unwrap_or_default()
    }

    /// Subscribes to the messages of other instances.
    pub fn subscribe(&self) -> TurnMessages {
        TurnMessages {
            messages: self.client.subscribe(CHANNEL),
            instance: Arc::clone(&self.instance),
        }
    }
}

pub struct TurnMessages {
    messages: broadcast::Receiver<Arc<[u8]>>,
    instance: Arc<str>,
}

impl TurnMessages {
    /// # Errors
    /// `MessagesLagged` if some were dropped. The caller then has to read the state they reported.
    pub async fn next(&mut self) -> Result<TurnMessage, MessagesLagged> {
        loop {
            match self.messages.recv().await {
                // A message that cannot be decoded is of a later version.
                Ok(message) => {
                    let read = serde_json::from_slice::<(String, TurnMessage)>(&message);
                    let message = read.ok().filter(|(from, _)| **from != *self.instance);
                    if let Some((_, message)) = message {
                        return Ok(message);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(MessagesLagged),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Messages were dropped because the receiver fell behind.
#[derive(Clone, Copy, Debug)]
pub struct MessagesLagged;

fn stream_part(entry: &StreamId) -> Option<StreamPart> {
    let frames = ::redis::from_redis_value_ref(entry.map.get("f")?).ok()?;
    Some((entry.id.clone(), frames))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
