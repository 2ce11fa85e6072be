//! The one writer of a turn's log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Control, Inner, Kept, TurnLog};
use crate::chat::{After, Failure, Finish, Frame, Outcome, Source, TurnRecord, TurnState};
use crate::turn::seam::{Owner, Seam, Show, Start};
use crate::turn::tally::Restart;

/// The one writer of a log. Dropped without an end, it ends the turn as interrupted.
pub struct LogWriter(Arc<TurnLog>);

impl LogWriter {
    /// Opens a log with its `start` frame; nothing is shown before [`LogWriter::confirm`].
    pub fn open(record: TurnRecord) -> Self {
        Self::over(record, true, false)
    }

    /// Opens a log for who reads text, not frames. Where that is `rigid`, it is read as it comes ([`TurnLog::text_after`]) and text that stands is never
    /// voided; else it is read when the turn has ended, and changes with attempts and the end alone.
    pub fn open_unframed(record: TurnRecord, rigid: bool) -> Self {
        Self::over(record, false, rigid)
    }

    fn over(record: TurnRecord, framed: bool, rigid: bool) -> Self {
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
            seam: if rigid {
                Seam::rigid()
            } else {
                Seam::default()
            },
            framed,
            streamed: framed || rigid,
            seq: 1,
            frames: VecDeque::from([Kept::of(start)]),
            held: true,
            torn: None,
            last_failure: None,
            failure: None,
            restarts: Vec::new(),
            speakers: Vec::new(),
        };
        Self(Arc::new(TurnLog {
            turn,
            client_msg_id,
            inner: Mutex::new(inner),
            published: watch::Sender::new(0),
            durable: watch::Sender::new(None),
            control: watch::Sender::new(Control {
                followers: 0,
                alone_since: Instant::now(),
                cancel: None,
            }),
        }))
    }

    /// The log that it writes.
    pub fn log(&self) -> &Arc<TurnLog> {
        &self.0
    }

    /// Shows the log: whether the question is on disk is known.
    pub fn confirm(log: &TurnLog, durable: bool) {
        // First, because it is told with the first frames that may be seen.
        log.durable.send_replace(Some(durable));
        log.write(|inner| inner.held = false);
    }

    /// An attempt begins; `start` says how, where text stands.
    pub fn attempt(&mut self, attempt: u32, provider: Arc<str>, model: Arc<str>, start: Start) {
        self.0.write(|inner| {
            inner.seam.begin(
                Owner {
                    attempt,
                    provider: Arc::clone(&provider),
                },
                start,
            );
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

    /// The present attempt says more. False where that does not fit to what stands: then the attempt is of no use.
    #[must_use]
    pub fn text(&mut self, text: &str) -> bool {
        self.apply(|seam| seam.push(text))
    }

    /// The present attempt ended whole. False where it does not fit to what stands.
    #[must_use]
    pub fn whole(&mut self) -> bool {
        self.apply(Seam::whole)
    }

    fn apply(&mut self, say: impl FnOnce(&mut Seam) -> Show) -> bool {
        self.0.written(
            |inner| inner.streamed,
            |inner| {
                let before = inner.seam.owner().cloned();
                let show = say(&mut inner.seam);
                let fits = show != Show::Misfit;
                inner.show(show, before);
                fits
            },
        )
    }

    /// The present attempt failed.
    pub fn failed(&mut self, provider: Arc<str>, failure: Failure) {
        let reason = Outcome::from(failure.fault);
        self.0.write(|inner| {
            if inner
                .seam
                .owner()
                .is_some_and(|owner| owner.attempt == inner.record.attempts)
            {
                inner.torn = Some(reason);
            }
            inner.last_failure = Some(After { provider, reason });
            inner.failure = Some(failure);
        });
    }

    /// Puts an answer that no provider gave in the place of whatever stands.
    pub fn replace(&mut self, source: Source, text: &str) {
        self.0.write(|inner| {
            let before = inner.seam.owner().cloned();
            let show = inner.seam.replace(
                Owner {
                    attempt: 0,
                    provider: source.name().into(),
                },
                text,
            );
            inner.record.source = Some(source);
            inner.record.degraded = source.degraded();
            inner.record.provider = None;
            inner.record.model = None;
            inner.show(show, before);
        });
    }

    /// The text that stands.
    pub fn shown(&self) -> String {
        self.0.lock().seam.shown().to_owned()
    }

    /// The attempt whose text stands; none where there is no text, or no provider's.
    pub fn speaker(&self) -> Option<u32> {
        self.0
            .lock()
            .seam
            .owner()
            .map(|owner| owner.attempt)
            .filter(|attempt| *attempt > 0)
    }

    /// How often shown text was voided so far, in order.
    pub fn restarts(&self) -> Vec<Restart> {
        self.0.lock().restarts.clone()
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
