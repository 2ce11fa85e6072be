//! A streamed answer: chunks as text comes, comments while none does, and an honest end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;

use super::answer::{Shape, event};
use super::errors::Problem;
use crate::chat::Finish;
use crate::turn::log::{Follower, TurnLog};

/// How often a comment is sent while no text comes: clients and proxies drop silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// One answer on its way out.
pub struct Chunks {
    log: Arc<TurnLog>,
    changes: watch::Receiver<u64>,
    /// Says that somebody follows, for as long as the connection lives.
    _follower: Follower,
    shape: Shape,
    /// Bytes of text that were sent.
    sent: usize,
    begun: bool,
    last: VecDeque<Bytes>,
    over: bool,
}

impl Chunks {
    /// The chunks of this turn.
    pub fn new(log: Arc<TurnLog>, follower: Follower, shape: Shape) -> Self {
        let changes = log.changes();
        let last = VecDeque::new();
        Self { log, changes, _follower: follower, shape, sent: 0, begun: false, last, over: false }
    }

    /// The body.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut chunks| async move {
            let bytes = chunks.next().await?;
            Some((Ok(bytes), chunks))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.last.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            self.changes.borrow_and_update();
            let part = self.log.text_after(self.sent);
            if !part.text.is_empty() {
                self.sent += part.text.len();
                let first = !std::mem::replace(&mut self.begun, true);
                return Some(self.shape.text(&part, first).into());
            }
            if part.ended {
                self.end();
                continue;
            }
            match tokio::time::timeout(KEEP_ALIVE, self.changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => self.over = true,
                Err(_) => return Some(Bytes::from_static(b": keep-alive\n\n")),
            }
        }
    }

    /// What follows the text: the finish, or an error and no end mark.
    fn end(&mut self) {
        self.over = true;
        let record = self.log.record();
        if matches!(record.finish, Some(Finish::Interrupted) | None) {
            let problem = if self.begun { Problem::interrupted() } else { Problem::of(&self.log, None) };
            self.last.push_back(event(&problem.object()).into());
            return;
        }
        self.last.push_back(self.shape.finish(&record).into());
        if self.shape.include_usage {
            self.last.push_back(self.shape.usage(&record).into());
        }
        self.last.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }
}
