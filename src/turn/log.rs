//! The log of one turn: its text so far, its last frames, and any number of followers that read it by cursor.
//!
//! A follower that does not read costs nothing: it holds a number, and finds a snapshot where the frames it missed are gone.
//! Frames are encoded once, and are not shown before the question is on disk ([`LogWriter::confirm`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;

use super::seam::{Owner, Seam, Show};
use crate::chat::{After, ClientMsgId, Finish, Frame, Outcome, TurnId, TurnRecord, TurnState};

/// How many encoded frames a log keeps for followers that are a little behind.
const KEPT_FRAMES: usize = 256;

/// Why a turn is cancelled before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// The visitor said stop.
    Stopped,
    /// Nobody followed for too long, or the service goes down.
    Interrupted,
}

/// What followers do to a turn.
#[derive(Clone, Copy, Debug, Default)]
struct Control {
    followers: usize,
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
    frames: VecDeque<ByteString>,
    held: bool,
    /// Why the text that stands was torn.
    torn: Option<Outcome>,
    last_failure: Option<After>,
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

    /// How long the text that stands is, in bytes: changes whenever there is something to save.
    pub fn progress(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.seam.shown().len(), inner.seam.drafts().len())
    }

    /// Waits until it is known whether the question is on disk, and says so.
    pub async fn durable(&self) -> bool {
        let mut durable = self.durable.subscribe();
        match durable.wait_for(Option::is_some).await {
            Ok(known) => known.unwrap_or(false),
            Err(_) => false,
        }
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
        Follower {
            published: self.published.subscribe(),
            log: Arc::clone(self),
            cursor,
            over: false,
        }
    }

    /// Ends the turn now: its writer drops the attempt, which closes the provider's connection. Only the first call counts.
    pub fn cancel(&self, why: Cancel) {
        self.control.send_if_modified(|control| {
            let first = control.cancel.is_none();
            control.cancel.get_or_insert(why);
            first
        });
    }

    /// Waits until the turn is to be cancelled: by [`TurnLog::cancel`], or because nobody followed for `patience`.
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
                tokio::time::sleep(patience).await;
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
        let mut inner = self.lock();
        let out = change(&mut inner);
        let (seq, held) = (inner.seq, inner.held);
        drop(inner);
        if !held {
            self.published.send_replace(seq);
        }
        out
    }
}

impl Inner {
    fn record(&self) -> TurnRecord {
        let mut record = self.record.clone();
        self.seam.shown().clone_into(&mut record.text);
        record.drafts = self.seam.drafts().to_vec();
        record
    }

    fn append(&mut self, frame: impl FnOnce(TurnId, u64) -> Frame) {
        if self.record.state != TurnState::Running {
            return;
        }
        self.seq += 1;
        let frame = frame(self.record.turn, self.seq);
        if self.frames.len() == KEPT_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(encode(&frame));
    }

    fn show(&mut self, show: Show, before: Option<Owner>) {
        let owner = self.seam.owner().cloned();
        let attempt = owner.as_ref().map_or(0, |owner| owner.attempt);
        let text = match show {
            Show::Nothing => return,
            Show::More(text) => text,
            Show::Anew(text) => {
                let reason = self
                    .torn
                    .or(self.last_failure.as_ref().map(|after| after.reason));
                let from = before.map_or_else(|| "".into(), |before| before.provider);
                let to = owner
                    .filter(|owner| owner.attempt > 0)
                    .map(|owner| owner.provider);
                let reason = reason.unwrap_or(Outcome::from(crate::chat::Fault::Diverged));
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

    /// What a follower at `cursor` is to be sent, and where it stands then.
    fn read(&self, cursor: Option<u64>) -> (Vec<ByteString>, u64) {
        let first_kept = self.seq + 1 - self.frames.len() as u64;
        if let Some(cursor) = cursor.filter(|cursor| cursor + 1 >= first_kept) {
            let skip = usize::try_from(cursor + 1 - first_kept).unwrap_or(usize::MAX);
            return (self.frames.iter().skip(skip).cloned().collect(), self.seq);
        }
        let ended = self.record.state != TurnState::Running;
        let seq = if ended { self.seq - 1 } else { self.seq };
        let mut frames = vec![encode(&self.snapshot(seq))];
        frames.extend(self.frames.back().filter(|_| ended).cloned());
        (frames, self.seq)
    }

    fn snapshot(&self, seq: u64) -> Frame {
        let record = &self.record;
        let owner = self.seam.owner().filter(|_| !self.seam.shown().is_empty());
        Frame::Snapshot {
            turn: record.turn,
            seq,
            attempt: owner.map_or(record.attempts, |owner| owner.attempt),
            provider: owner.map_or(record.provider.clone(), |owner| {
                Some(owner.provider.clone())
            }),
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

/// One reader of a log.
pub struct Follower {
    log: Arc<TurnLog>,
    published: watch::Receiver<u64>,
    /// The last frame read; none where only a snapshot helps.
    cursor: Option<u64>,
    over: bool,
}

impl Follower {
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
        self.log
            .control
            .send_modify(|control| control.followers = control.followers.saturating_sub(1));
    }
}

/// The one writer of a log. Dropped without an end, it ends the turn as interrupted.
pub struct LogWriter(Arc<TurnLog>);

impl LogWriter {
    /// Opens a log with its `start` frame; nothing is shown before [`LogWriter::confirm`].
    pub fn open(record: TurnRecord) -> Self {
        let (turn, client_msg_id) = (record.turn, record.client_msg_id.clone());
        let start = Frame::Start {
            turn,
            seq: 1,
            client_msg_id: client_msg_id.clone(),
            text: record.question.clone(),
            at: record.at,
            retry_of: record.retry_of,
        };
        let inner = Inner {
            record,
            seam: Seam::default(),
            seq: 1,
            frames: VecDeque::from([encode(&start)]),
            held: true,
            torn: None,
            last_failure: None,
        };
        Self(Arc::new(TurnLog {
            turn,
            client_msg_id,
            inner: Mutex::new(inner),
            published: watch::Sender::new(0),
            durable: watch::Sender::new(None),
            control: watch::Sender::new(Control::default()),
        }))
    }

    /// The log that it writes.
    pub fn log(&self) -> &Arc<TurnLog> {
        &self.0
    }

    /// Shows the log: whether the question is on disk is known.
    pub fn confirm(log: &TurnLog, durable: bool) {
        log.write(|inner| inner.held = false);
        log.durable.send_replace(Some(durable));
    }

    /// An attempt begins.
    pub fn attempt(&mut self, attempt: u32, provider: Arc<str>, model: Arc<str>) {
        self.0.write(|inner| {
            inner.seam.begin(Owner {
                attempt,
                provider: Arc::clone(&provider),
            });
            inner.record.attempts = attempt;
            inner.record.provider = Some(Arc::clone(&provider));
            inner.record.model = Some(Arc::clone(&model));
            let after = inner.last_failure.clone();
            inner.append(|turn, seq| Frame::Attempt {
                turn,
                seq,
                attempt,
                provider,
                model,
                after,
            });
        });
    }

    /// The present attempt says more.
    pub fn text(&mut self, text: &str) {
        self.0.write(|inner| {
            let before = inner.seam.owner().cloned();
            let show = inner.seam.push(text);
            inner.show(show, before);
        });
    }

    /// The present attempt ended whole.
    pub fn whole(&mut self) {
        self.0.write(|inner| {
            let before = inner.seam.owner().cloned();
            let show = inner.seam.whole();
            inner.show(show, before);
        });
    }

    /// The present attempt failed.
    pub fn failed(&mut self, provider: Arc<str>, reason: Outcome) {
        self.0.write(|inner| {
            if inner
                .seam
                .owner()
                .is_some_and(|owner| owner.attempt == inner.record.attempts)
            {
                inner.torn = Some(reason);
            }
            inner.last_failure = Some(After { provider, reason });
        });
    }

    /// Puts an answer that no provider gave in the place of whatever stands.
    pub fn replace(&mut self, kind: &str, text: &str) {
        self.0.write(|inner| {
            let before = inner.seam.owner().cloned();
            let show = inner.seam.replace(
                Owner {
                    attempt: 0,
                    provider: kind.into(),
                },
                text,
            );
            inner.record.provider = None;
            inner.record.model = None;
            inner.show(show, before);
        });
    }

    /// Whether any text stands.
    pub fn has_text(&self) -> bool {
        !self.0.lock().seam.shown().is_empty()
    }

    /// The turn as it will end: `close` fills in the end's fields. Written to the store before [`LogWriter::done`] shows it.
    pub fn ending(&self, close: impl FnOnce(&mut TurnRecord)) -> TurnRecord {
        let mut record = self.0.record();
        close(&mut record);
        record
    }

    /// Appends `done`, the last frame.
    pub fn done(self, record: TurnRecord) {
        self.0.write(|inner| inner.end(record));
    }
}

impl Inner {
    fn end(&mut self, record: TurnRecord) {
        self.append(|_, seq| Frame::Done(Box::new(record.done(seq))));
        self.record = record;
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.0.write(|inner| {
            if inner.record.state == TurnState::Running {
                inner.held = false;
                let mut record = inner.record().interrupted();
                record.finish = Some(Finish::Interrupted);
                inner.end(record);
            }
        });
        self.0
            .durable
            .send_if_modified(|durable| durable.is_none() && durable.replace(false).is_none());
    }
}
