//! Turns and other instances: whose turn a message opens, what others are shown of ours, and what is shown here of theirs.
//!
//! A turn of another instance has a log here too, a mirror, as soon as anybody here wants to see it; everything that reads logs reads it. Its
//! frames come from Redis in batches. Nothing here is waited for by a token: where Redis is away, this instance goes on alone.

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

/// What is shared of turns with other instances.
pub struct Sharing {
    turns: SharedTurns,
    ours: Mutex<HashMap<TurnId, Ours>>,
    theirs: Mutex<HashMap<TurnId, Theirs>>,
}

/// A turn that this instance answers.
struct Ours {
    conversation: ConversationId,
    log: Arc<TurnLog>,
    /// The last frame that the others can read.
    told: u64,
    renewed: Option<Instant>,
}

/// A turn that another instance answers, and somebody here follows.
struct Theirs {
    room: Arc<Room>,
    mirror: Mirror,
    /// Where in its stream this one stands.
    place: String,
    stopped: bool,
    followed: Option<Instant>,
}

/// The place of a turn that is about to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id that it is to have.
    pub turn: TurnId,
    /// Whether the others know of it.
    pub told: bool,
}

/// Whether a message may open a turn.
pub enum Opening {
    /// It may. None where nobody else was asked.
    Here(Option<Claim>),
    /// Another instance answers a turn of the conversation, or this very message; its log, where it can be had.
    Elsewhere(Option<Arc<TurnLog>>),
}

impl Desk {
    /// Asks the other instances whether `question` may open a turn in `room`. Hold [`Room::opening`] until it is opened.
    pub async fn claim(&self, room: &Arc<Room>, question: &Question) -> Opening {
        match &self.sharing {
            // What runs here, or is mirrored here, answers for itself.
            Some(sharing) if room.running().is_none() => {
                sharing
                    .claim(room, question, self.clock.wall(), (self.random)())
                    .await
            }
            _ => Opening::Here(None),
        }
    }

    /// Looks whether another instance answers a turn in this room, and follows it.
    pub async fn look(&self, room: &Arc<Room>) {
        if let Some(sharing) = &self.sharing {
            sharing.look(std::slice::from_ref(room)).await;
        }
    }
}

impl Sharing {
    /// Over what instances share.
    pub fn new(turns: SharedTurns) -> Self {
        Self {
            turns,
            ours: Mutex::default(),
            theirs: Mutex::default(),
        }
    }

    fn ours(&self) -> MutexGuard<'_, HashMap<TurnId, Ours>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn theirs(&self) -> MutexGuard<'_, HashMap<TurnId, Theirs>> {
        self.theirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn claim(&self, room: &Arc<Room>, question: &Question, now: At, chance: u64) -> Opening {
        let turn = room.next_turn(now, chance);
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
            // It may have been claimed all the same, so it is opened under that id.
            Err(_) => Opening::Here(Some(Claim { turn, told: false })),
        }
    }

    /// Shows the others a turn that this instance answers. `told`: they know its first frame.
    pub fn share(&self, conversation: ConversationId, log: &Arc<TurnLog>, told: bool) {
        let ours = Ours {
            conversation,
            log: Arc::clone(log),
            told: u64::from(told),
            renewed: None,
        };
        self.ours().insert(log.turn(), ours);
    }

    /// Looks whether other instances answer turns in these rooms, and follows them.
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

    /// Follows another instance's turn in this room, from its first frame on; its log, where it can be had and has not ended.
    async fn follow(&self, room: &Arc<Room>, turn: TurnId) -> Option<Arc<TurnLog>> {
        if let Some(log) = room.log(turn) {
            return Some(log);
        }
        let (mirror, place) = self.mirror(turn).await?;
        let log = Arc::clone(mirror.log());
        if log.ended() {
            return None;
        }
        if !room.adopt(&log) {
            return room.log(turn);
        }
        let (room, followed) = (Arc::clone(room), None);
        self.theirs().insert(
            turn,
            Theirs {
                room,
                mirror,
                place,
                stopped: false,
                followed,
            },
        );
        Some(log)
    }

    /// A turn as its stream tells it, and where that ends.
    async fn mirror(&self, turn: TurnId) -> Option<(Mirror, String)> {
        let parts = self.turns.frames(turn).await.ok()?;
        let (place, _) = parts.last()?.clone();
        let mut lines = parts.iter().flat_map(|(_, lines)| lines.lines());
        let first = lines.find_map(|line| Mirror::open(&serde_json::from_str(line).ok()?));
        let mut mirror = first?;
        lines.for_each(|line| mirror.take(line));
        Some((mirror, place))
    }

    /// Whether it is for this instance to ask for this late answer.
    pub async fn claim_late(&self, turn: TurnId) -> bool {
        self.turns.claim_late(turn).await
    }

    /// Tells the others of a late answer that is in the store.
    pub async fn tell_late(&self, conversation: ConversationId, turn: TurnId, late: Followup) {
        self.turns.tell(&Told::Late(conversation, turn, late)).await;
    }
}
