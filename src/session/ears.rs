//! What a session waits for besides the frames of the turn that it follows.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Interval;

use crate::chat::{Followup, StatusView, TurnId};
use crate::turn::desk::Phase;
use crate::turn::rooms::{NewTurn, NewTurns, Room};

/// Where it comes from.
pub(super) struct Ears {
    /// The client's text frames.
    pub(super) from: mpsc::Receiver<ByteString>,
    pub(super) turns: NewTurns,
    pub(super) late: broadcast::Receiver<(TurnId, Followup)>,
    pub(super) forgotten: watch::Receiver<u64>,
    pub(super) status: watch::Receiver<Arc<StatusView>>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) heartbeat: Interval,
}

/// What was heard.
pub(super) enum Heard {
    /// A frame of the client; none: it is gone.
    Client(Option<ByteString>),
    Turn(NewTurn),
    /// A late answer; none: some were missed.
    Late(Option<(TurnId, Followup)>),
    /// The conversation was deleted.
    Forgotten,
    Status(Arc<StatusView>),
    /// The service goes down.
    Closing,
    Heartbeat,
}

impl Ears {
    /// What comes next. Of new turns only where the session is `free` to follow one. Cancel-safe.
    pub(super) async fn hear(&mut self, room: &Room, free: bool) -> Heard {
        loop {
            return tokio::select! {
                text = self.from.recv() => Heard::Client(text),
                turn = self.turns.next(room), if free => Heard::Turn(turn),
                // The room that this session holds has the sender, so it is not closed.
                late = self.late.recv() => Heard::Late(late.ok()),
                Ok(()) = self.forgotten.changed() => Heard::Forgotten,
                Ok(()) = self.status.changed() => Heard::Status(Arc::clone(&self.status.borrow_and_update())),
                Ok(()) = self.phase.changed() => {
                    if *self.phase.borrow_and_update() != Phase::Closing {
                        continue;
                    }
                    Heard::Closing
                }
                _ = self.heartbeat.tick() => Heard::Heartbeat,
            };
        }
    }
}
