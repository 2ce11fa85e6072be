//! Tests of the breaker, each with a table or a scene per rule.

mod memory;
mod model;
mod opening;
mod recovery;
mod sequences;
mod steps;
mod told;

use std::time::Duration;

use super::*;
use crate::domain::ProviderState;

/// The middle of every draw, so that durations have no jitter.
const NO_JITTER: f64 = 0.5;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failed(fault: FaultKind) -> CallOutcome {
    failed_with_retry_after(fault, None)
}

fn failed_with_retry_after(fault: FaultKind, retry_after: Option<Duration>) -> CallOutcome {
    CallOutcome::Failed {
        fault,
        had_text: false,
        retry_after,
    }
}

fn broken_stream(fault: FaultKind) -> CallOutcome {
    CallOutcome::Failed {
        fault,
        had_text: true,
        retry_after: None,
    }
}

fn faults(weight: BreakerImpact) -> impl Iterator<Item = FaultKind> {
    FaultKind::ALL
        .into_iter()
        .filter(move |fault| fault.breaker_impact() == weight)
}

struct Bench {
    breaker: Breaker,
    now: Duration,
}

impl Bench {
    fn new(rules: BreakerConfig) -> Self {
        Self {
            breaker: Breaker::new(rules),
            now: s(1_000),
        }
    }

    /// Opened by five failures, for ten seconds.
    fn opened(rules: BreakerConfig) -> Self {
        let mut bench = Self::new(rules);
        bench.open_by_five_failures();
        bench
    }

    /// After the end of the open time.
    fn half_open(rules: BreakerConfig) -> Self {
        let mut bench = Self::opened(rules);
        bench.pass(s(10));
        bench
    }

    fn blocked(rules: BreakerConfig) -> Self {
        let mut bench = Self::new(rules);
        bench.visit(failed(FaultKind::Unauthorized)).unwrap();
        bench
    }

    fn open_by_five_failures(&mut self) {
        (0..4).for_each(|_| assert_eq!(self.visit(failed(FaultKind::ServerError)), None));
        self.visit(failed(FaultKind::ServerError)).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ticket(&mut self, origin: CallOrigin) -> Ticket {
        self.breaker.admit(self.now, origin).unwrap()
    }

    fn rejects(&mut self, origin: CallOrigin) -> bool {
        self.breaker.admit(self.now, origin).is_err()
    }

    fn settle(&mut self, ticket: Ticket, outcome: CallOutcome) -> Option<Transition> {
        self.breaker
            .record_outcome(ticket, outcome, self.now, NO_JITTER)
    }

    /// Makes a visitor's call with this outcome, including a first token if it implies one.
    fn visit(&mut self, outcome: CallOutcome) -> Option<Transition> {
        self.call(CallOrigin::Turn, outcome)
    }

    fn probe(&mut self, outcome: CallOutcome) -> Option<Transition> {
        self.call(CallOrigin::Probe, outcome)
    }

    fn call(&mut self, origin: CallOrigin, outcome: CallOutcome) -> Option<Transition> {
        let ticket = self.ticket(origin);
        if matches!(
            outcome,
            CallOutcome::Success | CallOutcome::Failed { had_text: true, .. }
        ) {
            let latency = Duration::from_millis(300);
            assert_eq!(
                self.breaker
                    .record_first_token(ticket, latency, self.now, NO_JITTER),
                None
            );
        }
        self.settle(ticket, outcome)
    }

    fn state(&self) -> ProviderState {
        self.view().state
    }

    fn view(&self) -> BreakerView {
        self.breaker.view(self.now)
    }

    fn remaining_wait(&self) -> Option<Duration> {
        self.view().retry_at.map(|at| at - self.now)
    }
}

fn probed_by_visitors() -> BreakerConfig {
    BreakerConfig {
        recovery_probe: false,
        ..BreakerConfig::default()
    }
}

fn three_probes() -> BreakerConfig {
    BreakerConfig {
        probes: 3,
        ..BreakerConfig::default()
    }
}

impl BreakerView {
    /// Returns the snapshot, or `None` if the breaker is closed. Its times are only valid in this
    /// process.
    fn snapshot(&self) -> Option<BreakerSnapshot> {
        (self.state != ProviderState::Closed).then_some(BreakerSnapshot {
            failed_probes: self.failed_probes,
            retry_at: self.retry_at.unwrap_or(self.since),
            is_blocked: self.state == ProviderState::Blocked,
            fault: self.fault,
        })
    }
}
