//! The writer side of a turn log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Control, Inner, Kept, TurnLog};
use crate::chat::{After, Failure, Finish, Frame, Outcome, Source, TurnRecord, TurnState};
use crate::turn::seam::{Owner, Seam, Show, Start};
use crate::turn::tally::Restart;

/// The only writer of a log. If dropped before the end, it ends the turn as interrupted.
pub struct LogWriter(Arc<TurnLog>);

impl LogWriter {
    /// Creates a log with its `start` frame. Followers see nothing before `release`.
    pub fn open(record: TurnRecord) -> Self {
        Self::over(record, true, false)
    }

    /// Creates a log whose readers take text instead of frames.
    ///
    /// If `append_only` is set, text is read as it arrives (`TurnLog::text_from`) and is never
    /// retracted. Otherwise it is read after the end, and only attempts and the end wake readers.
    pub fn open_unframed(record: TurnRecord, append_only: bool) -> Self {
        Self::over(record, false, append_only)
    }

    fn over(record: TurnRecord, framed: bool, append_only: bool) -> Self {
        let turn = record.turn;
        let client_msg_id = record.client_msg_id.clone();
        let start = Frame::Start {
            turn,
            seq: 1,
            client_msg_id: client_msg_id.clone(),
            text: record.question.clone(),
            at: record.at,
            retry_of: record.retry_of,
        };
        let state = Inner {
            record,
            seam: if append_only {
                Seam::rigid()
            } else {
                Seam::default()
            },
            framed,
            streamed: framed || append_only,
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
            state: Mutex::new(state),
            published: watch::Sender::new(0),
            durability: watch::Sender::new(None),
            control: watch::Sender::new(Control {
                followers: 0,
                alone_since: Instant::now(),
                cancel: None,
            }),
        }))
    }

    pub fn log(&self) -> &Arc<TurnLog> {
        &self.0
    }

    /// Makes the log readable. `durable` says whether the question is on disk.
    pub fn confirm(log: &TurnLog, durable: bool) {
        // Set first, because replication sends it along with the first readable frames.
        log.durability.send_replace(Some(durable));
        log.write(|state| state.held = false);
    }

    /// Starts an attempt. `start` says how its text continues the shown text.
    pub fn attempt(&mut self, attempt: u32, provider: Arc<str>, model: Arc<str>, start: Start) {
        self.0.write(|state| {
            state.seam.begin(
                Owner {
                    attempt,
                    provider: Arc::clone(&provider),
                },
                start,
            );
            state.record.attempts = attempt;
            state.record.provider = Some(Arc::clone(&provider));
            state.record.model = Some(Arc::clone(&model));
            let after = state.last_failure.clone();
            state.append(|turn, seq| Frame::Attempt {
                turn,
                seq,
                attempt,
                provider,
                model,
                after,
            });
        });
    }

    /// Adds text of the current attempt. Returns `false` if it contradicts the shown text: the
    /// attempt is of no use then.
    #[must_use]
    pub fn text(&mut self, text: &str) -> bool {
        self.apply(|seam| seam.push(text))
    }

    /// Ends the current attempt. Returns `false` if its text contradicts the shown text.
    #[must_use]
    pub fn whole(&mut self) -> bool {
        self.apply(Seam::whole)
    }

    fn apply(&mut self, merge: impl FnOnce(&mut Seam) -> Show) -> bool {
        self.0.written(
            |state| state.streamed,
            |state| {
                let previous_source = state.seam.owner().cloned();
                let result = merge(&mut state.seam);
                let fits = result != Show::Misfit;
                state.show(result, previous_source);
                fits
            },
        )
    }

    pub fn failed(&mut self, provider: Arc<str>, failure: Failure) {
        let reason = Outcome::from(failure.fault);
        self.0.write(|state| {
            if state
                .seam
                .owner()
                .is_some_and(|owner| owner.attempt == state.record.attempts)
            {
                state.torn = Some(reason);
            }
            state.last_failure = Some(After { provider, reason });
            state.failure = Some(failure);
        });
    }

    /// Replaces the shown text by an answer that no provider gave.
    pub fn replace(&mut self, source: Source, text: &str) {
        self.0.write(|state| {
            let previous_source = state.seam.owner().cloned();
            let result = state.seam.replace(
                Owner {
                    attempt: 0,
                    provider: source.name().into(),
                },
                text,
            );
            state.record.source = Some(source);
            state.record.degraded = source.degraded();
            state.record.provider = None;
            state.record.model = None;
            state.show(result, previous_source);
        });
    }

    pub fn shown(&self) -> String {
        self.0.lock().seam.shown().to_owned()
    }

    /// The attempt that produced the shown text. `None` if there is no text or no provider gave it.
    pub fn speaker(&self) -> Option<u32> {
        self.0
            .lock()
            .seam
            .owner()
            .map(|owner| owner.attempt)
            .filter(|attempt| *attempt > 0)
    }

    /// The retractions of shown text so far, in order.
    pub fn restarts(&self) -> Vec<Restart> {
        self.0.lock().restarts.clone()
    }

    /// Returns the record of the turn's end, whose fields `close` fills in. It is written to the
    /// store before `finish` publishes it.
    pub fn ending(&self, close: impl FnOnce(&mut TurnRecord)) -> TurnRecord {
        let mut record = self.0.record();
        close(&mut record);
        record
    }

    /// Appends `done` and ends the log.
    pub fn done(self, record: TurnRecord) {
        self.0.write(|state| state.end(record));
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.0.write(|state| {
            if state.record.state == TurnState::Running {
                state.held = false;
                let mut record = state.current_record().interrupted();
                record.finish = Some(Finish::Interrupted);
                state.end(record);
            }
        });
        // Nobody will write the question any more.
        self.0
            .durability
            .send_if_modified(|durable| durable.is_none() && durable.replace(false).is_none());
    }
}
