//! Streamed responses: chunks while text arrives, comments while none does, and an end that tells a
//! complete answer from a broken one.

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

use super::errors::ApiError;
use super::response::{ResponseBuilder, encode_event};
use crate::domain::FinishReason;
use crate::turn::log::{Follower, TurnLog};

/// The interval of comments while no text arrives, since clients and proxies drop silent
/// connections.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

pub struct ChunkStream {
    log: Arc<TurnLog>,
    changes: watch::Receiver<u64>,
    /// Keeps the turn alive for as long as the connection.
    _follower: Follower,
    shape: ResponseBuilder,
    /// The bytes of text that were sent.
    sent: usize,
    has_started: bool,
    /// The final events, which wait to be sent.
    ending: VecDeque<Bytes>,
    is_over: bool,
    comment_due: Instant,
    /// Fires at `comment_due` or earlier. It is reset only when it fires, not for each chunk.
    timer: Pin<Box<Sleep>>,
}

impl ChunkStream {
    pub fn new(log: Arc<TurnLog>, follower: Follower, shape: ResponseBuilder) -> Self {
        let changes = log.changes();
        let comment_due = Instant::now() + KEEP_ALIVE_INTERVAL;
        Self {
            log,
            changes,
            _follower: follower,
            shape,
            sent: 0,
            has_started: false,
            ending: VecDeque::new(),
            is_over: false,
            comment_due,
            timer: Box::pin(sleep_until(comment_due)),
        }
    }

    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut chunks| async move {
            let bytes = chunks.next().await?;
            Some((Ok(bytes), chunks))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ending.pop_front() {
                return Some(bytes);
            }
            if self.is_over {
                return None;
            }
            // Mark the changes as seen before reading the log, so that none is missed in between.
            self.changes.borrow_and_update();
            let part = self.log.text_from(self.sent);
            if !part.text.is_empty() {
                self.sent += part.text.len();
                self.comment_due = Instant::now() + KEEP_ALIVE_INTERVAL;
                let is_first = !std::mem::replace(&mut self.has_started, true);
                return Some(self.shape.text_chunk(&part, is_first).into());
            }
            if part.is_final {
                self.queue_ending();
                continue;
            }
            tokio::select! {
                biased;
                changed = self.changes.changed() => self.is_over = changed.is_err(),
                () = &mut self.timer => {
                    let now = Instant::now();
                    let is_due = now >= self.comment_due;
                    if is_due {
                        self.comment_due = now + KEEP_ALIVE_INTERVAL;
                    }
                    self.timer.as_mut().reset(self.comment_due);
                    if is_due {
                        return Some(Bytes::from_static(b": keep-alive\n\n"));
                    }
                }
            }
        }
    }

    /// Queues the events after the text: the finish, or an error without the end mark.
    fn queue_ending(&mut self) {
        self.is_over = true;
        let record = self.log.record();
        if matches!(record.finish, Some(FinishReason::Interrupted) | None) {
            let error = if self.has_started {
                ApiError::stream_interrupted()
            } else {
                ApiError::from_turn(&self.log, None)
            };
            self.ending.push_back(encode_event(&error.to_json()).into());
            return;
        }
        let finish = self.shape.finish_chunk(&record);
        self.ending.push_back(finish.into());
        if self.shape.include_usage {
            let usage = self.shape.usage_chunk(&record);
            self.ending.push_back(usage.into());
        }
        let end = Bytes::from_static(b"data: [DONE]\n\n");
        self.ending.push_back(end);
    }
}
