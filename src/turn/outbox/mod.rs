//! Follow-ups: turns that an outage left without an AI's answer get one later, in the same
//! conversation.
//!
//! Pending turns are also in the store, so they survive a restart. The decisions are in the pure
//! `line`; `run` carries them out, a few at a time; `late` produces one answer.

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

/// The turns that wait for a follow-up.
pub struct Outbox {
    enabled: watch::Sender<bool>,
    order: Mutex<Line>,
    came: Notify,
    /// Returns a random number in 0..1.
    chance: fn() -> f64,
}

impl Outbox {
    /// Creates an empty queue. While `enabled` is `false`, it accepts no turns.
    pub fn new(enabled: bool, pace: Pace, chance: fn() -> f64) -> Self {
        Self {
            enabled: watch::Sender::new(enabled),
            order: Mutex::new(Line::new(pace)),
            came: Notify::new(),
            chance,
        }
    }

    /// Changes the settings. While disabled, turns that already wait keep waiting.
    pub fn set(&self, enabled: bool, pace: Pace) {
        self.line().set_pace(pace);
        self.enabled.send_replace(enabled);
    }

    fn is_on(&self) -> bool {
        *self.enabled.borrow()
    }

    /// Removes a deleted conversation. An answer in progress notices the deletion by itself.
    pub fn forget(&self, conversation: ConversationId) {
        self.line().forget(conversation);
    }

    /// Waits until follow-ups are enabled.
    async fn on(&self) {
        // `self` owns the sender, so the channel cannot close.
        let _ = self.enabled.subscribe().wait_for(|on| *on).await;
    }

    /// Adds a turn that ended without an AI's answer.
    ///
    /// Call before writing the turn's end, so that a crash in between loses nothing.
    pub fn enter(&self, service: &Desk, conversation: ConversationId, turn: TurnId) {
        if !self.is_on() {
            return;
        }
        // Not awaited: the write is queued when the call returns, and reaches the disk together
        // with the turn's end.
        drop(service.store.write_waiting(conversation, turn, true));
        let dropped = self.line().enter(
            Waiting { turn, conversation },
            service.clock.now(),
            (self.chance)(),
        );
        dropped
            .into_iter()
            .for_each(|dropped| run::let_go(service, dropped));
        self.came.notify_one();
    }

    /// Adds a turn of another instance that is gone.
    pub fn adopt(&self, service: &Desk, conversation: ConversationId, turn: TurnId) {
        if !self.is_on() {
            return;
        }
        drop(service.store.write_waiting(conversation, turn, true));
        self.stand(service, conversation, turn);
    }

    fn stand(&self, service: &Desk, conversation: ConversationId, turn: TurnId) {
        let dropped = self.line().stand(Waiting { turn, conversation });
        dropped
            .into_iter()
            .for_each(|dropped| run::let_go(service, dropped));
        self.came.notify_one();
    }

    fn begin(&self, now: Duration) -> Option<Waiting> {
        self.line().begin(now, (self.chance)())
    }

    fn settle(&self, followup: Waiting, outcome: Came, now: Duration) -> bool {
        self.line().settle(followup, outcome, now, (self.chance)())
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
