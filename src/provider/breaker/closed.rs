//! The closed state: what it counts, and when it trips.
//!
//! An attempt has two outcomes, each counted once, in its own statistics:
//!
//! - its start, among the calls: a first token is a success, a failure before it a failed call;
//! - its end, among the streams: a complete answer, or one that broke after its first token.
//!
//! So a broken answer is no failed call; its start was a success. Otherwise it would count twice,
//! and its first token would hide it from the consecutive failures anyway. Broken answers have the
//! stricter limit: three in a row.
//!
//! Only an outcome that worsens the statistics can trip the breaker. A success never does, whatever
//! expired from the window meanwhile.

use std::time::Duration;

use super::{BreakerConfig, TripReason, slow_calls::SlowCallDetector};
use crate::provider::sliding_window::SlidingWindow;

const MAX_CONSECUTIVE_BROKEN_STREAMS: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct ClosedState {
    /// No call is admitted before, because a rate limit is being waited out.
    pub(super) rate_limited_until: Duration,
    /// Until then, or until a first token, one hard failure opens the breaker: a peer is in
    /// trouble.
    pub(super) trip_on_first_failure_until: Duration,
    calls: FailureStats,
    streams: FailureStats,
    slow_calls: SlowCallDetector,
}

impl ClosedState {
    pub(super) fn new(rules: &BreakerConfig) -> Self {
        Self {
            rate_limited_until: Duration::ZERO,
            trip_on_first_failure_until: Duration::ZERO,
            calls: FailureStats::new(rules),
            streams: FailureStats::new(rules),
            slow_calls: SlowCallDetector::new(rules),
        }
    }

    /// Resets the counts for a new configuration. A rate limit and a warning stay.
    pub(super) fn reset_counts(&mut self, rules: &BreakerConfig) {
        self.calls = FailureStats::new(rules);
        self.streams = FailureStats::new(rules);
        self.slow_calls = SlowCallDetector::new(rules);
    }

    pub(super) fn record_first_token(
        &mut self,
        latency: Duration,
        now: Duration,
        rules: &BreakerConfig,
    ) -> Option<TripReason> {
        self.trip_on_first_failure_until = Duration::ZERO;
        self.calls.record_success(now);
        self.slow_calls
            .record(latency, now, rules)
            .then_some(TripReason::SlowCalls)
    }

    pub(super) fn on_stream_complete(&mut self, now: Duration) {
        self.streams.record_success(now);
    }

    /// Records a failure. A failure that is not `is_hard` counts towards the rate only.
    pub(super) fn on_failure(
        &mut self,
        is_hard: bool,
        had_text: bool,
        now: Duration,
        rules: &BreakerConfig,
    ) -> Option<TripReason> {
        if had_text {
            let max = MAX_CONSECUTIVE_BROKEN_STREAMS;
            self.streams.record_failure(now, is_hard);
            let has_tripped = is_hard && self.streams.consecutive_failures >= max
                || self
                    .streams
                    .rate_reaches(rules.stream_failure_rate, now, rules);
            return has_tripped.then_some(TripReason::BrokenStreams);
        }
        self.calls.record_failure(now, is_hard);
        if is_hard && self.calls.consecutive_failures >= rules.consecutive_failures {
            Some(TripReason::ConsecutiveFailures)
        } else if is_hard && now < self.trip_on_first_failure_until {
            Some(TripReason::PeerWarning)
        } else if self.calls.rate_reaches(rules.failure_rate, now, rules) {
            Some(TripReason::FailureRate)
        } else {
            None
        }
    }
}

#[derive(Clone, Debug)]
struct FailureStats {
    consecutive_failures: u32,
    window: SlidingWindow,
}

impl FailureStats {
    fn new(rules: &BreakerConfig) -> Self {
        Self {
            consecutive_failures: 0,
            window: SlidingWindow::new(rules.window),
        }
    }

    fn record_success(&mut self, now: Duration) {
        self.consecutive_failures = 0;
        self.window.record(now, false);
    }

    /// A soft failure leaves the consecutive failures as they are: it is no sign of health either.
    fn record_failure(&mut self, now: Duration, is_hard: bool) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(u32::from(is_hard));
        self.window.record(now, true);
    }

    fn rate_reaches(&self, rate: f64, now: Duration, rules: &BreakerConfig) -> bool {
        self.window.counts(now).rate_reaches(rate, rules.min_calls)
    }
}
