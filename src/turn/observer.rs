//! Observes turns: one event at the end of each updates the metrics, the answer counts and the
//! drills.

use parking_lot::Mutex;

use super::answer_counts::AnswerCounts;
use super::drill_impact::DrillObserver;
use super::metrics::{RestartEvent, TurnMetrics};
use crate::domain::{AnswerSource, FinishReason, TurnRecord};

pub struct TurnObserver {
    pub metrics: TurnMetrics,
    pub drills: DrillObserver,
    answers: Mutex<AnswerCounts>,
}

/// The end of a turn.
pub(super) struct TurnFinished<'t> {
    pub(super) record: &'t TurnRecord,
    pub(super) restarts: &'t [RestartEvent],
    /// The turn did not get the answer that it should have had.
    pub(super) is_lost: bool,
}

/// A turn in progress. If dropped without `finish`, as by a panic, it counts as interrupted.
pub(super) struct InFlightTurn<'t> {
    observer: &'t TurnObserver,
    number: u64,
    is_finished: bool,
}

impl TurnObserver {
    pub fn new(metrics: TurnMetrics) -> Self {
        Self {
            metrics,
            drills: DrillObserver::default(),
            answers: Mutex::default(),
        }
    }

    /// The turns that have ended since the start.
    pub fn answers(&self) -> AnswerCounts {
        *self.answers.lock()
    }

    pub(super) fn turn_started(&self) -> InFlightTurn<'_> {
        self.metrics.turn_started();
        InFlightTurn {
            observer: self,
            number: self.drills.turn_started(),
            is_finished: false,
        }
    }
}

impl InFlightTurn<'_> {
    pub(super) fn finish(mut self, turn: &TurnFinished) {
        let TurnFinished {
            record, restarts, ..
        } = turn;
        let source = record.source.unwrap_or(AnswerSource::Ai);
        let finish = record.finish.unwrap_or(FinishReason::Interrupted);
        let observer = self.observer;
        observer.metrics.turn_finished(source, finish, restarts);
        observer
            .drills
            .turn_finished(self.number, Some(record), restarts.len());
        observer.answers.lock().add_turn(record, turn.is_lost);
        self.is_finished = true;
    }
}

impl Drop for InFlightTurn<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            let metrics = &self.observer.metrics;
            metrics.turn_finished(AnswerSource::Ai, FinishReason::Interrupted, &[]);
            self.observer.drills.turn_finished(self.number, None, 0);
        }
    }
}
