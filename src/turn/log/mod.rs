//! The log of one turn: its text so far, its last frames, and any number of followers that read
//! it by cursor.
//!
//! A slow follower costs nothing: it holds a number, and reads a snapshot if the frames that it
//! missed are gone. Frames are held back until the question is on disk (`LogWriter::release`).

mod export;
mod follower;
mod replica;
mod stored_frame;
mod writer;

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use follower::Follower;
pub use replica::ReplicaLog;
pub use writer::LogWriter;

use stored_frame::StoredFrame;

use super::merge::{MergeResult, TextMerger, TextSource};
use super::metrics::RestartEvent;
use crate::domain::{
    AnswerSource, AttemptOutcome, ClientMsgId, Failure, Frame, PreviousFailure, TurnId, TurnRecord,
    TurnState, TurnUpdate,
};

/// The number of frames a log retains for slow followers: some seconds of a fast answer. A follower
/// that is further behind gets a snapshot instead.
const MAX_RETAINED_FRAMES: usize = 256;

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

struct LogState {
    /// The turn as it would be stored now, except for its text and drafts, which the merger holds
    /// until the turn ends.
    record: TurnRecord,
    merger: TextMerger,
    seq: u64,
    /// The last frames. The last of them has number `seq`.
    frames: VecDeque<StoredFrame>,
    is_held_back: bool,
    /// `false` if nobody reads frames: then none are retained.
    has_frames: bool,
    /// `false` if nobody reads before the end: then new text wakes no follower.
    is_streamed: bool,
    /// The failure that broke off the shown text.
    break_reason: Option<AttemptOutcome>,
    previous_failure: Option<PreviousFailure>,
    failure_details: Option<Failure>,
    /// The retractions of shown text, in order.
    restarts: Vec<RestartEvent>,
    /// The origin of the text, in order. Only recorded if the log has no frames.
    spans: Vec<TextSpan>,
}

/// The origin of the text from a byte offset on.
struct TextSpan {
    start: usize,
    attempt: u32,
    provider: Option<Arc<str>>,
    model: Option<Arc<str>>,
    source: AnswerSource,
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
        self.state.lock().record.state != TurnState::Running
    }

    /// Returns the turn as it stands, for the store and the history.
    pub fn record(&self) -> TurnRecord {
        self.state.lock().current_record()
    }

    /// Returns the record of an ended turn if `wanted` accepts it. It is cloned only then.
    pub fn finished_record(&self, wanted: impl FnOnce(&TurnRecord) -> bool) -> Option<TurnRecord> {
        let state = self.state.lock();
        (state.record.state != TurnState::Running && wanted(&state.record))
            .then(|| state.record.clone())
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
            is_final: !state.is_held_back && state.record.state != TurnState::Running,
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
        Follower::new(Arc::clone(self), self.published_seq.subscribe(), cursor)
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

impl LogState {
    fn current_record(&self) -> TurnRecord {
        let mut record = self.record.clone();
        if record.state != TurnState::Running {
            return record;
        }
        self.merger.shown().clone_into(&mut record.text);
        record.drafts = self.merger.drafts().to_vec();
        record
    }

    fn append_frame(&mut self, frame: impl FnOnce(TurnId, u64) -> Frame) {
        if self.record.state != TurnState::Running {
            return;
        }
        self.seq += 1;
        if !self.has_frames {
            return;
        }
        let frame = frame(self.record.turn, self.seq);
        if self.frames.len() == MAX_RETAINED_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(StoredFrame::from_frame(frame));
    }

    /// Records the origin of the text from byte `from` on, for logs without frames.
    fn record_span(&mut self, attempt: u32, from: usize) {
        if self.has_frames
            || self
                .spans
                .last()
                .is_some_and(|last| last.attempt == attempt)
        {
            return;
        }
        let provider = self.record.provider.clone();
        let model = self.record.model.clone();
        let source = self.record.source.unwrap_or(AnswerSource::Ai);
        self.spans.push(TextSpan {
            start: from,
            attempt,
            provider,
            model,
            source,
        });
    }

    /// Writes the frames that show the result of a merge.
    fn apply_merge(&mut self, result: MergeResult, previous_source: Option<TextSource>) {
        let source = self.merger.owner().cloned();
        let attempt = source.as_ref().map_or(0, |source| source.attempt);
        let text = match result {
            MergeResult::NoChange | MergeResult::Mismatch => return,
            MergeResult::Append(text) => {
                self.record_span(attempt, self.merger.shown().len() - text.len());
                text
            }
            MergeResult::Restart(text) => {
                self.spans.clear();
                self.record_span(attempt, 0);
                let reason = self.break_reason.or(self
                    .previous_failure
                    .as_ref()
                    .map(|previous| previous.reason));
                let from = previous_source.map_or_else(|| "".into(), |source| source.provider);
                let to = source
                    .filter(|source| source.attempt > 0)
                    .map(|source| source.provider);
                let reason =
                    reason.unwrap_or(AttemptOutcome::from(crate::domain::FaultKind::Diverged));
                self.restarts.push(RestartEvent {
                    from: Arc::clone(&from),
                    to: to.clone(),
                    reason,
                });
                self.append_frame(|turn, seq| Frame::Restart {
                    turn,
                    seq,
                    attempt,
                    from,
                    to,
                    reason,
                });
                text
            }
        };
        if !text.is_empty() {
            self.append_frame(|turn, seq| Frame::Token {
                turn,
                seq,
                attempt,
                text,
            });
        }
    }

    /// Appends `done`. Later frames are ignored.
    fn finish(&mut self, record: TurnRecord) {
        self.append_frame(|_, seq| Frame::Done(Box::new(record.done_frame(seq))));
        self.record = record;
    }

    /// Returns the frames that a follower at `cursor` still needs, and its new cursor.
    fn frames_after(&self, cursor: Option<u64>) -> (Vec<ByteString>, u64) {
        let turn = self.record.turn;
        let first_kept = self.seq + 1 - self.frames.len() as u64;
        if let Some(cursor) = cursor.filter(|cursor| cursor + 1 >= first_kept) {
            let skip = usize::try_from(cursor + 1 - first_kept).unwrap_or(usize::MAX);
            let frames = (first_kept..).zip(&self.frames).skip(skip);
            return (
                frames.map(|(seq, kept)| kept.encode(turn, seq)).collect(),
                self.seq,
            );
        }
        // Too far behind: send a snapshot. It takes the number before `done`, which follows it.
        let ended = self.record.state != TurnState::Running;
        let seq = if ended { self.seq - 1 } else { self.seq };
        let mut frames = vec![encode_frame(&self.snapshot_frame(seq))];
        frames.extend(
            self.frames
                .back()
                .filter(|_| ended)
                .map(|kept| kept.encode(turn, self.seq)),
        );
        (frames, self.seq)
    }

    fn snapshot_frame(&self, seq: u64) -> Frame {
        let record = &self.record;
        Frame::Snapshot {
            turn: record.turn,
            seq,
            attempt: record.provider.as_ref().map_or(0, |_| record.attempts),
            provider: record.provider.clone(),
            model: record.model.clone(),
            text: self.merger.shown().to_owned(),
            drafts: self.merger.drafts().to_vec(),
            question: record.question.clone(),
        }
    }
}

/// Encodes a frame for the wire. These types cannot fail to serialise; if one did, followers would
/// get an empty frame instead of a panic.
pub fn encode_frame<T: serde::Serialize>(frame: &T) -> ByteString {
    serde_json::to_string(frame).unwrap_or_default().into()
}
