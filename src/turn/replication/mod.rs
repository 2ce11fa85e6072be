//! Replication of running turns between instances: which instance answers a message, what the
//! others see of it, and what this one shows of theirs.
//!
//! A turn of another instance has a replica log here as soon as somebody here follows it.
//! Everything that reads logs reads it. Its frames arrive from Redis in batches. No token waits for
//! Redis: while Redis is unavailable, each instance goes on alone.

pub mod worker;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::conversations::{LiveConversation, NewMessage};
use super::log::{ReplicaLog, TurnLog, encode_frame};
use crate::domain::{ConversationId, Frame, Timestamp, TurnId};
use crate::store::redis::turn_streams::{ClaimReply, TurnStreams};

/// The running turns that this instance shares with others.
pub struct TurnReplication {
    pub(super) streams: TurnStreams,
    local_turns: Mutex<HashMap<TurnId, LocalTurn>>,
    remote_turns: Mutex<HashMap<TurnId, RemoteTurn>>,
}

/// A turn that this instance answers.
struct LocalTurn {
    conversation: ConversationId,
    log: Arc<TurnLog>,
    /// The last frame that other instances can read.
    published_seq: u64,
    /// The last renewal of the lease, or `None` before the first write to Redis.
    renewed_at: Option<Instant>,
}

/// A turn that another instance answers and somebody here follows.
struct RemoteTurn {
    conversation: Arc<LiveConversation>,
    replica: ReplicaLog,
    /// The id of the last stream entry applied to the replica.
    stream_position: String,
    /// `true` once the answering instance has been told to stop.
    stop_sent: bool,
    /// The last time the answering instance was told that somebody follows the turn.
    followed_sent_at: Option<Instant>,
}

/// The claim of a conversation for a turn that is about to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnClaim {
    pub turn: TurnId,
    /// `true` if other instances know the start frame.
    pub is_published: bool,
}

/// The instance that a new message starts a turn on.
pub enum ClaimOutcome {
    /// This one. `None` if no other instance had to be asked.
    Local(Option<TurnClaim>),
    /// Another one, which already answers the message or another turn of the conversation. The log
    /// is `None` if its frames cannot be read.
    Remote(Option<Arc<TurnLog>>),
}

impl TurnReplication {
    pub fn new(turns: TurnStreams) -> Self {
        Self {
            streams: turns,
            local_turns: Mutex::default(),
            remote_turns: Mutex::default(),
        }
    }

    pub async fn claim_turn(
        &self,
        room: &Arc<LiveConversation>,
        question: &NewMessage,
        now: Timestamp,
        random: u64,
    ) -> ClaimOutcome {
        let turn = room.next_turn_id(now, random);
        let start = encode_frame(&Frame::Start {
            turn,
            seq: 1,
            client_msg_id: question.client_msg_id.clone(),
            text: question.text.clone(),
            at: now,
            retry_of: question.retry_of,
        });
        match self
            .streams
            .claim_turn(room.id(), turn, &question.client_msg_id, &start)
            .await
        {
            Ok(ClaimReply::Granted) => ClaimOutcome::Local(Some(TurnClaim {
                turn,
                is_published: true,
            })),
            Ok(ClaimReply::Busy(other) | ClaimReply::AlreadyStarted(other)) => {
                ClaimOutcome::Remote(self.follow_remote(room, other).await)
            }
            // Redis may have stored the claim all the same, so the turn keeps this id.
            Err(_) => ClaimOutcome::Local(Some(TurnClaim {
                turn,
                is_published: false,
            })),
        }
    }

    /// Publishes a turn of this instance. `is_published` says that others know its
    /// start frame already.
    pub fn add_local_turn(
        &self,
        conversation: ConversationId,
        log: &Arc<TurnLog>,
        is_published: bool,
    ) {
        let turn = LocalTurn {
            conversation,
            log: Arc::clone(log),
            published_seq: u64::from(is_published),
            renewed_at: None,
        };
        self.local_turns.lock().insert(log.turn(), turn);
    }

    /// Follows the turns that other instances answer in these conversations.
    pub async fn follow_remote_turns(&self, rooms: &[Arc<LiveConversation>]) {
        let ids: Vec<_> = rooms.iter().map(|room| room.id()).collect();
        let Ok(running) = self.streams.running_elsewhere(&ids).await else {
            return;
        };
        for (room, turn) in rooms.iter().zip(running) {
            if let Some(turn) = turn {
                self.follow_remote(room, turn).await;
            }
        }
    }

    /// Follows another instance's turn from its first frame on. Returns its log, or `None` if it has
    /// ended or its frames cannot be read.
    async fn follow_remote(
        &self,
        room: &Arc<LiveConversation>,
        turn: TurnId,
    ) -> Option<Arc<TurnLog>> {
        if let Some(log) = room.log(turn) {
            return Some(log);
        }
        let (replica, position) = self.load_replica(turn).await?;
        let log = Arc::clone(replica.log());
        if log.is_finished() {
            return None;
        }
        // Another task may have attached a replica in the meantime.
        if !room.attach_replica(&log) {
            return room.log(turn);
        }
        self.remote_turns.lock().insert(
            turn,
            RemoteTurn {
                conversation: Arc::clone(room),
                replica,
                stream_position: position,
                stop_sent: false,
                followed_sent_at: None,
            },
        );
        Some(log)
    }

    /// Builds a replica from a turn's stream. Returns it with the id of the last entry.
    async fn load_replica(&self, turn: TurnId) -> Option<(ReplicaLog, String)> {
        let parts = self.streams.read_frames(turn).await.ok()?;
        let (position, _) = parts.last()?.clone();
        let mut lines = parts.iter().flat_map(|(_, lines)| lines.lines());
        let mut replica = lines
            .find_map(|line| ReplicaLog::from_start_frame(&serde_json::from_str(line).ok()?))?;
        lines.for_each(|line| replica.apply_lines(line));
        Some((replica, position))
    }
}
