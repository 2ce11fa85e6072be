//! The events a session reacts to while it streams a turn.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Interval;

use crate::domain::{Followup, StatusView, TurnId};
use crate::turn::conversations::{LiveConversation, TurnEvent, TurnSubscription};
use crate::turn::deps::ShutdownPhase;

pub(super) struct SessionEvents {
    pub(super) client_frames: mpsc::Receiver<ByteString>,
    pub(super) new_turns: TurnSubscription,
    pub(super) followups: broadcast::Receiver<(TurnId, Followup)>,
    pub(super) deletions: watch::Receiver<u64>,
    pub(super) status: watch::Receiver<Arc<StatusView>>,
    pub(super) phase: watch::Receiver<ShutdownPhase>,
    pub(super) heartbeat: Interval,
}

pub(super) enum SessionEvent {
    ClientFrame(ByteString),
    ClientGone,
    NewTurn(TurnEvent),
    Followup(TurnId, Followup),
    /// The session was too slow and missed follow-ups, so it has to send its history again.
    FollowupsLagged,
    ConversationDeleted,
    StatusChanged(Arc<StatusView>),
    ServiceClosing,
    HeartbeatDue,
}

impl SessionEvents {
    /// Waits for the next event. New turns are reported only while `may_follow` is set.
    ///
    /// Cancel-safe: dropping the future loses no event.
    pub(super) async fn next(
        &mut self,
        conversation: &LiveConversation,
        may_follow: bool,
    ) -> SessionEvent {
        loop {
            return tokio::select! {
                frame = self.client_frames.recv() => match frame {
                    Some(frame) => SessionEvent::ClientFrame(frame),
                    None => SessionEvent::ClientGone,
                },
                turn = self.new_turns.next(conversation), if may_follow => {
                    SessionEvent::NewTurn(turn)
                }
                // Never closed: the session holds the conversation, which owns the sender.
                followup = self.followups.recv() => match followup {
                    Ok((turn, followup)) => SessionEvent::Followup(turn, followup),
                    Err(_) => SessionEvent::FollowupsLagged,
                },
                Ok(()) = self.deletions.changed() => SessionEvent::ConversationDeleted,
                Ok(()) = self.status.changed() => {
                    SessionEvent::StatusChanged(Arc::clone(&self.status.borrow_and_update()))
                }
                Ok(()) = self.phase.changed() => {
                    if *self.phase.borrow_and_update() != ShutdownPhase::Closing {
                        continue;
                    }
                    SessionEvent::ServiceClosing
                }
                _ = self.heartbeat.tick() => SessionEvent::HeartbeatDue,
            };
        }
    }
}
