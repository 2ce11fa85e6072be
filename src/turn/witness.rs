//! What visitors get while an outage drill runs, counted for its report: each turn that was under way at any moment of the drill, at its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::chat::{Finish, Outcome, TurnRecord};

/// Watches turns for any number of drills; as many as run, and as have turns left, which is few.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Turns begun so far: the number of the newest.
    begun: u64,
    /// Turns under way.
    open: u64,
    watches: Vec<Watch>,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    provider: Arc<str>,
    /// The last turn that it counts; none while the drill runs.
    last: Option<u64>,
    seen: Seen,
}

/// What visitors got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Turns that ended.
    pub turns: u64,
    /// Those that have not yet.
    pub under_way: u64,
    /// The ended ones by where their answer came from, as `done.source` says it.
    pub sources: BTreeMap<String, u64>,
    /// Of these, with less than an AI's answer.
    pub degraded: u64,
    /// Cut off, without an answer.
    pub interrupted: u64,
    /// Ended by their visitor.
    pub stopped: u64,
    /// How often shown text was voided.
    pub restarts: u64,
    /// Calls to providers, by `done.attempts`.
    pub attempts: u64,
    /// Of these, failed at the provider under the drill.
    pub failed: u64,
    /// The longest time from a question to the first text of its answer.
    pub longest_first_token_ms: Option<u64>,
}

/// A drill that is watched. Dropping it forgets what was seen.
#[derive(Debug)]
pub struct Watching {
    witness: Witness,
    number: u64,
}

impl Witness {
    /// A turn begins; gives its number.
    pub(super) fn began(&self) -> u64 {
        let mut inner = self.lock();
        inner.begun += 1;
        inner.open += 1;
        for watch in inner
            .watches
            .iter_mut()
            .filter(|watch| watch.last.is_none())
        {
            watch.seen.under_way += 1;
        }
        inner.begun
    }

    /// The turn of this number ended; without a record, in a panic of its task.
    pub(super) fn ended(&self, number: u64, record: Option<&TurnRecord>, restarts: usize) {
        let mut inner = self.lock();
        inner.open = inner.open.saturating_sub(1);
        for watch in inner
            .watches
            .iter_mut()
            .filter(|watch| watch.last.is_none_or(|last| number <= last))
        {
            watch.seen.count(record, restarts, &watch.provider);
        }
    }

    /// A drill of this provider begins.
    pub fn watch(&self, provider: Arc<str>) -> Watching {
        let mut inner = self.lock();
        let number = inner
            .watches
            .iter()
            .map(|watch| watch.number)
            .max()
            .unwrap_or_default()
            + 1;
        let seen = Seen {
            under_way: inner.open,
            ..Seen::default()
        };
        inner.watches.push(Watch {
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
    /// The drill ended: turns that begin from now on are none of its.
    pub fn over(&self) {
        let mut inner = self.witness.lock();
        let begun = inner.begun;
        for watch in inner
            .watches
            .iter_mut()
            .filter(|watch| watch.number == self.number)
        {
            watch.last.get_or_insert(begun);
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        let inner = self.witness.lock();
        let watch = inner
            .watches
            .iter()
            .find(|watch| watch.number == self.number);
        watch.map(|watch| watch.seen.clone()).unwrap_or_default()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.witness
            .lock()
            .watches
            .retain(|watch| watch.number != self.number);
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
        let failed = record.tried.iter().filter(|one| {
            *one.provider == *provider
                && one.outcome != Outcome::OK
                && one.outcome != Outcome::STOPPED
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
        let one = |(provider, outcome): &(&str, Outcome)| Tried {
            attempt: 1,
            provider: (*provider).into(),
            model: "m".into(),
            outcome: *outcome,
            ms: 1,
        };
        record.tried = tried.iter().map(one).collect();
        record.first_token_ms = Some(u64::from(record.attempts) * 100);
        record
    }

    #[test]
    fn a_drill_is_told_of_every_turn_that_ran_under_it_and_of_no_other() {
        let witness = Witness::default();
        let before = witness.began();
        witness.ended(before, Some(&record(Source::Ai, &[])), 0);
        let early = witness.began();
        let first = witness.watch("a".into());
        let during = witness.began();
        assert_eq!(first.seen().under_way, 2);
        let reset = Outcome::from(Fault::Reset);
        witness.ended(
            early,
            Some(&record(Source::Ai, &[("a", reset), ("b", Outcome::OK)])),
            1,
        );
        let late = witness.began();
        first.over();
        let second = witness.watch("b".into());
        let after = witness.began();
        witness.ended(after, Some(&record(Source::Cache, &[])), 0);
        witness.ended(during, None, 0);
        assert_eq!((first.seen().turns, first.seen().under_way), (2, 1));
        witness.ended(
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
            "those under way then, and the new one"
        );
        drop((first, second));
        assert!(witness.lock().watches.is_empty() && witness.lock().open == 0);
    }
}
