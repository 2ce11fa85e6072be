//! Turns that run, as instances tell each other of them: who answers which, its frames, and what is asked of its answerer.
//!
//! A running turn has a lease, which its instance renews; while it has one, no other turn of the conversation is opened anywhere. Its frames go
//! to a stream, in batches, so that any instance can show it. What is asked of it (stop) and what happens (opened, answered late) is
//! published; who misses that finds the same by looking.

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

/// How long a lease stands that is not renewed: so long after an instance died its turns are taken for interrupted.
pub const LEASE: Duration = Duration::from_secs(5);

/// How long a turn's frames can be read after the last of them.
const STREAM_STAYS: Duration = Duration::from_secs(10 * 60);

/// The most batches of a turn that are kept: at one each 50 ms more than six minutes.
const BATCHES: usize = 8192;

/// How long one instance may ask for a late answer, unless it dies.
const LATE_LEASE: Duration = Duration::from_secs(5 * 60);

/// Leases that are looked at or renewed at once.
const AT_ONCE: usize = 64;

/// The channel on which instances tell each other of turns.
const CHANNEL: &str = "turns";

/// What instances tell each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A turn was opened.
    Opened(ConversationId, TurnId),
    /// A turn is to be stopped.
    Stop(ConversationId, TurnId),
    /// A turn is followed somewhere.
    Followed(ConversationId, TurnId),
    /// A turn was answered late.
    Late(ConversationId, TurnId, Followup),
}

/// What became of a message that is to open a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The turn is this instance's.
    Mine,
    /// Another turn runs.
    Busy(TurnId),
    /// The message has a turn already.
    Known(TurnId),
}

/// What is new of a turn that this instance answers.
#[derive(Debug)]
pub struct Batch {
    /// Its conversation.
    pub conversation: ConversationId,
    /// The turn.
    pub turn: TurnId,
    /// Its new frames, a line each; empty: there are none, and only the lease is renewed.
    pub frames: String,
    /// Whether they are the last.
    pub ended: bool,
}

/// A part of a stream: where it ends, and its frames, a line each.
pub type Part = (String, String);

/// The turns of all instances.
#[derive(Clone)]
pub struct SharedTurns {
    link: Link,
    instance: Arc<str>,
}

impl SharedTurns {
    /// Over this link, in the name of this instance.
    pub fn new(link: Link, instance: Arc<str>) -> Self {
        Self { link, instance }
    }

    /// The link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Claims the conversation for a turn that this message opens; `start` is its first frame.
    ///
    /// # Errors
    /// As [`Link::ask`]. The turn is opened then without a claim.
    pub async fn claim(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        message: &ClientMsgId,
        start: &str,
    ) -> Result<Claimed, LinkError> {
        let told = self.said(&Told::Opened(conversation, turn));
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
        claim.arg(format!("{PREFIX}{CHANNEL}")).arg(told);
        let (how, other): (i64, String) = self.link.script(HOT, &claim).await?;
        match (how, other.parse()) {
            (1, Ok(other)) => Ok(Claimed::Busy(other)),
            (2, Ok(other)) => Ok(Claimed::Known(other)),
            _ => Ok(Claimed::Mine),
        }
    }

    /// The turns that other instances answer in these conversations, in their order.
    ///
    /// # Errors
    /// As [`Link::ask`].
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
        let found: Vec<Option<String>> = self.link.command(HOT, &get).await?;
        let elsewhere = |run: Option<String>| {
            let run = run?;
            let (turn, instance) = run.split_once(' ')?;
            turn.parse().ok().filter(|_| *instance != *self.instance)
        };
        Ok(found.into_iter().map(elsewhere).collect())
    }

    /// Appends what is new of turns to their streams, and renews their leases.
    ///
    /// # Errors
    /// As [`Link::ask`]: some of it may have been appended.
    pub async fn append(&self, batches: &[Batch]) -> Result<(), LinkError> {
        for some in batches.chunks(AT_ONCE) {
            let mut append = scripts::APPEND.key(keys::runs());
            append
                .arg(&*self.instance)
                .arg(millis(LEASE))
                .arg(millis(STREAM_STAYS))
                .arg(BATCHES);
            for one in some {
                append
                    .key(keys::run(one.conversation))
                    .key(keys::frames(one.turn));
                append
                    .arg(one.turn.to_string())
                    .arg(keys::waits(one.conversation, one.turn));
                append.arg(&one.frames).arg(u8::from(one.ended));
            }
            self.link.script::<i64>(BEHIND, &append).await?;
        }
        Ok(())
    }

    /// A turn's stream from its beginning.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub async fn frames(&self, turn: TurnId) -> Result<Vec<Part>, LinkError> {
        let key = keys::frames(turn);
        let found: StreamRangeReply = self
            .link
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

    /// What came to these streams after the given places, those with news alone.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub async fn news(
        &self,
        after: &[(TurnId, String)],
    ) -> Result<Vec<(TurnId, Vec<Part>)>, LinkError> {
        let keys: Vec<_> = after.iter().map(|(turn, _)| keys::frames(*turn)).collect();
        let places: Vec<_> = after.iter().map(|(_, place)| place.clone()).collect();
        let (of, options) = (keys.clone(), StreamReadOptions::default().count(256));
        let read = self.link.ask(BEHIND, |mut manager| async move {
            manager
                .xread_options::<_, _, Option<StreamReadReply>>(&of, &places, &options)
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

    /// Turns whose instance did not renew their leases: they are this instance's to end now, for as long as a lease.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub async fn lapsed(&self) -> Result<Vec<(ConversationId, TurnId)>, LinkError> {
        let mut lapsed = scripts::LAPSED.key(keys::runs());
        lapsed.arg(millis(LEASE)).arg(AT_ONCE);
        let names: Vec<String> = self.link.script(BEHIND, &lapsed).await?;
        Ok(names.iter().filter_map(|name| keys::named(name)).collect())
    }

    /// Whether it is for this instance to ask for this late answer. Alone it is.
    pub async fn claim_late(&self, turn: TurnId) -> bool {
        let mut claim = scripts::CLAIM_LATE.key(keys::late(turn));
        claim
            .arg(&*self.instance)
            .arg(millis(LATE_LEASE))
            .arg(format!("{PREFIX}{SIGN}"));
        self.link
            .script::<i64>(BEHIND, &claim)
            .await
            .map_or(true, |mine| mine == 1)
    }

    /// Tells the other instances; who is away does not hear it.
    pub async fn tell(&self, told: &Told) {
        // They find it by looking, too.
        let _ = self
            .link
            .publish(BEHIND, CHANNEL, self.said(told).as_bytes())
            .await;
    }

    fn said(&self, told: &Told) -> String {
        serde_json::to_string(&(&*self.instance, told)).unwrap_or_default()
    }

    /// Hears what other instances tell.
    pub fn hear(&self) -> Heard {
        Heard {
            messages: self.link.hear(CHANNEL),
            instance: Arc::clone(&self.instance),
        }
    }
}

/// What other instances tell.
pub struct Heard {
    messages: broadcast::Receiver<Arc<[u8]>>,
    instance: Arc<str>,
}

impl Heard {
    /// The next; `Err` where some were missed.
    ///
    /// # Errors
    /// Some were missed: it is to be looked what they said.
    pub async fn next(&mut self) -> Result<Told, Missed> {
        loop {
            match self.messages.recv().await {
                // What does not read is of a later version.
                Ok(message) => {
                    let read = serde_json::from_slice::<(String, Told)>(&message);
                    if let Some((_, told)) = read.ok().filter(|(from, _)| **from != *self.instance)
                    {
                        return Ok(told);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(Missed),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Some of what was told was missed.
#[derive(Clone, Copy, Debug)]
pub struct Missed;

fn payload(value: &Value) -> Option<String> {
    ::redis::from_redis_value_ref(value).ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
