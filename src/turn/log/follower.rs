//! One reader of a turn's log.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::Instant;

use super::TurnLog;
use crate::chat::TurnState;

/// One reader of a log.
pub struct Follower {
    log: Arc<TurnLog>,
    published: watch::Receiver<u64>,
    /// The last frame read; none where only a snapshot helps.
    cursor: Option<u64>,
    over: bool,
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
            over: false,
        }
    }

    /// The next frames, as they stand encoded; `None` after the turn's end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<ByteString>> {
        while !self.over {
            self.published.borrow_and_update();
            let (frames, ended) = {
                let inner = self.log.lock();
                if inner.held || self.cursor == Some(inner.seq) {
                    (
                        Vec::new(),
                        inner.record.state != TurnState::Running && !inner.held,
                    )
                } else {
                    let (frames, cursor) = inner.read(self.cursor);
                    self.cursor = Some(cursor);
                    (frames, inner.record.state != TurnState::Running)
                }
            };
            self.over = ended;
            if !frames.is_empty() {
                return Some(frames);
            }
            if !self.over && self.published.changed().await.is_err() {
                return None;
            }
        }
        None
    }

    /// The log it follows.
    pub fn log(&self) -> &Arc<TurnLog> {
        &self.log
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.log.control.send_modify(|control| {
            control.followers = control.followers.saturating_sub(1);
            control.alone_since = Instant::now();
        });
    }
}
