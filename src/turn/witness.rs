//! Counts what visitors get while a drill runs, for its report. A turn that was running at any
//! moment of the drill is counted when it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::chat::{Finish, Outcome, TurnRecord};

/// Observes turns for all drills that run or still have running turns. That is a handful at most.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Turns started so far, which is also the number of the newest one.
    begun: u64,
    open: u64,
    watches: Vec<Watch>,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    provider: Arc<str>,
    /// The last turn that belongs to the drill. `None` while the drill runs.
    last: Option<u64>,
    seen: Seen,
}

/// The effect of a drill on visitors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
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
pub struct Watching {
    witness: Witness,
    number: u64,
}

impl Witness {
    /// Registers a turn that starts now. Returns its number.
    pub(super) fn began(&self) -> u64 {
        let mut state = self.lock();
        state.begun += 1;
        state.open += 1;
        for drill in state
            .watches
            .iter_mut()
            .filter(|drill| drill.last.is_none())
        {
            drill.seen.under_way += 1;
        }
        state.begun
    }

    /// Counts the end of a turn. `record` is `None` if its task panicked.
    pub(super) fn ended(&self, number: u64, record: Option<&TurnRecord>, restarts: usize) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        for drill in state
            .watches
            .iter_mut()
            .filter(|drill| drill.last.is_none_or(|last| number <= last))
        {
            drill.seen.count(record, restarts, &drill.provider);
        }
    }

    pub fn watch(&self, provider: Arc<str>) -> Watching {
        let mut state = self.lock();
        let number = state
            .watches
            .iter()
            .map(|drill| drill.number)
            .max()
            .unwrap_or_default()
            + 1;
        let seen = Seen {
            under_way: state.open,
            ..Seen::default()
        };
        state.watches.push(Watch {
            number,
            provider,
            last: None,
            seen,
        });
        Watching {
            witness: self.clone(),
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// Ends the drill: turns that start from now on are not counted.
    pub fn over(&self) {
        let mut state = self.witness.lock();
        let begun = state.begun;
        for drill in state
            .watches
            .iter_mut()
            .filter(|drill| drill.number == self.number)
        {
            drill.last.get_or_insert(begun);
        }
    }

    pub fn seen(&self) -> Seen {
        let state = self.witness.lock();
        let drill = state
            .watches
            .iter()
            .find(|drill| drill.number == self.number);
        drill.map(|drill| drill.seen.clone()).unwrap_or_default()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.witness
            .lock()
            .watches
            .retain(|drill| drill.number != self.number);
    }
}

impl Seen {
    fn count(&mut self, record: Option<&TurnRecord>, restarts: usize, provider: &str) {
        self.turns += 1;
        self.under_way = self.under_way.saturating_sub(1);
        let Some(record) = record else {
            self.interrupted += 1;
            return;
        };
        if let Some(source) = record.source {
            *self.sources.entry(source.name().to_owned()).or_default() += 1;
        }
        self.degraded += u64::from(record.degraded);
        self.interrupted += u64::from(record.finish == Some(Finish::Interrupted));
        self.stopped += u64::from(record.finish == Some(Finish::Stopped));
        self.restarts += restarts as u64;
        self.attempts += u64::from(record.attempts);
        let failed = record.tried.iter().filter(|tried| {
            *tried.provider == *provider
                && tried.outcome != Outcome::OK
                && tried.outcome != Outcome::STOPPED
        });
        self.failed += failed.count() as u64;
        self.longest_first_token_ms = self.longest_first_token_ms.max(record.first_token_ms);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::chat::{At, ClientMsgId, Fault, Source, Tried, TurnId};

    fn record(source: Source, tried: &[(&str, Outcome)]) -> TurnRecord {
        let turn = TurnId::after(None, 1, 1);
        let mut record =
            TurnRecord::asked(turn, ClientMsgId::of_turn(turn), At(1), String::new(), None);
        record.source = Some(source);
        record.degraded = source.degraded();
        record.finish = Some(Finish::Stop);
        record.attempts = u32::try_from(tried.len()).unwrap();
        let attempt = |(provider, outcome): &(&str, Outcome)| Tried {
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
        let observer = Witness::default();
        let before = observer.began();
        observer.ended(before, Some(&record(Source::Ai, &[])), 0);
        let early = observer.began();
        let first = observer.watch("a".into());
        let during = observer.began();
        assert_eq!(first.seen().under_way, 2);
        let reset = Outcome::from(Fault::Reset);
        observer.ended(
            early,
            Some(&record(Source::Ai, &[("a", reset), ("b", Outcome::OK)])),
            1,
        );
        let late = observer.began();
        first.over();
        let second = observer.watch("b".into());
        let after = observer.began();
        observer.ended(after, Some(&record(Source::Cache, &[])), 0);
        observer.ended(during, None, 0);
        assert_eq!((first.seen().turns, first.seen().under_way), (2, 1));
        observer.ended(
            late,
            Some(&record(Source::Fallback, &[("a", reset), ("b", reset)])),
            2,
        );
        let seen = first.seen();
        let sources = [("ai".to_owned(), 1), ("fallback".to_owned(), 1)].into();
        let expected = Seen {
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
            (second.seen().turns, second.seen().failed),
            (3, 1),
            "the turns running when it started, and the new one"
        );
        drop((first, second));
        assert!(observer.lock().watches.is_empty() && observer.lock().open == 0);
    }
}
