//! Follow-ups: turns that an outage left without an AI's answer get one later, in the same
//! conversation.
//!
//! Pending turns are also in the store, so they survive a restart. The decisions are in the pure
//! `queue`; `worker` carries them out, a few at a time; `answer` produces one answer.

mod answer;
pub mod queue;
pub mod worker;

use parking_lot::Mutex;
use std::time::Duration;

use tokio::sync::{Notify, watch};

pub use self::queue::RetryPacing;
use self::queue::{FollowupOrder, PendingFollowup};
use crate::domain::{ConversationId, TurnId};
use crate::store::Store;

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
        self.order.lock().set_pacing(pace);
        self.enabled.send_replace(enabled);
    }

    fn is_enabled(&self) -> bool {
        *self.enabled.borrow()
    }

    /// Removes a deleted conversation. An answer in progress notices the deletion by itself.
    pub fn remove_conversation(&self, conversation: ConversationId) {
        self.order.lock().remove_conversation(conversation);
    }

    /// Waits until follow-ups are enabled.
    async fn wait_enabled(&self) {
        // `self` owns the sender, so the channel cannot close.
        let _ = self.enabled.subscribe().wait_for(|on| *on).await;
    }

    /// Adds a turn that ended without an AI's answer.
    ///
    /// Call before writing the turn's end, so that a crash in between loses nothing.
    pub fn enqueue(
        &self,
        store: &dyn Store,
        now: Duration,
        conversation: ConversationId,
        turn: TurnId,
    ) {
        if !self.is_enabled() {
            return;
        }
        // Not awaited: the write is queued when the call returns, and reaches the disk together
        // with the turn's end.
        drop(store.set_followup_pending(conversation, turn, true));
        let dropped = self.order.lock().insert_and_back_off(
            PendingFollowup { turn, conversation },
            now,
            (self.random_unit)(),
        );
        self.announce_change(store, dropped);
    }

    /// Adds a turn of another instance that is gone.
    pub fn take_over(&self, store: &dyn Store, conversation: ConversationId, turn: TurnId) {
        if !self.is_enabled() {
            return;
        }
        drop(store.set_followup_pending(conversation, turn, true));
        self.insert(store, conversation, turn);
    }

    fn insert(&self, store: &dyn Store, conversation: ConversationId, turn: TurnId) {
        let dropped = self
            .order
            .lock()
            .insert(PendingFollowup { turn, conversation });
        self.announce_change(store, dropped);
    }

    fn announce_change(&self, store: &dyn Store, dropped: Option<PendingFollowup>) {
        if let Some(dropped) = dropped {
            tracing::warn!(turn = %dropped.turn, "follow-up queue full, oldest turn dropped");
            clear_pending(store, dropped);
        }
        self.changed.notify_one();
    }
}

/// Removes a turn from the pending ones in the store.
///
/// Not awaited: if the write is lost, the next start checks the turn once more.
fn clear_pending(store: &dyn Store, followup: PendingFollowup) {
    drop(store.set_followup_pending(followup.conversation, followup.turn, false));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
