//! The parts of a log that are replicated to other instances.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{LogState, TurnLog, encode_frame};
use crate::domain::{Frame, TurnState};

/// A line between the frames that reports the state of the question. Older versions ignore it.
#[derive(Serialize, Deserialize)]
pub(super) struct DurabilityNote {
    /// `true` if the question is on disk.
    pub(super) durable: bool,
}

impl TurnLog {
    /// Returns the frames after number `cursor` (one per line), the number of the last of them and
    /// whether the turn has ended. Returns `None` if there is nothing new.
    ///
    /// For `cursor == 0` the result begins with the start frame, even if the log no longer retains
    /// it. The first frames after the start frame carry a `DurabilityNote`.
    pub fn frames_since(&self, cursor: u64) -> Option<(String, u64, bool)> {
        let state = self.state.lock();
        if state.is_held_back || cursor >= state.seq {
            return None;
        }
        let (mut frames, end) = state.frames_after(Some(cursor));
        if cursor == 0 && state.frames.len() as u64 != state.seq {
            frames.insert(0, encode_frame(&state.start_frame()));
        }
        if let Some(durable) = self.durability.borrow().filter(|_| cursor <= 1) {
            frames.push(encode_frame(&DurabilityNote { durable }));
        }
        let lines: Vec<&str> = frames.iter().map(|frame| &**frame).collect();
        Some((
            lines.join("\n"),
            end,
            state.record.state != TurnState::Running,
        ))
    }

    /// Restarts the orphan timeout: another instance reports that somebody follows the turn there.
    pub fn mark_followed(&self) {
        self.control
            .send_modify(|control| control.orphaned_since = Instant::now());
    }

    /// Returns how long the turn has had no follower, or `None` if it has one.
    pub fn orphaned_for(&self) -> Option<Duration> {
        let control = self.control.borrow();
        (control.followers == 0).then(|| control.orphaned_since.elapsed())
    }
}

impl LogState {
    fn start_frame(&self) -> Frame {
        let record = &self.record;
        Frame::Start {
            turn: record.turn,
            seq: 1,
            client_msg_id: record.client_msg_id.clone(),
            text: record.question.clone(),
            at: record.at,
            retry_of: record.retry_of,
        }
    }
}
