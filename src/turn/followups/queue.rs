//! Decides which turns get a follow-up, when, and whether it is still wanted. Pure.
//!
//! Turns wait in the order of their questions. The turns of one conversation are answered one after
//! the other; a turn whose attempt failed lets other conversations go first. A failed attempt
//! pauses everything for about a breaker's open time. After it, one answer at a time runs again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::{
    AnswerSource, ConversationId, FinishReason, Timestamp, TurnId, TurnRecord, TurnState,
};
use crate::provider::backoff;

/// The maximum age of a question that still gets a follow-up. Later nobody waits for it.
pub const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The maximum number of waiting turns: far more than can be answered within an hour.
pub const MAX_WAITING: usize = 10_000;

/// The maximum number of concurrent follow-ups. Low, so that they do not delay visitors' own turns.
const MAX_CONCURRENT: usize = 4;

/// The failures after which a turn is given up: by then the question is the likely cause.
const MAX_FAILURES: u32 = 10;

/// A turn that waits for a follow-up. Sorts by the age of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PendingFollowup {
    pub turn: TurnId,
    pub conversation: ConversationId,
}

#[derive(Clone, Copy, Debug)]
pub struct RetryPacing {
    /// The lower bound of the random interval between two answers.
    pub min_interval: Duration,
    /// The upper bound of that interval.
    pub max_interval: Duration,
    /// The pause after a first failure. Doubles with each consecutive failure.
    pub base_backoff: Duration,
    pub max_backoff: Duration,
}

impl RetryPacing {
    /// Returns the interval to the next follow-up. `random` is in 0..1.
    fn next_interval(self, random: f64) -> Duration {
        backoff::between(self.min_interval, self.max_interval, random)
    }

    /// Returns the pause after this many consecutive failures, shortened by up to a fifth. `random`
    /// is in 0..1.
    fn backoff(self, failures: u32, random: f64) -> Duration {
        let doubled = self
            .base_backoff
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let longest = doubled.min(self.max_backoff);
        backoff::between(longest.mul_f64(0.8), longest, random)
    }
}

/// The outcome of an attempt at a follow-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowupOutcome {
    Answered,
    /// No longer wanted, or the question is one that every provider refuses.
    Obsolete,
    Failed,
    /// No provider was asked: the retry budget is spent, no permit is free, or the store failed.
    Deferred,
    /// No available provider has a context large enough, or another instance answers the turn.
    Skipped,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueueSlot {
    /// Failed and skipped attempts. Turns with fewer of them go first.
    unsuccessful: u32,
    /// The failed ones among `passed`.
    failures: u32,
    is_running: bool,
}

/// The waiting turns and the state of the pacing.
#[derive(Debug)]
pub struct FollowupOrder {
    pacing: RetryPacing,
    slots: BTreeMap<PendingFollowup, QueueSlot>,
    consecutive_failures: u32,
    /// Limits concurrency: starts at one answer at a time and grows with each success.
    consecutive_answers: usize,
    /// No follow-up starts earlier: the interval after the last start.
    next_at: Duration,
    /// No follow-up starts earlier: the pause after a failure.
    backoff_until: Duration,
}

impl FollowupOrder {
    pub fn new(pace: RetryPacing) -> Self {
        Self {
            pacing: pace,
            slots: BTreeMap::new(),
            consecutive_failures: 0,
            consecutive_answers: 0,
            next_at: Duration::ZERO,
            backoff_until: Duration::ZERO,
        }
    }

    /// Changes the pacing. A pause that has begun keeps its length.
    pub fn set_pacing(&mut self, pace: RetryPacing) {
        self.pacing = pace;
    }

    /// Adds a turn that no provider answered, and pauses if no pause is running. Returns the turn
    /// that a full queue drops in return.
    pub fn insert_and_back_off(
        &mut self,
        followup: PendingFollowup,
        now: Duration,
        random: f64,
    ) -> Option<PendingFollowup> {
        if self.backoff_until <= now {
            self.backoff_until = now + self.pacing.backoff(1, random);
        }
        self.consecutive_answers = 0;
        self.insert(followup)
    }

    /// Adds a turn without a pause, for example one restored from the store. Returns the turn that
    /// a full queue drops in return.
    pub fn insert(&mut self, followup: PendingFollowup) -> Option<PendingFollowup> {
        self.slots.entry(followup).or_default();
        let is_full = self.slots.len() > MAX_WAITING;
        let oldest = self
            .slots
            .iter()
            .find(|(_, slot)| !slot.is_running)
            .map(|(followup, _)| *followup);
        let dropped = oldest.filter(|_| is_full)?;
        self.slots.remove(&dropped);
        Some(dropped)
    }

    /// Removes a conversation's turns, except those that are running.
    pub fn remove_conversation(&mut self, conversation: ConversationId) {
        self.slots
            .retain(|followup, slot| followup.conversation != conversation || slot.is_running);
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the next turn to answer, if one may start now. It counts as running until its
    /// outcome is recorded.
    pub fn start_next(&mut self, now: Duration, random: f64) -> Option<PendingFollowup> {
        if now < self.next_at.max(self.backoff_until)
            || self.running().count() >= MAX_CONCURRENT.min(1 + self.consecutive_answers)
        {
            return None;
        }
        // Only the oldest turn of each conversation is eligible, and none while one is running.
        let mut seen: BTreeSet<_> = self.running().map(|one| one.conversation).collect();
        let firsts = self
            .slots
            .iter_mut()
            .filter(|(followup, _)| seen.insert(followup.conversation));
        let (followup, slot) =
            firsts.min_by_key(|(followup, slot)| (slot.unsuccessful, **followup))?;
        slot.is_running = true;
        self.next_at = now + self.pacing.next_interval(random);
        Some(*followup)
    }

    /// Records the outcome of a running turn. Returns `true` if the turn no longer waits.
    pub fn record_outcome(
        &mut self,
        followup: PendingFollowup,
        outcome: FollowupOutcome,
        now: Duration,
        random: f64,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(&followup) else {
            return false;
        };
        slot.is_running = false;
        slot.unsuccessful += u32::from(matches!(
            outcome,
            FollowupOutcome::Failed | FollowupOutcome::Skipped
        ));
        slot.failures += u32::from(outcome == FollowupOutcome::Failed);
        let is_over = matches!(
            outcome,
            FollowupOutcome::Answered | FollowupOutcome::Obsolete
        ) || slot.failures >= MAX_FAILURES;
        if is_over {
            self.slots.remove(&followup);
        }
        match outcome {
            FollowupOutcome::Answered => {
                self.consecutive_failures = 0;
                self.consecutive_answers += 1;
            }
            // No provider was called, so the next turn need not wait.
            FollowupOutcome::Obsolete => self.next_at = now,
            FollowupOutcome::Skipped => {}
            FollowupOutcome::Failed => {
                self.consecutive_failures += 1;
                self.consecutive_answers = 0;
                self.backoff_until = self
                    .backoff_until
                    .max(now + self.pacing.backoff(self.consecutive_failures, random));
            }
            FollowupOutcome::Deferred => {
                self.consecutive_answers = 0;
                self.backoff_until = self.backoff_until.max(now + self.pacing.backoff(1, random));
            }
        }
        is_over
    }

    /// Marks every turn as not running, after the loop that answered them panicked.
    pub fn reset_running(&mut self) {
        self.slots
            .values_mut()
            .for_each(|slot| slot.is_running = false);
    }

    fn running(&self) -> impl Iterator<Item = &PendingFollowup> {
        let running = self.slots.iter().filter(|(_, slot)| slot.is_running);
        running.map(|(followup, _)| followup)
    }
}

/// Returns `true` if a follow-up to this turn is still wanted at `now`: it has no AI's answer, was
/// not asked again, and is not too old.
///
/// `later` holds at least the conversation's turns after it. API calls never get a follow-up: the
/// caller learned of the failure at once.
pub fn is_still_wanted(record: &TurnRecord, later: &[TurnRecord], now: Timestamp) -> bool {
    let is_answered = record.state == TurnState::Done && !record.degraded;
    let is_retried = later
        .iter()
        .any(|other| other.retry_of == Some(record.turn));
    let is_expired = now.since(record.at) >= MAX_AGE;
    !(is_answered
        || record.followup.is_some()
        || is_retried
        || is_expired
        || record.client_msg_id.is_http_call())
}

/// Returns `true` if the turn ended with a complete answer of an AI.
pub fn is_complete_answer(record: &TurnRecord) -> bool {
    let is_complete = matches!(
        record.finish,
        Some(FinishReason::Stop | FinishReason::Length)
    );
    record.state == TurnState::Done && record.source == Some(AnswerSource::Ai) && is_complete
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
