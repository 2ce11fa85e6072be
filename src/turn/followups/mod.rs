//! Follow-ups: turns that an outage left without an AI's answer get one later, in the same
//! conversation.
//!
//! Pending turns are also in the store, so they survive a restart. The decisions are in the pure
//! `line`; `run` carries them out, a few at a time; `late` produces one answer.

mod answer;
pub mod queue;
mod worker;

use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

pub use self::queue::RetryPacing;
use self::queue::{FollowupOrder, FollowupOutcome, PendingFollowup};
pub use self::worker::run;
use super::service::TurnService;
use crate::domain::{ConversationId, TurnId};

/// The turns that wait for a follow-up.
pub struct FollowupQueue {
    enabled: watch::Sender<bool>,
    order: Mutex<FollowupOrder>,
    changed: Notify,
    /// Returns a random number in 0..1.
    random_unit: fn() -> f64,
}

impl FollowupQueue {
    /// Creates an empty queue. While `enabled` is `false`, it accepts no turns.
    pub fn new(enabled: bool, pace: RetryPacing, chance: fn() -> f64) -> Self {
        Self {
            enabled: watch::Sender::new(enabled),
            order: Mutex::new(FollowupOrder::new(pace)),
            changed: Notify::new(),
            random_unit: chance,
        }
    }

    /// Changes the settings. While disabled, turns that already wait keep waiting.
    pub fn configure(&self, enabled: bool, pace: RetryPacing) {
        self.lock_order().set_pacing(pace);
        self.enabled.send_replace(enabled);
    }

    fn is_enabled(&self) -> bool {
        *self.enabled.borrow()
    }

    /// Removes a deleted conversation. An answer in progress notices the deletion by itself.
    pub fn remove_conversation(&self, conversation: ConversationId) {
        self.lock_order().remove_conversation(conversation);
    }

    /// Waits until follow-ups are enabled.
    async fn wait_enabled(&self) {
        // `self` owns the sender, so the channel cannot close.
        let _ = self.enabled.subscribe().wait_for(|on| *on).await;
    }

    /// Adds a turn that ended without an AI's answer.
    ///
    /// Call before writing the turn's end, so that a crash in between loses nothing.
    pub fn enqueue(&self, service: &TurnService, conversation: ConversationId, turn: TurnId) {
        if !self.is_enabled() {
            return;
        }
        // Not awaited: the write is queued when the call returns, and reaches the disk together
        // with the turn's end.
        drop(service.store.set_followup_pending(conversation, turn, true));
        let dropped = self.lock_order().insert_and_back_off(
            PendingFollowup { turn, conversation },
            service.clock.now(),
            (self.random_unit)(),
        );
        dropped
            .into_iter()
            .for_each(|dropped| worker::drop_followup(service, dropped));
        self.changed.notify_one();
    }

    /// Adds a turn of another instance that is gone.
    pub fn take_over(&self, service: &TurnService, conversation: ConversationId, turn: TurnId) {
        if !self.is_enabled() {
            return;
        }
        drop(service.store.set_followup_pending(conversation, turn, true));
        self.insert(service, conversation, turn);
    }

    fn insert(&self, service: &TurnService, conversation: ConversationId, turn: TurnId) {
        let dropped = self
            .lock_order()
            .insert(PendingFollowup { turn, conversation });
        dropped
            .into_iter()
            .for_each(|dropped| worker::drop_followup(service, dropped));
        self.changed.notify_one();
    }

    fn start_next(&self, now: Duration) -> Option<PendingFollowup> {
        self.lock_order().start_next(now, (self.random_unit)())
    }

    fn record_outcome(
        &self,
        followup: PendingFollowup,
        outcome: FollowupOutcome,
        now: Duration,
    ) -> bool {
        self.lock_order()
            .record_outcome(followup, outcome, now, (self.random_unit)())
    }

    fn lock_order(&self) -> MutexGuard<'_, FollowupOrder> {
        self.order.lock()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
