//! The log of one turn: its text so far, its last frames, and any number of followers that read
//! it by cursor.
//!
//! A slow follower costs nothing: it holds a number, and reads a snapshot if the frames that it
//! missed are gone. Frames are held back until the question is on disk (`LogWriter::release`).

mod follower;
mod kept;
mod mirror;
mod told;
mod writer;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use follower::Follower;
pub use mirror::Mirror;
pub use writer::LogWriter;

use kept::Kept;

use super::seam::{Owner, Seam, Show};
use super::tally::Restart;
use crate::chat::{
    After, Amendment, ClientMsgId, Failure, Frame, Outcome, Source, TurnId, TurnRecord, TurnState,
};

/// The number of frames a log retains for slow followers: some seconds of a fast answer. A follower
/// that is further behind gets a snapshot instead.
const KEPT_FRAMES: usize = 256;

/// The longest wait for the write of a question: slightly longer than the store's own limit.
const KNOWN_WITHIN: Duration = Duration::from_millis(300);

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
pub struct TextPart {
    pub text: String,
    pub attempt: u32,
    /// `None` for text that no provider produced.
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    pub source: Source,
    /// `true` if no text follows.
    pub ended: bool,
}

/// The influence of followers on a turn.
#[derive(Clone, Copy, Debug)]
struct Control {
    followers: usize,
    /// The start of the current time without followers. Meaningless while there are some.
    alone_since: Instant,
    cancel: Option<Cancel>,
}

/// The log of one turn, shared by its writer and its followers.
pub struct TurnLog {
    turn: TurnId,
    client_msg_id: ClientMsgId,
    state: Mutex<Inner>,
    /// The number of the last readable frame. Followers wait for it to change.
    published: watch::Sender<u64>,
    /// `true` if the question is on disk, `None` while that is unknown.
    durability: watch::Sender<Option<bool>>,
    control: watch::Sender<Control>,
}

struct Inner {
    /// The turn as it would be stored now, except for its text and drafts, which the merger holds
    /// until the turn ends.
    record: TurnRecord,
    seam: Seam,
    seq: u64,
    /// The last frames. The last of them has number `seq`.
    frames: VecDeque<Kept>,
    held: bool,
    /// `false` if nobody reads frames: then none are retained.
    framed: bool,
    /// `false` if nobody reads before the end: then new text wakes no follower.
    streamed: bool,
    /// The failure that broke off the shown text.
    torn: Option<Outcome>,
    last_failure: Option<After>,
    failure: Option<Failure>,
    /// The retractions of shown text, in order.
    restarts: Vec<Restart>,
    /// The origin of the text, in order. Only recorded if the log has no frames.
    speakers: Vec<Speaker>,
}

/// The origin of the text from a byte offset on.
struct Speaker {
    from: usize,
    attempt: u32,
    provider: Option<Arc<str>>,
    model: Option<Arc<str>>,
    source: Source,
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
    pub fn asks(&self, question: &str) -> bool {
        self.lock().record.question == question
    }

    pub fn ended(&self) -> bool {
        self.lock().record.state != TurnState::Running
    }

    /// Returns the turn as it stands, for the store and the history.
    pub fn record(&self) -> TurnRecord {
        self.lock().current_record()
    }

    /// Returns the record of an ended turn if `wanted` accepts it. It is cloned only then.
    pub fn ended_as(&self, wanted: impl FnOnce(&TurnRecord) -> bool) -> Option<TurnRecord> {
        let state = self.lock();
        (state.record.state != TurnState::Running && wanted(&state.record))
            .then(|| state.record.clone())
    }

    /// The number of attempts started so far.
    pub fn attempts(&self) -> u32 {
        self.lock().record.attempts
    }

    /// The last failed attempt with the provider's message: for API callers, not for visitors.
    pub fn last_failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// Returns the text from byte `at` to the end of the part that one attempt produced. Empty
    /// until the log is released.
    pub fn text_after(&self, at: usize) -> TextPart {
        let state = self.lock();
        let shown = if state.held { "" } else { state.seam.shown() };
        let next = state
            .speakers
            .iter()
            .position(|span| span.from > at)
            .unwrap_or(state.speakers.len());
        let end = state
            .speakers
            .get(next)
            .map_or(shown.len(), |span| span.from);
        let span = next
            .checked_sub(1)
            .and_then(|index| state.speakers.get(index));
        TextPart {
            text: shown.get(at..end).unwrap_or_default().to_owned(),
            attempt: span.map_or(0, |span| span.attempt),
            provider: span.and_then(|span| span.provider.clone()),
            model: span.and_then(|span| span.model.clone()),
            source: span.map_or(Source::Ai, |span| span.source),
            ended: !state.held && state.record.state != TurnState::Running,
        }
    }

    /// Returns a receiver that changes whenever there is more to read.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Returns the bytes of shown text and the number of drafts. A change means that there is
    /// something to save.
    pub fn progress(&self) -> (usize, usize) {
        let state = self.lock();
        (state.seam.shown().len(), state.seam.drafts().len())
    }

    #[cfg(test)]
    pub fn last_seq(&self) -> u64 {
        self.lock().seq
    }

    /// Applies an update to the record of an ended turn.
    pub fn amend(&self, change: Amendment) {
        self.lock().record.amend(change);
    }

    /// Waits until it is known whether the question is on disk. Returns `false` after 300 ms, for
    /// example if the instance that should write it is gone.
    pub async fn durable(&self) -> bool {
        let mut durable = self.durability.subscribe();
        let known = timeout(KNOWN_WITHIN, durable.wait_for(Option::is_some)).await;
        matches!(known, Ok(Ok(known)) if *known == Some(true))
    }

    /// Follows the turn from its first frame on.
    pub fn follow(self: &Arc<Self>) -> Follower {
        self.follow_from(Some(0))
    }

    /// Follows the turn after frame `seq`, or from a snapshot if `seq` is 0 or unknown.
    pub fn resume(self: &Arc<Self>, seq: u64) -> Follower {
        let known = seq > 0 && seq <= self.lock().seq;
        self.follow_from(known.then_some(seq))
    }

    fn follow_from(self: &Arc<Self>, cursor: Option<u64>) -> Follower {
        self.control.send_modify(|control| control.followers += 1);
        Follower::new(Arc::clone(self), self.published.subscribe(), cursor)
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
    pub fn told_to_end(&self) -> Option<Cancel> {
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
                tokio::time::sleep(orphan_grace.saturating_sub(now.alone_since.elapsed())).await;
            };
            tokio::select! {
                () = orphaned => return Cancel::Interrupted,
                _ = control.changed() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the log under its lock, then wakes the followers.
    fn write<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        self.written(|_| true, change)
    }

    /// Like `update`, but wakes the followers only if `wakes` returns `true`.
    fn written<T>(&self, wakes: fn(&Inner) -> bool, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut state = self.lock();
        let out = change(&mut state);
        let seq = state.seq;
        let shown = !state.held && wakes(&state);
        drop(state);
        if shown {
            self.published.send_replace(seq);
        }
        out
    }
}

impl Inner {
    fn current_record(&self) -> TurnRecord {
        let mut record = self.record.clone();
        if record.state != TurnState::Running {
            return record;
        }
        self.seam.shown().clone_into(&mut record.text);
        record.drafts = self.seam.drafts().to_vec();
        record
    }

    fn append(&mut self, frame: impl FnOnce(TurnId, u64) -> Frame) {
        if self.record.state != TurnState::Running {
            return;
        }
        self.seq += 1;
        if !self.framed {
            return;
        }
        let frame = frame(self.record.turn, self.seq);
        if self.frames.len() == KEPT_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(Kept::of(frame));
    }

    /// Records the origin of the text from byte `from` on, for logs without frames.
    fn spoken(&mut self, attempt: u32, from: usize) {
        if self.framed
            || self
                .speakers
                .last()
                .is_some_and(|last| last.attempt == attempt)
        {
            return;
        }
        let provider = self.record.provider.clone();
        let model = self.record.model.clone();
        let source = self.record.source.unwrap_or(Source::Ai);
        self.speakers.push(Speaker {
            from,
            attempt,
            provider,
            model,
            source,
        });
    }

    /// Writes the frames that show the result of a merge.
    fn show(&mut self, result: Show, previous_source: Option<Owner>) {
        let source = self.seam.owner().cloned();
        let attempt = source.as_ref().map_or(0, |source| source.attempt);
        let text = match result {
            Show::Nothing | Show::Misfit => return,
            Show::More(text) => {
                self.spoken(attempt, self.seam.shown().len() - text.len());
                text
            }
            Show::Anew(text) => {
                self.speakers.clear();
                self.spoken(attempt, 0);
                let reason = self
                    .torn
                    .or(self.last_failure.as_ref().map(|previous| previous.reason));
                let from = previous_source.map_or_else(|| "".into(), |source| source.provider);
                let to = source
                    .filter(|source| source.attempt > 0)
                    .map(|source| source.provider);
                let reason = reason.unwrap_or(Outcome::from(crate::chat::Fault::Diverged));
                self.restarts.push(Restart {
                    from: Arc::clone(&from),
                    to: to.clone(),
                    reason,
                });
                self.append(|turn, seq| Frame::Restart {
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
            self.append(|turn, seq| Frame::Token {
                turn,
                seq,
                attempt,
                text,
            });
        }
    }

    /// Appends `done`. Later frames are ignored.
    fn end(&mut self, record: TurnRecord) {
        self.append(|_, seq| Frame::Done(Box::new(record.done(seq))));
        self.record = record;
    }

    /// Returns the frames that a follower at `cursor` still needs, and its new cursor.
    fn read(&self, cursor: Option<u64>) -> (Vec<ByteString>, u64) {
        let turn = self.record.turn;
        let first_kept = self.seq + 1 - self.frames.len() as u64;
        if let Some(cursor) = cursor.filter(|cursor| cursor + 1 >= first_kept) {
            let skip = usize::try_from(cursor + 1 - first_kept).unwrap_or(usize::MAX);
            let frames = (first_kept..).zip(&self.frames).skip(skip);
            return (
                frames.map(|(seq, kept)| kept.encoded(turn, seq)).collect(),
                self.seq,
            );
        }
        // Too far behind: send a snapshot. It takes the number before `done`, which follows it.
        let ended = self.record.state != TurnState::Running;
        let seq = if ended { self.seq - 1 } else { self.seq };
        let mut frames = vec![encode(&self.snapshot(seq))];
        frames.extend(
            self.frames
                .back()
                .filter(|_| ended)
                .map(|kept| kept.encoded(turn, self.seq)),
        );
        (frames, self.seq)
    }

    fn snapshot(&self, seq: u64) -> Frame {
        let record = &self.record;
        Frame::Snapshot {
            turn: record.turn,
            seq,
            attempt: record.provider.as_ref().map_or(0, |_| record.attempts),
            provider: record.provider.clone(),
            model: record.model.clone(),
            text: self.seam.shown().to_owned(),
            drafts: self.seam.drafts().to_vec(),
            question: record.question.clone(),
        }
    }
}

/// Encodes a frame for the wire. These types cannot fail to serialise; if one did, followers would
/// get an empty frame instead of a panic.
pub fn encode<T: serde::Serialize>(frame: &T) -> ByteString {
    serde_json::to_string(frame).unwrap_or_default().into()
}
