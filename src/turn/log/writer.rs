//! The writer side of a turn log.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::LogState;
use super::{Control, TurnLog};
use crate::domain::{
    AnswerSource, AttemptOutcome, Failure, FinishReason, Frame, PreviousFailure, TurnRecord,
};
use crate::turn::merge::{ContinuationMode, MergeResult, TextMerger, TextSource};
use crate::turn::metrics::RestartEvent;

/// The only writer of a log. If dropped before the end, it ends the turn as interrupted.
pub struct LogWriter(Arc<TurnLog>);

impl LogWriter {
    /// Creates a log with its `start` frame. Followers see nothing before `release`.
    pub fn new(record: TurnRecord) -> Self {
        Self::build(record, true, false)
    }

    /// Creates a log whose readers take text instead of frames.
    ///
    /// If `append_only` is set, text is read as it arrives (`TurnLog::text_from`) and is never
    /// retracted. Otherwise it is read after the end, and only attempts and the end wake readers.
    pub fn without_frames(record: TurnRecord, append_only: bool) -> Self {
        Self::build(record, false, append_only)
    }

    fn build(record: TurnRecord, framed: bool, append_only: bool) -> Self {
        Self(Arc::new(TurnLog {
            turn: record.turn,
            client_msg_id: record.client_msg_id.clone(),
            state: Mutex::new(LogState::new(record, framed, append_only)),
            published_seq: watch::Sender::new(0),
            durability: watch::Sender::new(None),
            control: watch::Sender::new(Control {
                followers: 0,
                orphaned_since: Instant::now(),
                cancel: None,
            }),
        }))
    }

    pub fn log(&self) -> &Arc<TurnLog> {
        &self.0
    }

    /// Makes the log readable. `durable` says whether the question is on disk.
    pub fn release(log: &TurnLog, durable: bool) {
        // Set first, because replication sends it along with the first readable frames.
        log.durability.send_replace(Some(durable));
        log.update(|state| state.is_held_back = false);
    }

    /// Starts an attempt. `start` says how its text continues the shown text.
    pub fn start_attempt(
        &mut self,
        attempt: u32,
        provider: Arc<str>,
        model: Arc<str>,
        start: ContinuationMode,
    ) {
        self.0.update(|state| {
            state
                .merger
                .start_attempt(TextSource::new(attempt, Arc::clone(&provider)), start);
            state.record.attempts = attempt;
            state.record.provider = Some(Arc::clone(&provider));
            state.record.model = Some(Arc::clone(&model));
            let after = state.previous_failure.clone();
            state.append_frame(|turn, seq| Frame::Attempt {
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
    pub fn push_text(&mut self, text: &str) -> bool {
        self.merge(|seam| seam.push_text(text))
    }

    /// Ends the current attempt. Returns `false` if its text contradicts the shown text.
    #[must_use]
    pub fn finish_attempt(&mut self) -> bool {
        self.merge(TextMerger::finish_attempt)
    }

    fn merge(&mut self, merge: impl FnOnce(&mut TextMerger) -> MergeResult) -> bool {
        self.0.update_and_wake_if(
            |state| state.is_streamed,
            |state| {
                let previous_source = state.merger.owner().cloned();
                let result = merge(&mut state.merger);
                let fits = result != MergeResult::Mismatch;
                state.apply_merge(result, previous_source);
                fits
            },
        )
    }

    pub fn fail_attempt(&mut self, provider: Arc<str>, failure: Failure) {
        let reason = AttemptOutcome::from(failure.fault);
        self.0.update(|state| {
            if state
                .merger
                .owner()
                .is_some_and(|owner| owner.attempt == state.record.attempts)
            {
                state.break_reason = Some(reason);
            }
            state.previous_failure = Some(PreviousFailure { provider, reason });
            state.failure_details = Some(failure);
        });
    }

    /// Replaces the shown text by an answer that no provider gave.
    pub fn replace_text(&mut self, source: AnswerSource, text: &str) {
        self.0.update(|state| {
            let previous_source = state.merger.owner().cloned();
            let result = state
                .merger
                .replace(TextSource::new(0, source.as_str().into()), text);
            state.record.source = Some(source);
            state.record.degraded = source.is_degraded();
            state.record.provider = None;
            state.record.model = None;
            state.apply_merge(result, previous_source);
        });
    }

    pub fn shown_text(&self) -> String {
        self.0.state.lock().merger.shown().to_owned()
    }

    /// The attempt that produced the shown text. `None` if there is no text or no provider gave it.
    pub fn text_attempt(&self) -> Option<u32> {
        let state = self.0.state.lock();
        let attempt = state.merger.owner()?.attempt;
        (attempt > 0).then_some(attempt)
    }

    /// The retractions of shown text so far, in order.
    pub fn restarts(&self) -> Vec<RestartEvent> {
        self.0.state.lock().restarts.clone()
    }

    /// Returns the record of the turn's end, whose fields `close` fills in. It is written to the
    /// store before `finish` publishes it.
    pub fn final_record(&self, close: impl FnOnce(&mut TurnRecord)) -> TurnRecord {
        let mut record = self.0.record();
        close(&mut record);
        record
    }

    /// Appends `done` and ends the log.
    pub fn finish(self, record: TurnRecord) {
        self.0.update(|state| state.finish(record));
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.0.update(|state| {
            if !state.is_finished() {
                state.is_held_back = false;
                let mut record = state.current_record().into_interrupted();
                record.finish = Some(FinishReason::Interrupted);
                state.finish(record);
            }
        });
        // Nobody will write the question any more.
        self.0
            .durability
            .send_if_modified(|durable| durable.is_none() && durable.replace(false).is_none());
    }
}
