//! The outbox: turns that an outage left without an AI's answer get it later, in the same conversation.
//!
//! Who waits is in the store too, so that it outlives the process. The decisions are in the pure `line`; `run` carries them out, one or few at a
//! time, and `late` is one such answer.

mod late;
pub mod line;
mod run;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

pub use self::line::Pace;
use self::line::{Came, Line, Waiting};
pub use self::run::run;
use super::desk::Desk;
use crate::chat::{ConversationId, TurnId};

/// Who waits for a late answer.
pub struct Outbox {
    on: watch::Sender<bool>,
    line: Mutex<Line>,
    came: Notify,
    chance: fn() -> f64,
}

impl Outbox {
    /// An empty one, which takes nobody where it is not `on`. `chance`: a random number in 0..1.
    pub fn new(on: bool, pace: Pace, chance: fn() -> f64) -> Self {
        Self {
            on: watch::Sender::new(on),
            line: Mutex::new(Line::new(pace)),
            came: Notify::new(),
            chance,
        }
    }

    /// From now on turns are answered late or not, with these waits. Those that wait already do so until it is on again.
    pub fn set(&self, on: bool, pace: Pace) {
        self.line().set_pace(pace);
        self.on.send_replace(on);
    }

    fn is_on(&self) -> bool {
        *self.on.borrow()
    }

    /// Nobody of this conversation waits any more; what is under way finds that out by itself.
    pub fn forget(&self, conversation: ConversationId) {
        self.line().forget(conversation);
    }

    /// Until turns are to be answered late.
    async fn on(&self) {
        // The sender is `self`: the watch does not end.
        let _ = self.on.subscribe().wait_for(|on| *on).await;
    }

    /// A turn ended without an AI's answer. To be called before its end is written, so that no crash comes between.
    pub fn enter(&self, desk: &Desk, conversation: ConversationId, turn: TurnId) {
        if !self.is_on() {
            return;
        }
        // On its way when the call returns, and on disk together with the turn's end.
        drop(desk.store.write_waiting(conversation, turn, true));
        let gone = self.line().enter(
            Waiting { turn, conversation },
            desk.clock.now(),
            (self.chance)(),
        );
        gone.into_iter().for_each(|gone| run::let_go(desk, gone));
        self.came.notify_one();
    }

    /// A turn of another instance that is gone waits here from now on.
    pub fn adopt(&self, desk: &Desk, conversation: ConversationId, turn: TurnId) {
        if !self.is_on() {
            return;
        }
        drop(desk.store.write_waiting(conversation, turn, true));
        self.stand(desk, conversation, turn);
    }

    fn stand(&self, desk: &Desk, conversation: ConversationId, turn: TurnId) {
        let gone = self.line().stand(Waiting { turn, conversation });
        gone.into_iter().for_each(|gone| run::let_go(desk, gone));
        self.came.notify_one();
    }

    fn begin(&self, now: Duration) -> Option<Waiting> {
        self.line().begin(now, (self.chance)())
    }

    fn settle(&self, one: Waiting, came: Came, now: Duration) -> bool {
        self.line().settle(one, came, now, (self.chance)())
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
