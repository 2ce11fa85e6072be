//! One reader of a turn's log.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::Instant;

use super::TurnLog;
use crate::domain::TurnState;

pub struct Follower {
    log: Arc<TurnLog>,
    published: watch::Receiver<u64>,
    /// The last frame read. `None` if the next read has to be a snapshot.
    cursor: Option<u64>,
    is_finished: bool,
}

impl Follower {
    pub(super) fn new(
        log: Arc<TurnLog>,
        published: watch::Receiver<u64>,
        cursor: Option<u64>,
    ) -> Self {
        Self {
            log,
            published,
            cursor,
            is_finished: false,
        }
    }

    /// Waits for the next encoded frames. Returns `None` after the end of the turn. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<ByteString>> {
        while !self.is_finished {
            // Mark the current value as seen before reading, so that no later change is missed.
            self.published.borrow_and_update();
            let (frames, is_last) = {
                let state = self.log.state.lock();
                if state.is_held_back || self.cursor == Some(state.seq) {
                    (
                        Vec::new(),
                        state.record.state != TurnState::Running && !state.is_held_back,
                    )
                } else {
                    let (frames, cursor) = state.frames_after(self.cursor);
                    self.cursor = Some(cursor);
                    (frames, state.record.state != TurnState::Running)
                }
            };
            self.is_finished = is_last;
            if !frames.is_empty() {
                return Some(frames);
            }
            if !self.is_finished && self.published.changed().await.is_err() {
                return None;
            }
        }
        None
    }

    pub fn log(&self) -> &Arc<TurnLog> {
        &self.log
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.log.control.send_modify(|control| {
            control.followers = control.followers.saturating_sub(1);
            control.orphaned_since = Instant::now();
        });
    }
}
