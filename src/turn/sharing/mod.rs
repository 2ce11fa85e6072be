//! Replication of running turns between instances: which instance answers a message, what the
//! others see of it, and what this one shows of theirs.
//!
//! A turn of another instance has a replica log here as soon as somebody here follows it.
//! Everything that reads logs reads it. Its frames arrive from Redis in batches. No token waits for
//! Redis: while Redis is unavailable, each instance goes on alone.

mod run;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub use run::run;

use super::desk::Desk;
use super::log::{Mirror, TurnLog, encode};
use super::rooms::{Question, Room};
use crate::chat::{At, ConversationId, Followup, Frame, TurnId};
use crate::store::turns::{Claimed, SharedTurns, Told};

/// The running turns that this instance shares with others.
pub struct Sharing {
    turns: SharedTurns,
    local_turns: Mutex<HashMap<TurnId, Ours>>,
    remote_turns: Mutex<HashMap<TurnId, Theirs>>,
}

/// A turn that this instance answers.
struct Ours {
    conversation: ConversationId,
    log: Arc<TurnLog>,
    /// The last frame that other instances can read.
    told: u64,
    /// The last renewal of the lease, or `None` before the first write to Redis.
    renewed: Option<Instant>,
}

/// A turn that another instance answers and somebody here follows.
struct Theirs {
    room: Arc<Room>,
    mirror: Mirror,
    /// The id of the last stream entry applied to the replica.
    place: String,
    /// `true` once the answering instance has been told to stop.
    stopped: bool,
    /// The last time the answering instance was told that somebody follows the turn.
    followed: Option<Instant>,
}

/// The claim of a conversation for a turn that is about to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub turn: TurnId,
    /// `true` if other instances know the start frame.
    pub told: bool,
}

/// The instance that a new message starts a turn on.
pub enum Opening {
    /// This one. `None` if no other instance had to be asked.
    Here(Option<Claim>),
    /// Another one, which already answers the message or another turn of the conversation. The log
    /// is `None` if its frames cannot be read.
    Elsewhere(Option<Arc<TurnLog>>),
}

impl Desk {
    /// Asks the other instances whether `question` may start a turn. Hold `lock_opening` of the
    /// conversation until the turn is started.
    pub async fn claim(&self, room: &Arc<Room>, question: &Question) -> Opening {
        match &self.sharing {
            // A turn that runs or is replicated here is found without asking.
            Some(sharing) if room.running().is_none() => {
                sharing
                    .claim(room, question, self.clock.wall(), (self.random)())
                    .await
            }
            _ => Opening::Here(None),
        }
    }

    /// Follows the turn that another instance answers in this conversation, if there is one.
    pub async fn look(&self, room: &Arc<Room>) {
        if let Some(sharing) = &self.sharing {
            sharing.look(std::slice::from_ref(room)).await;
        }
    }
}

impl Sharing {
    pub fn new(turns: SharedTurns) -> Self {
        Self {
            turns,
            local_turns: Mutex::default(),
            remote_turns: Mutex::default(),
        }
    }

    fn ours(&self) -> MutexGuard<'_, HashMap<TurnId, Ours>> {
        self.local_turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn theirs(&self) -> MutexGuard<'_, HashMap<TurnId, Theirs>> {
        self.remote_turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn claim(&self, room: &Arc<Room>, question: &Question, now: At, random: u64) -> Opening {
        let turn = room.next_turn(now, random);
        let start = encode(&Frame::Start {
            turn,
            seq: 1,
            client_msg_id: question.client_msg_id.clone(),
            text: question.text.clone(),
            at: now,
            retry_of: question.retry_of,
        });
        match self
            .turns
            .claim(room.id(), turn, &question.client_msg_id, &start)
            .await
        {
            Ok(Claimed::Mine) => Opening::Here(Some(Claim { turn, told: true })),
            Ok(Claimed::Busy(other) | Claimed::Known(other)) => {
                Opening::Elsewhere(self.follow(room, other).await)
            }
            // Redis may have stored the claim all the same, so the turn keeps this id.
            Err(_) => Opening::Here(Some(Claim { turn, told: false })),
        }
    }

    /// Publishes a turn of this instance. `is_published` says that others know its
    /// start frame already.
    pub fn share(&self, conversation: ConversationId, log: &Arc<TurnLog>, is_published: bool) {
        let turn = Ours {
            conversation,
            log: Arc::clone(log),
            told: u64::from(is_published),
            renewed: None,
        };
        self.ours().insert(log.turn(), turn);
    }

    /// Follows the turns that other instances answer in these conversations.
    async fn look(&self, rooms: &[Arc<Room>]) {
        let ids: Vec<_> = rooms.iter().map(|room| room.id()).collect();
        let Ok(running) = self.turns.running(&ids).await else {
            return;
        };
        for (room, turn) in rooms.iter().zip(running) {
            if let Some(turn) = turn {
                self.follow(room, turn).await;
            }
        }
    }

    /// Follows another instance's turn from its first frame on. Returns its log, or `None` if it has
    /// ended or its frames cannot be read.
    async fn follow(&self, room: &Arc<Room>, turn: TurnId) -> Option<Arc<TurnLog>> {
        if let Some(log) = room.log(turn) {
            return Some(log);
        }
        let (replica, position) = self.mirror(turn).await?;
        let log = Arc::clone(replica.log());
        if log.ended() {
            return None;
        }
        // Another task may have attached a replica in the meantime.
        if !room.adopt(&log) {
            return room.log(turn);
        }
        self.theirs().insert(
            turn,
            Theirs {
                room: Arc::clone(room),
                mirror: replica,
                place: position,
                stopped: false,
                followed: None,
            },
        );
        Some(log)
    }

    /// Builds a replica from a turn's stream. Returns it with the id of the last entry.
    async fn mirror(&self, turn: TurnId) -> Option<(Mirror, String)> {
        let parts = self.turns.frames(turn).await.ok()?;
        let (position, _) = parts.last()?.clone();
        let mut lines = parts.iter().flat_map(|(_, lines)| lines.lines());
        let mut replica = lines.find_map(|line| Mirror::open(&serde_json::from_str(line).ok()?))?;
        lines.for_each(|line| replica.take(line));
        Some((replica, position))
    }

    /// Claims a follow-up for this instance. Returns `false` if another instance answers it.
    pub async fn claim_late(&self, turn: TurnId) -> bool {
        self.turns.claim_late(turn).await
    }

    /// Publishes a follow-up that is in the store.
    pub async fn tell_late(&self, conversation: ConversationId, turn: TurnId, late: Followup) {
        self.turns.tell(&Told::Late(conversation, turn, late)).await;
    }
}
