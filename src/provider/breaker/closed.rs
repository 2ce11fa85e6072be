//! The closed breaker: what it counts, and when that is too much.
//!
//! An attempt has two verdicts, and each is counted once, in a record of its own:
//!
//! - its beginning, among the calls: a first token is a call that went well, a failure before it one that went badly;
//! - its end, among the streams: an answer that came whole, or one that broke after its first token.
//!
//! So an answer that broke is no failed call: to the run and the rate of calls it was one that went well. It would otherwise count
//! twice, and its first token would hide it from the run anyway. Broken answers have the stricter limits: three in a row.
//!
//! Only a verdict that makes a record worse can trip on it; a good call never does, whatever slid out of the window meanwhile.

use std::time::Duration;

use super::{Cause, Rules, slow::Slow};
use crate::provider::window::Window;

/// Answers in a row that break after they started, and open the breaker.
const BROKEN_IN_A_ROW: u32 = 3;

/// What a closed breaker knows.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    /// No admissions before: a rate limit is waited out.
    pub(super) held_until: Duration,
    /// Until then one hard failure is enough to open it, unless a first token comes before: others are in trouble.
    pub(super) wary_until: Duration,
    calls: Record,
    streams: Record,
    slow: Slow,
}

impl Closed {
    /// With nothing counted.
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            held_until: Duration::ZERO,
            wary_until: Duration::ZERO,
            calls: Record::new(rules),
            streams: Record::new(rules),
            slow: Slow::new(rules),
        }
    }

    /// Counts afresh, by these rules; a hold stays, and so does a warning.
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

    /// A first token came after `latency`.
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

    /// An answer ended, whole.
    pub(super) fn whole(&mut self, now: Duration) {
        self.streams.went_well(now);
    }

    /// A call failed, after its first token (`started`) or before. One that is not `hard` counts to the rate alone.
    pub(super) fn failed(
        &mut self,
        hard: bool,
        started: bool,
        now: Duration,
        rules: &Rules,
    ) -> Option<Cause> {
        let wary = now < self.wary_until;
        let (record, in_a_row, rate) = if started {
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
        record.went_badly(now, hard);
        let cause = if hard && record.run >= in_a_row {
            Cause::Run
        } else if hard && !started && wary {
            Cause::Warned
        } else if record.window.tally(now).reaches(rate, rules.min_calls) {
            Cause::Rate
        } else {
            return None;
        };
        Some(if started { Cause::Streams } else { cause })
    }
}

/// A run of bad ones, and the rate of them.
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

    /// One that is not hard leaves the run as it is: it is no proof of health either.
    fn went_badly(&mut self, now: Duration, hard: bool) {
        self.run = self.run.saturating_add(u32::from(hard));
        self.window.record(now, true);
    }
}
