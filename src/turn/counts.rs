//! Counts how turns were answered since the start. Readers compare two snapshots to get the numbers
//! of a period.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::chat::{Finish, Source, TurnRecord, TurnState};

/// The number of latency buckets. Each is a seventh longer than the one before, from 20 ms to about
/// five minutes.
pub const STEPS: usize = 72;

const SHORTEST_MS: f64 = 20.0;
const STEP: f64 = 8.0 / 7.0;

/// Lock-free counters of a few hundred bytes.
#[derive(Debug)]
pub struct Counts {
    /// All finished turns, including those that count as nothing below.
    pub ended: AtomicU64,
    /// Answered by a provider or with a fresh cached answer.
    pub ai: AtomicU64,
    /// Answered with less than that.
    pub degraded: AtomicU64,
    /// The part of `degraded` that was answered with an expired cached answer.
    pub stale: AtomicU64,
    /// Not answered: the last attempt broke, or a shutdown interrupted the turn.
    pub lost: AtomicU64,
    /// Time to a provider's first text, by bucket.
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

/// The difference of two snapshots of [`AnswerCounters`], or a snapshot itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub ai: u64,
    pub degraded: u64,
    pub stale: u64,
    pub lost: u64,
    pub first_words: Times,
}

impl Served {
    /// The difference to an earlier snapshot.
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

    pub fn total(&self) -> u64 {
        self.ai + self.degraded + self.lost
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times([u64; STEPS]);

impl Default for Times {
    fn default() -> Self {
        Self([0; STEPS])
    }
}

impl Times {
    pub fn note(&mut self, time: Duration) {
        if let Some(count) = self.0.get_mut(step(time)) {
            *count += 1;
        }
    }

    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The latency that a share of the calls did not exceed, in milliseconds: the middle of its
    /// bucket. `None` if the histogram is empty.
    pub fn within(&self, share: f64) -> Option<f64> {
        let total = self.count();
        #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
        let rank = (total as f64 * share).ceil().max(1.0);
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
            let is_reached = seen as f64 >= rank;
            is_reached
        });
        let bucket = i32::try_from(bucket?).ok()?;
        Some(SHORTEST_MS * STEP.powi(bucket) / STEP.sqrt())
    }

    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = *self;
        result
            .0
            .iter_mut()
            .zip(other.0)
            .for_each(|(count, other)| *count = with(*count, other));
        result
    }
}

/// The bucket of a latency: the first whose upper limit is not below it.
fn step(time: Duration) -> usize {
    let above = (time.as_secs_f64() * 1_000.0 / SHORTEST_MS).ln() / STEP.ln();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped just before"
    )]
    let bucket = above.ceil().clamp(0.0, (STEPS - 1) as f64) as usize;
    bucket
}

impl Counts {
    /// Counts a finished turn. `is_lost`: it did not get the answer that it should have had.
    ///
    /// Turns that were stopped or abandoned, and faulty requests, count as neither an answer nor
    /// lost.
    pub fn count(&self, record: &TurnRecord, is_lost: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let kind = match record.state {
            _ if is_lost => &self.lost,
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

    pub fn read(&self) -> Served {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Served {
            ai: read(&self.ai),
            degraded: read(&self.degraded),
            stale: read(&self.stale),
            lost: read(&self.lost),
            first_words: Times(std::array::from_fn(|bucket| {
                self.first_words.get(bucket).map_or(0, read)
            })),
        }
    }

    /// The share of answers that came from AI. `None` before the first answer.
    pub fn availability(&self) -> Option<f64> {
        let counts = self.read();
        #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
        (counts.total() > 0).then(|| counts.ai as f64 / counts.total() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{At, ClientMsgId, TurnId};

    #[test]
    fn quantile_is_within_a_bucket_of_the_latency() {
        for ms in [1, 20, 21, 150, 999, 5_000, 60_000, 250_000] {
            let mut histogram = Times::default();
            histogram.note(Duration::from_millis(ms));
            let quantile = histogram.within(0.95).unwrap();
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let ratio = quantile / (ms as f64).max(SHORTEST_MS);
            assert!(
                (0.93..1.08).contains(&ratio),
                "{ms} ms is reported as {quantile}"
            );
        }
        assert_eq!(Times::default().within(0.95), None);
    }

    #[test]
    fn quantile_separates_fast_and_slow_calls() {
        let mut histogram = Times::default();
        (0..95).for_each(|_| histogram.note(Duration::from_millis(100)));
        (0..5).for_each(|_| histogram.note(Duration::from_secs(10)));
        assert!(histogram.within(0.95).unwrap() < 120.0);
        assert!(histogram.within(0.96).unwrap() > 9_000.0);
        assert_eq!(
            (histogram.count(), histogram.plus(&histogram).count()),
            (100, 200)
        );
    }

    #[test]
    fn turns_are_counted_by_how_they_ended() {
        let counts = Counts::default();
        let turn = TurnId::after(None, 1, 1);
        let record = |source, finish| {
            let mut record =
                TurnRecord::asked(turn, ClientMsgId::of_turn(turn), At(1), "?".into(), None);
            record.state = TurnState::Done;
            record.source = Some(source);
            record.finish = Some(finish);
            record.first_token_ms = Some(300);
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
            "a cached answer has no first-token latency"
        );
        assert_eq!(counts.availability(), Some(0.5));
    }
}
