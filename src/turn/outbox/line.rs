//! Decides which turns get a follow-up, when, and whether it is still wanted. Pure.
//!
//! Turns wait in the order of their questions. The turns of one conversation are answered one after
//! the other; a turn whose attempt failed lets other conversations go first. A failed attempt
//! pauses everything for about a breaker's open time. After it, one answer at a time runs again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::chat::{At, ConversationId, Finish, Source, TurnId, TurnRecord, TurnState};
use crate::provider::jitter;

/// The maximum age of a question that still gets a follow-up. Later nobody waits for it.
pub const WITHIN: Duration = Duration::from_secs(60 * 60);

/// The maximum number of waiting turns: far more than can be answered within an hour.
pub const MOST: usize = 10_000;

/// The maximum number of concurrent follow-ups. Low, so that they do not delay visitors' own turns.
const AT_ONCE: usize = 4;

/// The failures after which a turn is given up: by then the question is the likely cause.
const TRIES: u32 = 10;

/// A turn that waits for a follow-up. Sorts by the age of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    pub turn: TurnId,
    pub conversation: ConversationId,
}

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The lower bound of the random interval between two answers.
    pub least: Duration,
    /// The upper bound of that interval.
    pub most: Duration,
    /// The pause after a first failure. Doubles with each consecutive failure.
    pub rest: Duration,
    pub longest_rest: Duration,
}

impl Pace {
    /// Returns the interval to the next follow-up. `random` is in 0..1.
    fn next(self, random: f64) -> Duration {
        jitter::between(self.least, self.most, random)
    }

    /// Returns the pause after this many consecutive failures, shortened by up to a fifth. `random`
    /// is in 0..1.
    fn backoff(self, failures: u32, random: f64) -> Duration {
        let doubled = self
            .rest
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let longest = doubled.min(self.longest_rest);
        jitter::between(longest.mul_f64(0.8), longest, random)
    }
}

/// The outcome of an attempt at a follow-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Answered,
    /// No longer wanted, or the question is one that every provider refuses.
    Unwanted,
    Failed,
    /// No provider was asked: the retry budget is spent, no permit is free, or the store failed.
    Held,
    /// No available provider has a context large enough, or another instance answers the turn.
    Passed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Failed and skipped attempts. Turns with fewer of them go first.
    passed: u32,
    /// The failed ones among `passed`.
    failed: u32,
    under_way: bool,
}

/// The waiting turns and the state of the pacing.
#[derive(Debug)]
pub struct Line {
    pace: Pace,
    places: BTreeMap<Waiting, Place>,
    failures: u32,
    /// Limits concurrency: starts at one answer at a time and grows with each success.
    given: usize,
    /// No follow-up starts earlier: the interval after the last start.
    next_at: Duration,
    /// No follow-up starts earlier: the pause after a failure.
    rest_until: Duration,
}

impl Line {
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            places: BTreeMap::new(),
            failures: 0,
            given: 0,
            next_at: Duration::ZERO,
            rest_until: Duration::ZERO,
        }
    }

    /// Changes the pacing. A pause that has begun keeps its length.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Adds a turn that no provider answered, and pauses if no pause is running. Returns the turn
    /// that a full queue drops in return.
    pub fn enter(&mut self, followup: Waiting, now: Duration, random: f64) -> Option<Waiting> {
        if self.rest_until <= now {
            self.rest_until = now + self.pace.backoff(1, random);
        }
        self.given = 0;
        self.stand(followup)
    }

    /// Adds a turn without a pause, for example one restored from the store. Returns the turn that
    /// a full queue drops in return.
    pub fn stand(&mut self, followup: Waiting) -> Option<Waiting> {
        self.places.entry(followup).or_default();
        let is_full = self.places.len() > MOST;
        let oldest = self
            .places
            .iter()
            .find(|(_, slot)| !slot.under_way)
            .map(|(followup, _)| *followup);
        let dropped = oldest.filter(|_| is_full)?;
        self.places.remove(&dropped);
        Some(dropped)
    }

    /// Removes a conversation's turns, except those that are running.
    pub fn forget(&mut self, conversation: ConversationId) {
        self.places
            .retain(|followup, slot| followup.conversation != conversation || slot.under_way);
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the next turn to answer, if one may start now. It counts as running until its
    /// outcome is recorded.
    pub fn begin(&mut self, now: Duration, random: f64) -> Option<Waiting> {
        let under_way = self.places.values().filter(|slot| slot.under_way).count();
        if now < self.next_at.max(self.rest_until) || under_way >= AT_ONCE.min(1 + self.given) {
            return None;
        }
        // Only the oldest turn of each conversation is eligible, and none while one is running.
        let mut seen: BTreeSet<_> = self
            .under_way()
            .map(|followup| followup.conversation)
            .collect();
        let firsts = self
            .places
            .iter_mut()
            .filter(|(followup, _)| seen.insert(followup.conversation));
        let (followup, slot) = firsts.min_by_key(|(followup, slot)| (slot.passed, **followup))?;
        slot.under_way = true;
        self.next_at = now + self.pace.next(random);
        Some(*followup)
    }

    /// Records the outcome of a running turn. Returns `true` if the turn no longer waits.
    pub fn settle(&mut self, followup: Waiting, outcome: Came, now: Duration, random: f64) -> bool {
        let Some(slot) = self.places.get_mut(&followup) else {
            return false;
        };
        slot.under_way = false;
        slot.passed += u32::from(matches!(outcome, Came::Failed | Came::Passed));
        slot.failed += u32::from(outcome == Came::Failed);
        let is_over = matches!(outcome, Came::Answered | Came::Unwanted) || slot.failed >= TRIES;
        if is_over {
            self.places.remove(&followup);
        }
        match outcome {
            Came::Answered => {
                self.failures = 0;
                self.given += 1;
            }
            // No provider was called, so the next turn need not wait.
            Came::Unwanted => self.next_at = now,
            Came::Passed => {}
            Came::Failed => {
                self.failures += 1;
                self.given = 0;
                self.rest_until = self
                    .rest_until
                    .max(now + self.pace.backoff(self.failures, random));
            }
            Came::Held => {
                self.given = 0;
                self.rest_until = self.rest_until.max(now + self.pace.backoff(1, random));
            }
        }
        is_over
    }

    /// Marks every turn as not running, after the loop that answered them panicked.
    pub fn abandon(&mut self) {
        self.places
            .values_mut()
            .for_each(|slot| slot.under_way = false);
    }

    fn under_way(&self) -> impl Iterator<Item = &Waiting> {
        self.places
            .iter()
            .filter(|(_, slot)| slot.under_way)
            .map(|(followup, _)| followup)
    }
}

/// Returns `true` if a follow-up to this turn is still wanted at `now`: it has no AI's answer, was
/// not asked again, and is not too old.
///
/// `later` holds at least the conversation's turns after it. API calls never get a follow-up: the
/// caller learned of the failure at once.
pub fn is_wanted(record: &TurnRecord, later: &[TurnRecord], now: At) -> bool {
    let is_answered = record.state == TurnState::Done && !record.degraded;
    let is_retried = later
        .iter()
        .any(|other| other.retry_of == Some(record.turn));
    let is_expired = now.since(record.at) >= WITHIN;
    !(is_answered
        || record.followup.is_some()
        || is_retried
        || is_expired
        || record.client_msg_id.is_of_call())
}

/// Returns `true` if the turn ended with a complete answer of an AI.
pub fn is_whole(record: &TurnRecord) -> bool {
    let is_complete = matches!(record.finish, Some(Finish::Stop | Finish::Length));
    record.state == TurnState::Done && record.source == Some(Source::Ai) && is_complete
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
