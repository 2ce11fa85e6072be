//! A streamed answer: chunks as text comes, comments while none does, and an honest end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

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
    /// When a comment is due.
    due: Instant,
    /// Fires then, or earlier: set when it fires, not at each chunk.
    timer: Pin<Box<Sleep>>,
}

impl Chunks {
    /// The chunks of this turn.
    pub fn new(log: Arc<TurnLog>, follower: Follower, shape: Shape) -> Self {
        let changes = log.changes();
        let due = Instant::now() + KEEP_ALIVE;
        Self {
            log,
            changes,
            _follower: follower,
            shape,
            sent: 0,
            begun: false,
            last: VecDeque::new(),
            over: false,
            due,
            timer: Box::pin(sleep_until(due)),
        }
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
                self.due = Instant::now() + KEEP_ALIVE;
                let first = !std::mem::replace(&mut self.begun, true);
                return Some(self.shape.text(&part, first).into());
            }
            if part.ended {
                self.end();
                continue;
            }
            tokio::select! {
                biased;
                changed = self.changes.changed() => self.over = changed.is_err(),
                () = &mut self.timer => {
                    let now = Instant::now();
                    let silent = now >= self.due;
                    if silent {
                        self.due = now + KEEP_ALIVE;
                    }
                    self.timer.as_mut().reset(self.due);
                    if silent {
                        return Some(Bytes::from_static(b": keep-alive\n\n"));
                    }
                }
            }
        }
    }

    /// What follows the text: the finish, or an error and no end mark.
    fn end(&mut self) {
        self.over = true;
        let record = self.log.record();
        if matches!(record.finish, Some(Finish::Interrupted) | None) {
            let problem = if self.begun {
                Problem::interrupted()
            } else {
                Problem::of(&self.log, None)
            };
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
