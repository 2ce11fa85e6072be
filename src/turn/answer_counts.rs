//! Counts how turns were answered. Readers compare two snapshots to get the numbers of a period.

use std::time::Duration;

use crate::domain::{AnswerSource, FinishReason, TurnRecord, TurnState};

/// The number of latency buckets. Each is a seventh longer than the one before, from 20 ms to about
/// five minutes.
const LATENCY_BUCKETS: usize = 72;

const FIRST_BUCKET_MS: f64 = 20.0;
const BUCKET_RATIO: f64 = 8.0 / 7.0;

/// The turns that ended since the start, or in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts {
    /// All finished turns, including those that count as nothing below.
    pub ended: u64,
    /// Answered by a provider or with a fresh cached answer.
    pub ai: u64,
    /// Answered with less than that.
    pub degraded: u64,
    /// The part of `degraded` that was answered with an expired cached answer.
    pub stale: u64,
    /// Not answered: the last attempt broke, or a shutdown interrupted the turn.
    pub lost: u64,
    /// Time to a provider's first text.
    pub first_token_latency: LatencyHistogram,
}

impl AnswerCounts {
    /// The difference to an earlier snapshot.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ended: self.ended.saturating_sub(earlier.ended),
            ai: self.ai.saturating_sub(earlier.ai),
            degraded: self.degraded.saturating_sub(earlier.degraded),
            stale: self.stale.saturating_sub(earlier.stale),
            lost: self.lost.saturating_sub(earlier.lost),
            first_token_latency: self
                .first_token_latency
                .zip_with(&earlier.first_token_latency, u64::saturating_sub),
        }
    }

    pub fn total(&self) -> u64 {
        self.ai + self.degraded + self.lost
    }

    /// The share of answers that came from AI. `None` before the first answer.
    pub fn availability(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a share, not a count")]
        (self.total() > 0).then(|| self.ai as f64 / self.total() as f64)
    }

    /// Counts a finished turn. `is_lost`: it did not get the answer that it should have had.
    ///
    /// Turns that were stopped or abandoned, and faulty requests, count as neither an answer nor
    /// lost.
    pub(super) fn add_turn(&mut self, record: &TurnRecord, is_lost: bool) {
        self.ended += 1;
        match record.state {
            _ if is_lost => self.lost += 1,
            _ if record.degraded => self.degraded += 1,
            TurnState::Done if record.finish != Some(FinishReason::Stopped) => self.ai += 1,
            TurnState::Done | TurnState::Running | TurnState::Interrupted => return,
        }
        self.stale += u64::from(record.source == Some(AnswerSource::StaleCache));
        if record.source == Some(AnswerSource::Ai)
            && let Some(ms) = record.first_token_ms
        {
            self.first_token_latency.record(Duration::from_millis(ms));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyHistogram([u64; LATENCY_BUCKETS]);

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self([0; LATENCY_BUCKETS])
    }
}

impl LatencyHistogram {
    pub fn record(&mut self, time: Duration) {
        if let Some(count) = self.0.get_mut(bucket_index(time)) {
            *count += 1;
        }
    }

    pub fn merged(&self, other: &Self) -> Self {
        self.zip_with(other, u64::saturating_add)
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The latency that a share of the calls did not exceed, in milliseconds: the middle of its
    /// bucket. `None` if the histogram is empty.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
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
        Some(FIRST_BUCKET_MS * BUCKET_RATIO.powi(bucket) / BUCKET_RATIO.sqrt())
    }

    fn zip_with(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
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
fn bucket_index(time: Duration) -> usize {
    let above = (time.as_secs_f64() * 1_000.0 / FIRST_BUCKET_MS).ln() / BUCKET_RATIO.ln();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped just before"
    )]
    let bucket = above.ceil().clamp(0.0, (LATENCY_BUCKETS - 1) as f64) as usize;
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClientMsgId, Timestamp, TurnId};

    #[test]
    fn quantile_is_within_a_bucket_of_the_latency() {
        for ms in [1, 20, 21, 150, 999, 5_000, 60_000, 250_000] {
            let mut histogram = LatencyHistogram::default();
            histogram.record(Duration::from_millis(ms));
            let quantile = histogram.quantile_ms(0.95).unwrap();
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let ratio = quantile / (ms as f64).max(FIRST_BUCKET_MS);
            assert!(
                (0.93..1.08).contains(&ratio),
                "{ms} ms is reported as {quantile}"
            );
        }
        assert_eq!(LatencyHistogram::default().quantile_ms(0.95), None);
    }

    #[test]
    fn quantile_separates_fast_and_slow_calls() {
        let mut histogram = LatencyHistogram::default();
        (0..95).for_each(|_| histogram.record(Duration::from_millis(100)));
        (0..5).for_each(|_| histogram.record(Duration::from_secs(10)));
        assert!(histogram.quantile_ms(0.95).unwrap() < 120.0);
        assert!(histogram.quantile_ms(0.96).unwrap() > 9_000.0);
        assert_eq!(
            (histogram.count(), histogram.merged(&histogram).count()),
            (100, 200)
        );
    }

    #[test]
    fn turns_are_counted_by_how_they_ended() {
        let mut counts = AnswerCounts::default();
        let turn = TurnId::next_after(None, 1, 1);
        let record = |source, finish| {
            let mut record = TurnRecord::new(
                turn,
                ClientMsgId::for_turn(turn),
                Timestamp(1),
                "?".into(),
                None,
            );
            record.state = TurnState::Done;
            record.source = Some(source);
            record.finish = Some(finish);
            record.first_token_ms = Some(300);
            record.degraded = source.is_degraded();
            record
        };
        counts.add_turn(&record(AnswerSource::Ai, FinishReason::Stop), false);
        let before = counts;
        counts.add_turn(&record(AnswerSource::StaleCache, FinishReason::Stop), false);
        counts.add_turn(&record(AnswerSource::Ai, FinishReason::Interrupted), true);
        counts.add_turn(&record(AnswerSource::Ai, FinishReason::Stopped), false);
        counts.add_turn(&record(AnswerSource::Cache, FinishReason::Stop), false);
        let since = counts.since(&before);
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
            since.first_token_latency.count(),
            1,
            "a cached answer has no first-token latency"
        );
        assert_eq!(counts.availability(), Some(0.5));
    }
}
