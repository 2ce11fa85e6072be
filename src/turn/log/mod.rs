//! The log of one turn: its text so far, its last frames, and any number of followers that read
//! it by cursor.
//!
//! A slow follower costs nothing: it holds a number, and reads a snapshot if the frames that it
//! missed are gone. Frames are held back until the question is on disk (`LogWriter::release`).

mod replica;
mod state;
mod writer;

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use replica::ReplicaLog;
pub use state::encode_frame;
pub use writer::LogWriter;

use state::LogState;

use crate::domain::{AnswerSource, ClientMsgId, Failure, TurnId, TurnRecord, TurnUpdate};

/// The longest wait for the write of a question: slightly longer than the store's own limit.
const DURABILITY_TIMEOUT: Duration = Duration::from_millis(300);

/// The reason why a turn is cancelled before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The visitor stopped the answer.
    Stopped,
    /// Nobody followed for too long, or the service shuts down.
    Interrupted,
}

/// A part of a turn's text that comes from one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct TextChunk {
    pub text: String,
    pub attempt: u32,
    /// `None` for text that no provider produced.
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    pub source: AnswerSource,
    /// `true` if no text follows.
    pub is_final: bool,
}

/// The influence of followers on a turn.
#[derive(Clone, Copy, Debug)]
struct Control {
    followers: usize,
    /// The start of the current time without followers. Meaningless while there are some.
    orphaned_since: Instant,
    cancel: Option<Cancel>,
}

/// The log of one turn, shared by its writer and its followers.
pub struct TurnLog {
    turn: TurnId,
    client_msg_id: ClientMsgId,
    state: Mutex<LogState>,
    /// The number of the last readable frame. Followers wait for it to change.
    published_seq: watch::Sender<u64>,
    /// `true` if the question is on disk, `None` while that is unknown.
    durability: watch::Sender<Option<bool>>,
    control: watch::Sender<Control>,
}

/// A line between the frames that reports the state of the question. Older versions ignore it.
#[derive(Serialize, Deserialize)]
struct DurabilityNote {
    /// `true` if the question is on disk.
    durable: bool,
}

impl TurnLog {
    pub fn turn(&self) -> TurnId {
        self.turn
    }

    pub fn client_msg_id(&self) -> &ClientMsgId {
        &self.client_msg_id
    }

    /// Returns `true` if this is the turn's question. Used to detect a message id that is reused
    /// with a different text.
    pub fn has_question(&self, question: &str) -> bool {
        self.state.lock().record.question == question
    }

    pub fn is_finished(&self) -> bool {
        self.state.lock().is_finished()
    }

    /// Returns the turn as it stands, for the store and the history.
    pub fn record(&self) -> TurnRecord {
        self.state.lock().current_record()
    }

    /// Returns the record of an ended turn if `wanted` accepts it. It is cloned only then.
    pub fn finished_record(&self, wanted: impl FnOnce(&TurnRecord) -> bool) -> Option<TurnRecord> {
        let state = self.state.lock();
        (state.is_finished() && wanted(&state.record)).then(|| state.record.clone())
    }

    /// The number of attempts started so far.
    pub fn attempts(&self) -> u32 {
        self.state.lock().record.attempts
    }

    /// The last failed attempt with the provider's message: for API callers, not for visitors.
    pub fn last_failure(&self) -> Option<Failure> {
        self.state.lock().failure_details.clone()
    }

    /// Returns the text from byte `at` to the end of the part that one attempt produced. Empty
    /// until the log is released.
    pub fn text_from(&self, at: usize) -> TextChunk {
        let state = self.state.lock();
        let shown = if state.is_held_back {
            ""
        } else {
            state.merger.shown()
        };
        let next = state
            .spans
            .iter()
            .position(|span| span.start > at)
            .unwrap_or(state.spans.len());
        let end = state.spans.get(next).map_or(shown.len(), |span| span.start);
        let span = next.checked_sub(1).and_then(|index| state.spans.get(index));
        TextChunk {
            text: shown.get(at..end).unwrap_or_default().to_owned(),
            attempt: span.map_or(0, |span| span.attempt),
            provider: span.and_then(|span| span.provider.clone()),
            model: span.and_then(|span| span.model.clone()),
            source: span.map_or(AnswerSource::Ai, |span| span.source),
            is_final: !state.is_held_back && state.is_finished(),
        }
    }

    /// Returns a receiver that changes whenever there is more to read.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.published_seq.subscribe()
    }

    /// Returns the bytes of shown text and the number of drafts. A change means that there is
    /// something to save.
    pub fn progress(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.merger.shown().len(), state.merger.drafts().len())
    }

    #[cfg(test)]
    pub fn last_seq(&self) -> u64 {
        self.state.lock().seq
    }

    /// Applies an update to the record of an ended turn.
    pub fn apply_update(&self, change: TurnUpdate) {
        self.state.lock().record.apply(change);
    }

    /// Waits until it is known whether the question is on disk. Returns `false` after 300 ms, for
    /// example if the instance that should write it is gone.
    pub async fn await_durability(&self) -> bool {
        let mut durable = self.durability.subscribe();
        let known = timeout(DURABILITY_TIMEOUT, durable.wait_for(Option::is_some)).await;
        matches!(known, Ok(Ok(known)) if *known == Some(true))
    }

    /// Follows the turn from its first frame on.
    pub fn follow(self: &Arc<Self>) -> Follower {
        self.follow_from(Some(0))
    }

    /// Follows the turn after frame `seq`, or from a snapshot if `seq` is 0 or unknown.
    pub fn resume(self: &Arc<Self>, seq: u64) -> Follower {
        let known = seq > 0 && seq <= self.state.lock().seq;
        self.follow_from(known.then_some(seq))
    }

    fn follow_from(self: &Arc<Self>, cursor: Option<u64>) -> Follower {
        self.control.send_modify(|control| control.followers += 1);
        Follower {
            log: Arc::clone(self),
            published: self.published_seq.subscribe(),
            cursor,
            is_finished: false,
        }
    }

    /// Ends the turn now: the writer drops the attempt, which closes the provider's connection.
    /// Only the first call has an effect.
    pub fn cancel(&self, reason: Cancel) {
        self.control.send_if_modified(|control| {
            let first = control.cancel.is_none();
            control.cancel.get_or_insert(reason);
            first
        });
    }

    /// Returns the reason of the cancellation, if the turn was cancelled.
    pub fn cancel_reason(&self) -> Option<Cancel> {
        self.control.borrow().cancel
    }

    /// Waits until the turn is cancelled, or until nobody has followed it for `orphan_grace`. Time
    /// without followers before the call counts.
    pub async fn cancelled(&self, orphan_grace: Duration) -> Cancel {
        let mut control = self.control.subscribe();
        loop {
            let now = *control.borrow_and_update();
            if let Some(reason) = now.cancel {
                return reason;
            }
            let orphaned = async {
                if now.followers > 0 {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(orphan_grace.saturating_sub(now.orphaned_since.elapsed())).await;
            };
            tokio::select! {
                () = orphaned => return Cancel::Interrupted,
                _ = control.changed() => {}
            }
        }
    }

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
        Some((lines.join("\n"), end, state.is_finished()))
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

    /// Changes the log under its lock, then wakes the followers.
    fn update<T>(&self, change: impl FnOnce(&mut LogState) -> T) -> T {
        self.update_and_wake_if(|_| true, change)
    }

    /// Like `update`, but wakes the followers only if `wakes` returns `true`.
    fn update_and_wake_if<T>(
        &self,
        wakes: fn(&LogState) -> bool,
        change: impl FnOnce(&mut LogState) -> T,
    ) -> T {
        let mut state = self.state.lock();
        let out = change(&mut state);
        let seq = state.seq;
        let shown = !state.is_held_back && wakes(&state);
        drop(state);
        if shown {
            self.published_seq.send_replace(seq);
        }
        out
    }
}

/// One reader of a turn's log.
pub struct Follower {
    log: Arc<TurnLog>,
    published: watch::Receiver<u64>,
    /// The last frame read. `None` if the next read has to be a snapshot.
    cursor: Option<u64>,
    is_finished: bool,
}

impl Follower {
    /// Waits for the next encoded frames. Returns `None` after the end of the turn. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<ByteString>> {
        while !self.is_finished {
            // Mark the current value as seen before reading, so that no later change is missed.
            self.published.borrow_and_update();
            let frames = self.unread_frames();
            if !frames.is_empty() {
                return Some(frames);
            }
            if !self.is_finished && self.published.changed().await.is_err() {
                return None;
            }
        }
        None
    }

    fn unread_frames(&mut self) -> Vec<ByteString> {
        let state = self.log.state.lock();
        if state.is_held_back {
            return Vec::new();
        }
        self.is_finished = state.is_finished();
        if self.cursor == Some(state.seq) {
            return Vec::new();
        }
        let (frames, cursor) = state.frames_after(self.cursor);
        self.cursor = Some(cursor);
        frames
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
