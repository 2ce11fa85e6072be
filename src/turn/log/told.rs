//! What other instances are told of a log, and how they keep it going.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Inner, TurnLog, encode};
use crate::chat::{Frame, TurnState};

/// A line beside the frames: what this instance tells of the question. Who does not know such lines passes them over.
#[derive(Serialize, Deserialize)]
pub(super) struct Question {
    /// Whether it is on disk.
    pub(super) durable: bool,
}

impl TurnLog {
    /// The frames after number `cursor`, a line each, where there are any to be seen; with where they end, and whether the turn does. Of one
    /// that was never read the first frame is told whatever is still kept. With the first frames that are more than the claim of the turn comes
    /// whether its question is on disk.
    pub fn news(&self, cursor: u64) -> Option<(String, u64, bool)> {
        let inner = self.lock();
        if inner.held || cursor >= inner.seq {
            return None;
        }
        let (mut frames, end) = inner.read(Some(cursor));
        if cursor == 0 && inner.frames.len() as u64 != inner.seq {
            frames.insert(0, encode(&inner.start()));
        }
        if let Some(durable) = self.durable.borrow().filter(|_| cursor <= 1) {
            frames.push(encode(&Question { durable }));
        }
        let lines: Vec<&str> = frames.iter().map(|frame| &**frame).collect();
        Some((
            lines.join("\n"),
            end,
            inner.record.state != TurnState::Running,
        ))
    }

    /// It is followed where this log cannot see it.
    pub fn touch(&self) {
        self.control
            .send_modify(|control| control.alone_since = Instant::now());
    }

    /// How long nobody has followed; none while somebody does.
    pub fn alone_for(&self) -> Option<Duration> {
        let control = self.control.borrow();
        (control.followers == 0).then(|| control.alone_since.elapsed())
    }
}

impl Inner {
    fn start(&self) -> Frame {
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
