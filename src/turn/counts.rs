//! What was answered since the start: counted once a turn, read by whoever wants to know what a stretch of time brought.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::chat::{Finish, Source, TurnRecord, TurnState};

/// Steps of the times to first words: each a seventh longer than the one before, from 20 ms to about five minutes.
pub const STEPS: usize = 72;

const SHORTEST_MS: f64 = 20.0;
const STEP: f64 = 8.0 / 7.0;

/// Answers since the start. A few hundred bytes, no locks.
#[derive(Debug)]
pub struct Counts {
    /// Turns that ended.
    pub ended: AtomicU64,
    /// Of those, answered by a provider, or by a fresh saved answer.
    pub ai: AtomicU64,
    /// Of those, answered with less.
    pub degraded: AtomicU64,
    /// Of the degraded, by an old saved answer.
    pub stale: AtomicU64,
    /// Of those, not answered: torn, or cut off by a drain that was too short.
    pub lost: AtomicU64,
    /// How long visitors waited for a provider's first words, by steps.
    first_words: [AtomicU64; STEPS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            ended: AtomicU64::default(),
            ai: AtomicU64::default(),
            degraded: AtomicU64::default(),
            stale: AtomicU64::default(),
            lost: AtomicU64::default(),
            first_words: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

/// What a stretch of time brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Answered by a provider, or by a fresh saved answer.
    pub ai: u64,
    /// Answered with less.
    pub degraded: u64,
    /// Of the degraded, by an old saved answer.
    pub stale: u64,
    /// Not answered.
    pub lost: u64,
    /// Times to a provider's first words.
    pub first_words: Times,
}

impl Served {
    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ai: self.ai.saturating_sub(earlier.ai),
            degraded: self.degraded.saturating_sub(earlier.degraded),
            stale: self.stale.saturating_sub(earlier.stale),
            lost: self.lost.saturating_sub(earlier.lost),
            first_words: self
                .first_words
                .zip(&earlier.first_words, u64::saturating_sub),
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.ai + self.degraded + self.lost
    }
}

/// How many of a kind of time fell into each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times([u64; STEPS]);

impl Default for Times {
    fn default() -> Self {
        Self([0; STEPS])
    }
}

impl Times {
    /// One more.
    pub fn note(&mut self, time: Duration) {
        if let Some(count) = self.0.get_mut(step(time)) {
            *count += 1;
        }
    }

    /// These and those.
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What this share of them stayed within, in milliseconds: the middle of its step. None where there are none.
    pub fn within(&self, share: f64) -> Option<f64> {
        let all = self.count();
        #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
        let wanted = (all as f64 * share).ceil().max(1.0);
        let mut seen = 0;
        let step = self.0.iter().position(|count| {
            seen += count;
            #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
            let enough = seen as f64 >= wanted;
            enough
        });
        let step = i32::try_from(step?).ok()?;
        Some(SHORTEST_MS * STEP.powi(step) / STEP.sqrt())
    }

    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut both = *self;
        both.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(one, other)| *one = with(*one, other));
        both
    }
}

/// The step that a time falls into: the first whose end is not before it.
fn step(time: Duration) -> usize {
    let above = (time.as_secs_f64() * 1_000.0 / SHORTEST_MS).ln() / STEP.ln();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped just before"
    )]
    let step = above.ceil().clamp(0.0, (STEPS - 1) as f64) as usize;
    step
}

impl Counts {
    /// One more turn ended. `lost`: without the answer that it should have had. Neither an answer nor lost is what was stopped, what nobody
    /// waited for, and a request that was wrong in itself.
    pub fn count(&self, record: &TurnRecord, lost: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let kind = match record.state {
            _ if lost => &self.lost,
            _ if record.degraded => &self.degraded,
            TurnState::Done if record.finish != Some(Finish::Stopped) => &self.ai,
            TurnState::Done | TurnState::Running | TurnState::Interrupted => return,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        if record.source == Some(Source::StaleCache) {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
        if record.source == Some(Source::Ai)
            && let Some(ms) = record.first_token_ms
            && let Some(count) = self.first_words.get(step(Duration::from_millis(ms)))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of it, as it is now.
    pub fn read(&self) -> Served {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Served {
            ai: read(&self.ai),
            degraded: read(&self.degraded),
            stale: read(&self.stale),
            lost: read(&self.lost),
            first_words: Times(std::array::from_fn(|step| {
                self.first_words.get(step).map_or(0, read)
            })),
        }
    }

    /// The share of answers that were of AI; none while there is none.
    pub fn availability(&self) -> Option<f64> {
        let served = self.read();
        #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
        (served.total() > 0).then(|| served.ai as f64 / served.total() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{At, ClientMsgId, TurnId};

    #[test]
    fn times_are_told_to_within_a_step() {
        for ms in [1, 20, 21, 150, 999, 5_000, 60_000, 250_000] {
            let mut times = Times::default();
            times.note(Duration::from_millis(ms));
            let told = times.within(0.95).unwrap();
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let ratio = told / (ms as f64).max(SHORTEST_MS);
            assert!((0.93..1.08).contains(&ratio), "{ms} ms is told as {told}");
        }
        assert_eq!(Times::default().within(0.95), None);
    }

    #[test]
    fn a_share_stays_within() {
        let mut times = Times::default();
        (0..95).for_each(|_| times.note(Duration::from_millis(100)));
        (0..5).for_each(|_| times.note(Duration::from_secs(10)));
        assert!(times.within(0.95).unwrap() < 120.0);
        assert!(times.within(0.96).unwrap() > 9_000.0);
        assert_eq!((times.count(), times.plus(&times).count()), (100, 200));
    }

    #[test]
    fn a_turn_counts_by_how_it_ended() {
        let counts = Counts::default();
        let turn = TurnId::after(None, 1, 1);
        let record = |source, finish| {
            let mut record =
                TurnRecord::asked(turn, ClientMsgId::of_turn(turn), At(1), "?".into(), None);
            record.state = TurnState::Done;
            (record.source, record.finish, record.first_token_ms) =
                (Some(source), Some(finish), Some(300));
            record.degraded = source.degraded();
            record
        };
        counts.count(&record(Source::Ai, Finish::Stop), false);
        let before = counts.read();
        counts.count(&record(Source::StaleCache, Finish::Stop), false);
        counts.count(&record(Source::Ai, Finish::Interrupted), true);
        counts.count(&record(Source::Ai, Finish::Stopped), false);
        counts.count(&record(Source::Cache, Finish::Stop), false);
        let since = counts.read().since(&before);
        assert_eq!(
            (
                since.ai,
                since.degraded,
                since.stale,
                since.lost,
                since.total()
            ),
            (1, 1, 1, 1, 3)
        );
        assert_eq!(
            since.first_words.count(),
            1,
            "a saved answer's is no provider's"
        );
        assert_eq!(counts.availability(), Some(0.5));
    }
}
