//! Who is answered late, when, and whether that is still wanted. Pure.
//!
//! The turns that wait stand in a line, oldest first. A conversation's turns are answered one after the other; whose try failed lets the
//! others go first. A failed try stops everything for as long as a breaker rests, and after it begins with one at a time again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::chat::{At, ConversationId, Finish, Source, TurnId, TurnRecord, TurnState};
use crate::provider::jitter;

/// How long after its question a turn may get its late answer. Later nobody is there who wants it.
pub const WITHIN: Duration = Duration::from_secs(60 * 60);

/// The most turns that wait: more than can be answered within the hour by far.
pub const MOST: usize = 10_000;

/// The most late answers under way at once: beside the visitors' own turns, not in their way.
const AT_ONCE: usize = 4;

/// Failed tries after which a turn is given up: by then it is more likely its question than its providers.
const TRIES: u32 = 10;

/// A turn that waits. In the order of the questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// The turn.
    pub turn: TurnId,
    /// Its conversation.
    pub conversation: ConversationId,
}

/// The waits between late answers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From one answer to the next, drawn from this …
    pub least: Duration,
    /// … to this.
    pub most: Duration,
    /// After a failure; it doubles with each one in a row …
    pub rest: Duration,
    /// … to this.
    pub longest_rest: Duration,
}

impl Pace {
    /// The wait before the next one. `chance`: 0 to 1.
    fn next(self, chance: f64) -> Duration {
        jitter::between(self.least, self.most, chance)
    }

    /// The wait after this many failures in a row, jittered by a fifth. `chance`: 0 to 1.
    fn rest(self, failures: u32, chance: f64) -> Duration {
        let doubled = self
            .rest
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let whole = doubled.min(self.longest_rest);
        jitter::between(whole.mul_f64(0.8), whole, chance)
    }
}

/// What came of asking for a late answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is given.
    Answered,
    /// It is wanted no more, or its question is what no provider answers.
    Unwanted,
    /// The providers failed.
    Failed,
    /// Nobody was asked: the budget is spent, or nobody is free.
    Held,
    /// Nobody who can be asked has room for it.
    Passed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Tries that came to nothing: so often others go first.
    passed: u32,
    /// Of those, how many failed.
    failed: u32,
    under_way: bool,
}

/// The line of those who wait.
#[derive(Debug)]
pub struct Line {
    pace: Pace,
    places: BTreeMap<Waiting, Place>,
    /// Tries in a row that failed.
    failures: u32,
    /// Answers in a row that were given.
    given: usize,
    /// Nobody is asked before: the pause since the last one …
    next_at: Duration,
    /// … and the rest after a failure.
    rest_until: Duration,
}

impl Line {
    /// An empty line.
    pub fn new(pace: Pace) -> Self {
        let (next_at, rest_until) = (Duration::ZERO, Duration::ZERO);
        Self {
            pace,
            places: BTreeMap::new(),
            failures: 0,
            given: 0,
            next_at,
            rest_until,
        }
    }

    /// Keeps other waits from now on; one that has begun goes on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// One more waits, because no provider answers: nobody is asked for a while, unless that is so already. Gives who had to go for it.
    pub fn enter(&mut self, one: Waiting, now: Duration, chance: f64) -> Option<Waiting> {
        if self.rest_until <= now {
            self.rest_until = now + self.pace.rest(1, chance);
        }
        self.given = 0;
        self.stand(one)
    }

    /// One that waited before the service started.
    pub fn stand(&mut self, one: Waiting) -> Option<Waiting> {
        self.places.entry(one).or_default();
        let over = self.places.len() > MOST;
        let oldest = self
            .places
            .iter()
            .find(|(_, place)| !place.under_way)
            .map(|(one, _)| *one);
        let gone = oldest.filter(|_| over)?;
        self.places.remove(&gone);
        Some(gone)
    }

    /// Those of this conversation wait no more; but for who is under way, until that is settled.
    pub fn forget(&mut self, conversation: ConversationId) {
        self.places
            .retain(|one, place| one.conversation != conversation || place.under_way);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Who is asked about now, if anyone is; it is under way then, until [`Line::settle`].
    pub fn begin(&mut self, now: Duration, chance: f64) -> Option<Waiting> {
        let under_way = self.places.values().filter(|place| place.under_way).count();
        if now < self.next_at.max(self.rest_until) || under_way >= AT_ONCE.min(1 + self.given) {
            return None;
        }
        let mut seen: BTreeSet<_> = self.under_way().map(|one| one.conversation).collect();
        let firsts = self
            .places
            .iter_mut()
            .filter(|(one, _)| seen.insert(one.conversation));
        let (one, place) = firsts.min_by_key(|(one, place)| (place.passed, **one))?;
        place.under_way = true;
        self.next_at = now + self.pace.next(chance);
        Some(*one)
    }

    /// What came of one that was under way. True where it waits no more.
    pub fn settle(&mut self, one: Waiting, came: Came, now: Duration, chance: f64) -> bool {
        let Some(place) = self.places.get_mut(&one) else {
            return false;
        };
        place.under_way = false;
        place.passed += u32::from(matches!(came, Came::Failed | Came::Passed));
        place.failed += u32::from(came == Came::Failed);
        let over = matches!(came, Came::Answered | Came::Unwanted) || place.failed >= TRIES;
        if over {
            self.places.remove(&one);
        }
        match came {
            Came::Answered => {
                self.failures = 0;
                self.given += 1;
            }
            // Nobody was asked, and nobody need wait for that.
            Came::Unwanted => self.next_at = now,
            Came::Passed => {}
            Came::Failed => {
                self.failures += 1;
                self.given = 0;
                self.rest_until = self
                    .rest_until
                    .max(now + self.pace.rest(self.failures, chance));
            }
            Came::Held => {
                self.given = 0;
                self.rest_until = self.rest_until.max(now + self.pace.rest(1, chance));
            }
        }
        over
    }

    /// Nobody is under way: who asked is gone.
    pub fn abandon(&mut self) {
        self.places
            .values_mut()
            .for_each(|place| place.under_way = false);
    }

    fn under_way(&self) -> impl Iterator<Item = &Waiting> {
        self.places
            .iter()
            .filter(|(_, place)| place.under_way)
            .map(|(one, _)| one)
    }
}

/// Whether a late answer to this turn is still wanted at `now`: it has none of an AI's, was not asked again, and is not too old. `later`: the
/// conversation's turns, those after it at least. A program that asked over HTTP was told at once, and reads nothing later.
pub fn is_wanted(record: &TurnRecord, later: &[TurnRecord], now: At) -> bool {
    let answered = record.state == TurnState::Done && !record.degraded;
    let retried = later
        .iter()
        .any(|other| other.retry_of == Some(record.turn));
    let late = now.since(record.at) >= WITHIN;
    !(answered || record.followup.is_some() || retried || late || record.client_msg_id.is_of_call())
}

/// Whether this is a whole answer of an AI.
pub fn is_whole(record: &TurnRecord) -> bool {
    let whole = matches!(record.finish, Some(Finish::Stop | Finish::Length));
    record.state == TurnState::Done && record.source == Some(Source::Ai) && whole
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
