//! The log of one turn: its text so far, its last frames, and any number of followers that read it by cursor.
//!
//! A follower that does not read costs nothing: it holds a number, and finds a snapshot where the frames it missed are gone.
//! Frames are kept as little as they can be, since a thousand logs may be kept at once, and encoded for who reads them. They are not shown
//! before the question is on disk ([`LogWriter::confirm`]).

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

/// How many frames a log keeps for followers that are a little behind: some seconds of a quick answer. Who is further behind is sent its text,
/// which is no longer than so many frames.
const KEPT_FRAMES: usize = 256;

/// Within this time it is known whether a question is on disk: a little longer than a disk is given for it.
const KNOWN_WITHIN: Duration = Duration::from_millis(300);

/// Why a turn is cancelled before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The visitor said stop.
    Stopped,
    /// Nobody followed for too long, or the service goes down.
    Interrupted,
}

/// A part of a turn's text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// The attempt that speaks.
    pub attempt: u32,
    /// Its provider; none for what no provider says.
    pub provider: Option<Arc<str>>,
    /// Its model.
    pub model: Option<Arc<str>>,
    /// What kind of answer it is.
    pub source: Source,
    /// Whether nothing follows.
    pub ended: bool,
}

/// What followers do to a turn.
#[derive(Clone, Copy, Debug)]
struct Control {
    followers: usize,
    /// Since when there are none; while there are some it means nothing.
    alone_since: Instant,
    cancel: Option<Cancel>,
}

/// One turn's log. Shared by its writer and its followers.
pub struct TurnLog {
    turn: TurnId,
    client_msg_id: ClientMsgId,
    inner: Mutex<Inner>,
    /// The last frame that may be read; followers wait for it to change.
    published: watch::Sender<u64>,
    /// Whether the question is on disk; none while that is not known.
    durable: watch::Sender<Option<bool>>,
    control: watch::Sender<Control>,
}

struct Inner {
    /// The turn as it would be stored now, but for its text and drafts, which the seam has.
    record: TurnRecord,
    seam: Seam,
    seq: u64,
    /// The last ones; the last of them is number `seq`.
    frames: VecDeque<Kept>,
    held: bool,
    /// Whether anybody reads frames.
    framed: bool,
    /// Whether anybody reads before the end. Else more text wakes nobody.
    streamed: bool,
    /// Why the text that stands was torn.
    torn: Option<Outcome>,
    last_failure: Option<After>,
    failure: Option<Failure>,
    /// How often shown text was voided, in order.
    restarts: Vec<Restart>,
    /// Who said what of an unframed log's text, in order.
    speakers: Vec<Speaker>,
}

/// Who says the text from a byte on.
struct Speaker {
    from: usize,
    attempt: u32,
    provider: Option<Arc<str>>,
    model: Option<Arc<str>>,
    source: Source,
}

impl TurnLog {
    /// The turn.
    pub fn turn(&self) -> TurnId {
        self.turn
    }

    /// What its client called the message.
    pub fn client_msg_id(&self) -> &ClientMsgId {
        &self.client_msg_id
    }

    /// Whether this is the turn's question: the same message id must come with the same text.
    pub fn asks(&self, question: &str) -> bool {
        self.lock().record.question == question
    }

    /// Whether its `done` was written.
    pub fn ended(&self) -> bool {
        self.lock().record.state != TurnState::Running
    }

    /// The turn as it stands, for the store and the history.
    pub fn record(&self) -> TurnRecord {
        self.lock().record()
    }

    /// The turn as it ended; none while it runs. Where `wanted` says no it is not copied.
    pub fn ended_as(&self, wanted: impl FnOnce(&TurnRecord) -> bool) -> Option<TurnRecord> {
        let inner = self.lock();
        (inner.record.state != TurnState::Running && wanted(&inner.record))
            .then(|| inner.record.clone())
    }

    /// How many attempts were begun so far.
    pub fn attempts(&self) -> u32 {
        self.lock().record.attempts
    }

    /// How the last attempt that failed did, in the provider's words: for callers of the API, not for visitors.
    pub fn last_failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// The text that stands, from byte `at` on and as far as one attempt said it, whose it is, and whether the turn has ended: for who reads text instead of frames. Nothing before the
    /// log is confirmed.
    pub fn text_after(&self, at: usize) -> TextPart {
        let inner = self.lock();
        let shown = if inner.held { "" } else { inner.seam.shown() };
        let next = inner
            .speakers
            .iter()
            .position(|speaker| speaker.from > at)
            .unwrap_or(inner.speakers.len());
        let end = inner
            .speakers
            .get(next)
            .map_or(shown.len(), |speaker| speaker.from);
        let speaker = next
            .checked_sub(1)
            .and_then(|place| inner.speakers.get(place));
        TextPart {
            text: shown.get(at..end).unwrap_or_default().to_owned(),
            attempt: speaker.map_or(0, |speaker| speaker.attempt),
            provider: speaker.and_then(|speaker| speaker.provider.clone()),
            model: speaker.and_then(|speaker| speaker.model.clone()),
            source: speaker.map_or(Source::Ai, |speaker| speaker.source),
            ended: !inner.held && inner.record.state != TurnState::Running,
        }
    }

    /// Changes whenever there is more to read.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// How long the text that stands is, in bytes: changes whenever there is something to save.
    pub fn progress(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.seam.shown().len(), inner.seam.drafts().len())
    }

    /// The last frame written.
    #[cfg(test)]
    pub fn last_seq(&self) -> u64 {
        self.lock().seq
    }

    /// Changes an ended turn's record.
    pub fn amend(&self, change: Amendment) {
        self.lock().record.amend(change);
    }

    /// Waits until it is known whether the question is on disk, and says so: false where that is not known soon, as of an instance that is gone.
    pub async fn durable(&self) -> bool {
        let mut durable = self.durable.subscribe();
        let known = timeout(KNOWN_WITHIN, durable.wait_for(Option::is_some)).await;
        matches!(known, Ok(Ok(known)) if *known == Some(true))
    }

    /// Follows from the first frame on.
    pub fn follow(self: &Arc<Self>) -> Follower {
        self.follow_from(Some(0))
    }

    /// Follows after frame `seq`; from a snapshot where that is 0 or not known here.
    pub fn resume(self: &Arc<Self>, seq: u64) -> Follower {
        let known = seq > 0 && seq <= self.lock().seq;
        self.follow_from(known.then_some(seq))
    }

    fn follow_from(self: &Arc<Self>, cursor: Option<u64>) -> Follower {
        self.control.send_modify(|control| control.followers += 1);
        Follower::new(Arc::clone(self), self.published.subscribe(), cursor)
    }

    /// Ends the turn now: its writer drops the attempt, which closes the provider's connection. Only the first call counts.
    pub fn cancel(&self, why: Cancel) {
        self.control.send_if_modified(|control| {
            let first = control.cancel.is_none();
            control.cancel.get_or_insert(why);
            first
        });
    }

    /// Why it was told to end before its time, if it was.
    pub fn told_to_end(&self) -> Option<Cancel> {
        self.control.borrow().cancel
    }

    /// Waits until the turn is to be cancelled: by [`TurnLog::cancel`], or because nobody followed for `patience`, however much of that
    /// had passed before the call.
    pub async fn cancelled(&self, patience: Duration) -> Cancel {
        let mut control = self.control.subscribe();
        loop {
            let now = *control.borrow_and_update();
            if let Some(why) = now.cancel {
                return why;
            }
            let alone = async {
                if now.followers > 0 {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(patience.saturating_sub(now.alone_since.elapsed())).await;
            };
            tokio::select! {
                () = alone => return Cancel::Interrupted,
                _ = control.changed() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the log under its lock, then wakes the followers.
    fn write<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        self.written(|_| true, change)
    }

    /// The same, but wakes them only where `wakes` says so.
    fn written<T>(&self, wakes: fn(&Inner) -> bool, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let out = change(&mut inner);
        let (seq, shown) = (inner.seq, !inner.held && wakes(&inner));
        drop(inner);
        if shown {
            self.published.send_replace(seq);
        }
        out
    }
}

impl Inner {
    fn record(&self) -> TurnRecord {
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

    /// Notes who says the text from a byte on; of interest to readers of text alone.
    fn spoken(&mut self, attempt: u32, from: usize) {
        if self.framed
            || self
                .speakers
                .last()
                .is_some_and(|last| last.attempt == attempt)
        {
            return;
        }
        let (provider, model) = (self.record.provider.clone(), self.record.model.clone());
        let source = self.record.source.unwrap_or(Source::Ai);
        self.speakers.push(Speaker {
            from,
            attempt,
            provider,
            model,
            source,
        });
    }

    fn show(&mut self, show: Show, before: Option<Owner>) {
        let owner = self.seam.owner().cloned();
        let attempt = owner.as_ref().map_or(0, |owner| owner.attempt);
        let text = match show {
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
                    .or(self.last_failure.as_ref().map(|after| after.reason));
                let from = before.map_or_else(|| "".into(), |before| before.provider);
                let to = owner
                    .filter(|owner| owner.attempt > 0)
                    .map(|owner| owner.provider);
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

    /// The last frame; nothing is appended after it.
    fn end(&mut self, record: TurnRecord) {
        self.append(|_, seq| Frame::Done(Box::new(record.done(seq))));
        self.record = record;
    }

    /// What a follower at `cursor` is to be sent, and where it stands then.
    fn read(&self, cursor: Option<u64>) -> (Vec<ByteString>, u64) {
        let (turn, first_kept) = (self.record.turn, self.seq + 1 - self.frames.len() as u64);
        if let Some(cursor) = cursor.filter(|cursor| cursor + 1 >= first_kept) {
            let skip = usize::try_from(cursor + 1 - first_kept).unwrap_or(usize::MAX);
            let frames = (first_kept..).zip(&self.frames).skip(skip);
            return (
                frames.map(|(seq, kept)| kept.encoded(turn, seq)).collect(),
                self.seq,
            );
        }
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

/// A frame as its bytes on the wire. Encoding these types cannot fail; if it did, followers would see an empty frame, not a panic.
pub fn encode<T: serde::Serialize>(frame: &T) -> ByteString {
    serde_json::to_string(frame).unwrap_or_default().into()
}
