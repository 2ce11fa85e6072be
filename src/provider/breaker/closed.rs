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

use super::{Cause, Rules, slow::Slow};
use crate::provider::window::Window;

const BROKEN_IN_A_ROW: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Closed {
    /// No call is admitted before, because a rate limit is being waited out.
    pub(super) held_until: Duration,
    /// Until then, or until a first token, one hard failure opens the breaker: a peer is in
    /// trouble.
    pub(super) wary_until: Duration,
    calls: Record,
    streams: Record,
    slow: Slow,
}

impl Closed {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            held_until: Duration::ZERO,
            wary_until: Duration::ZERO,
            calls: Record::new(rules),
            streams: Record::new(rules),
            slow: Slow::new(rules),
        }
    }

    /// Resets the counts for a new configuration. A rate limit and a warning stay.
    pub(super) fn recount(&mut self, rules: &Rules) {
        let Self {
            held_until,
            wary_until,
            ..
        } = *self;
        *self = Self {
            held_until,
            wary_until,
            ..Self::new(rules)
        };
    }

    pub(super) fn first_token(
        &mut self,
        latency: Duration,
        now: Duration,
        rules: &Rules,
    ) -> Option<Cause> {
        self.wary_until = Duration::ZERO;
        self.calls.went_well(now);
        self.slow.record(latency, now, rules).then_some(Cause::Slow)
    }

    pub(super) fn whole(&mut self, now: Duration) {
        self.streams.went_well(now);
    }

    /// Records a failure. A failure that is not `is_hard` counts towards the rate only.
    pub(super) fn failed(
        &mut self,
        is_hard: bool,
        started: bool,
        now: Duration,
        rules: &Rules,
    ) -> Option<Cause> {
        let is_warned = now < self.wary_until;
        let (stats, max_consecutive, max_rate) = if started {
            (
                &mut self.streams,
                BROKEN_IN_A_ROW,
                rules.stream_failure_rate,
            )
        } else {
            (
                &mut self.calls,
                rules.consecutive_failures,
                rules.failure_rate,
            )
        };
        stats.went_badly(now, is_hard);
        let cause = if is_hard && stats.run >= max_consecutive {
            Cause::Run
        } else if is_hard && !started && is_warned {
            Cause::Warned
        } else if stats.window.tally(now).reaches(max_rate, rules.min_calls) {
            Cause::Rate
        } else {
            return None;
        };
        Some(if started { Cause::Streams } else { cause })
    }
}

#[derive(Clone, Debug)]
struct Record {
    run: u32,
    window: Window,
}

impl Record {
    fn new(rules: &Rules) -> Self {
        Self {
            run: 0,
            window: Window::new(rules.window),
        }
    }

    fn went_well(&mut self, now: Duration) {
        self.run = 0;
        self.window.record(now, false);
    }

    /// A soft failure leaves the consecutive failures as they are: it is no sign of health either.
    fn went_badly(&mut self, now: Duration, is_hard: bool) {
        self.run = self.run.saturating_add(u32::from(is_hard));
        self.window.record(now, true);
    }
}
