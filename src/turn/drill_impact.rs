//! Counts what visitors get while a drill runs, for its report. A turn that was running at any
//! moment of the drill is counted when it ends.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{AttemptOutcome, FinishReason, TurnRecord};

/// Observes turns for all drills that run or still have running turns. That is a handful at most.
#[derive(Clone, Debug, Default)]
pub struct DrillObserver(Arc<Mutex<ObserverState>>);

#[derive(Debug, Default)]
struct ObserverState {
    /// Turns started so far, which is also the number of the newest one.
    turns_started: u64,
    turns_running: u64,
    drills_started: u64,
    drills: Vec<ObservedDrill>,
}

#[derive(Debug)]
struct ObservedDrill {
    id: u64,
    provider: Arc<str>,
    /// The last turn that belongs to the drill. `None` while the drill runs.
    last_turn: Option<u64>,
    impact: DrillImpact,
}

/// The effect of a drill on visitors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillImpact {
    /// Turns that have ended by now.
    pub turns: u64,
    pub under_way: u64,
    /// Ended turns by the source of their answer, as in `done.source`.
    pub sources: BTreeMap<String, u64>,
    /// Ended turns with less than an AI answer.
    pub degraded: u64,
    /// Ended turns that were cut off without an answer.
    pub interrupted: u64,
    pub stopped: u64,
    /// The number of times shown text was retracted.
    pub restarts: u64,
    /// Calls to providers, as in `done.attempts`.
    pub attempts: u64,
    /// Failed calls to the provider under the drill.
    pub failed: u64,
    /// The longest time from a question to the first text of its answer.
    pub longest_first_token_ms: Option<u64>,
}

/// The observation of one drill. Dropping it discards the counts.
#[derive(Debug)]
pub struct DrillObservation {
    observer: DrillObserver,
    id: u64,
}

impl DrillObserver {
    /// Registers a turn that starts now. Returns its number.
    pub(super) fn turn_started(&self) -> u64 {
        let mut state = self.0.lock();
        state.turns_started += 1;
        state.turns_running += 1;
        for drill in &mut state.drills {
            drill.impact.under_way += u64::from(drill.last_turn.is_none());
        }
        state.turns_started
    }

    /// Counts the end of a turn. `record` is `None` if its task panicked.
    pub(super) fn turn_finished(&self, number: u64, record: Option<&TurnRecord>, restarts: usize) {
        let mut state = self.0.lock();
        state.turns_running = state.turns_running.saturating_sub(1);
        for drill in &mut state.drills {
            if drill.last_turn.is_none_or(|last| number <= last) {
                drill.impact.add_turn(record, restarts, &drill.provider);
            }
        }
    }

    pub fn observe(&self, provider: Arc<str>) -> DrillObservation {
        let mut state = self.0.lock();
        state.drills_started += 1;
        let id = state.drills_started;
        let seen = DrillImpact {
            under_way: state.turns_running,
            ..DrillImpact::default()
        };
        state.drills.push(ObservedDrill {
            id,
            provider,
            last_turn: None,
            impact: seen,
        });
        DrillObservation {
            observer: self.clone(),
            id,
        }
    }
}

impl DrillObservation {
    /// Ends the drill: turns that start from now on are not counted.
    pub fn stop(&self) {
        let mut state = self.observer.0.lock();
        let begun = state.turns_started;
        for drill in state.drills.iter_mut().filter(|drill| drill.id == self.id) {
            drill.last_turn.get_or_insert(begun);
        }
    }

    pub fn impact(&self) -> DrillImpact {
        let state = self.observer.0.lock();
        let drill = state.drills.iter().find(|drill| drill.id == self.id);
        drill.map(|drill| drill.impact.clone()).unwrap_or_default()
    }
}

impl Drop for DrillObservation {
    fn drop(&mut self) {
        let mut state = self.observer.0.lock();
        state.drills.retain(|drill| drill.id != self.id);
    }
}

impl DrillImpact {
    fn add_turn(&mut self, record: Option<&TurnRecord>, restarts: usize, provider: &str) {
        self.turns += 1;
        self.under_way = self.under_way.saturating_sub(1);
        let Some(record) = record else {
            self.interrupted += 1;
            return;
        };
        if let Some(source) = record.source {
            *self.sources.entry(source.as_str().to_owned()).or_default() += 1;
        }
        self.degraded += u64::from(record.degraded);
        self.interrupted += u64::from(record.finish == Some(FinishReason::Interrupted));
        self.stopped += u64::from(record.finish == Some(FinishReason::Stopped));
        self.restarts += restarts as u64;
        self.attempts += u64::from(record.attempts);
        let failed = record.tried.iter().filter(|tried| {
            *tried.provider == *provider
                && tried.outcome != AttemptOutcome::OK
                && tried.outcome != AttemptOutcome::STOPPED
        });
        self.failed += failed.count() as u64;
        self.longest_first_token_ms = self.longest_first_token_ms.max(record.first_token_ms);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{AnswerSource, AttemptSummary, ClientMsgId, FaultKind, Timestamp, TurnId};

    fn record(source: AnswerSource, tried: &[(&str, AttemptOutcome)]) -> TurnRecord {
        let turn = TurnId::next_after(None, 1, 1);
        let mut record = TurnRecord::new(
            turn,
            ClientMsgId::for_turn(turn),
            Timestamp(1),
            String::new(),
            None,
        );
        record.source = Some(source);
        record.degraded = source.is_degraded();
        record.finish = Some(FinishReason::Stop);
        record.attempts = u32::try_from(tried.len()).unwrap();
        let attempt = |(provider, outcome): &(&str, AttemptOutcome)| AttemptSummary {
            attempt: 1,
            provider: (*provider).into(),
            model: "m".into(),
            outcome: *outcome,
            ms: 1,
        };
        record.tried = tried.iter().map(attempt).collect();
        record.first_token_ms = Some(u64::from(record.attempts) * 100);
        record
    }

    #[test]
    fn drill_counts_exactly_the_turns_that_ran_during_it() {
        let observer = DrillObserver::default();
        let before = observer.turn_started();
        observer.turn_finished(before, Some(&record(AnswerSource::Ai, &[])), 0);
        let early = observer.turn_started();
        let first = observer.observe("a".into());
        let during = observer.turn_started();
        assert_eq!(first.impact().under_way, 2);
        let reset = AttemptOutcome::from(FaultKind::Reset);
        observer.turn_finished(
            early,
            Some(&record(
                AnswerSource::Ai,
                &[("a", reset), ("b", AttemptOutcome::OK)],
            )),
            1,
        );
        let late = observer.turn_started();
        first.stop();
        let second = observer.observe("b".into());
        let after = observer.turn_started();
        observer.turn_finished(after, Some(&record(AnswerSource::Cache, &[])), 0);
        observer.turn_finished(during, None, 0);
        assert_eq!((first.impact().turns, first.impact().under_way), (2, 1));
        observer.turn_finished(
            late,
            Some(&record(
                AnswerSource::Fallback,
                &[("a", reset), ("b", reset)],
            )),
            2,
        );
        let seen = first.impact();
        let sources = [("ai".to_owned(), 1), ("fallback".to_owned(), 1)].into();
        let expected = DrillImpact {
            turns: 3,
            under_way: 0,
            sources,
            degraded: 1,
            interrupted: 1,
            stopped: 0,
            restarts: 3,
            attempts: 4,
            failed: 2,
            longest_first_token_ms: Some(200),
        };
        assert_eq!(seen, expected);
        assert_eq!(
            (second.impact().turns, second.impact().failed),
            (3, 1),
            "the turns running when it started, and the new one"
        );
        drop((first, second));
        assert!(observer.0.lock().drills.is_empty() && observer.0.lock().turns_running == 0);
    }
}
