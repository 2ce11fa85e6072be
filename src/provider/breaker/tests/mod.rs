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
use crate::chat::ProviderState;

/// The middle of every draw, so that durations have no jitter.
const NO_JITTER: f64 = 0.5;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failed(fault: Fault) -> Verdict {
    failed_with_retry_after(fault, None)
}

fn failed_with_retry_after(fault: Fault, retry_after: Option<Duration>) -> Verdict {
    Verdict::Failed {
        fault,
        started: false,
        retry_after,
    }
}

fn broken_stream(fault: Fault) -> Verdict {
    Verdict::Failed {
        fault,
        started: true,
        retry_after: None,
    }
}

fn faults(weight: Weight) -> impl Iterator<Item = Fault> {
    Fault::ALL
        .into_iter()
        .filter(move |fault| fault.weight() == weight)
}

struct Bench {
    breaker: Breaker,
    now: Duration,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self {
            breaker: Breaker::new(rules),
            now: s(1_000),
        }
    }

    /// Opened by five failures, for ten seconds.
    fn opened(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        bench.open_by_five_failures();
        bench
    }

    /// After the end of the open time.
    fn half_open(rules: Rules) -> Self {
        let mut bench = Self::opened(rules);
        bench.pass(s(10));
        bench
    }

    fn blocked(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        bench.visit(failed(Fault::Unauthorized)).unwrap();
        bench
    }

    fn open_by_five_failures(&mut self) {
        (0..4).for_each(|_| assert_eq!(self.visit(failed(Fault::ServerError)), None));
        self.visit(failed(Fault::ServerError)).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ticket(&mut self, origin: Who) -> Ticket {
        self.breaker.admit(self.now, origin).unwrap()
    }

    fn rejects(&mut self, origin: Who) -> bool {
        self.breaker.admit(self.now, origin).is_err()
    }

    fn settle(&mut self, ticket: Ticket, outcome: Verdict) -> Option<Transition> {
        self.breaker.settle(ticket, outcome, self.now, NO_JITTER)
    }

    /// Makes a visitor's call with this outcome, including a first token if it implies one.
    fn visit(&mut self, outcome: Verdict) -> Option<Transition> {
        self.call(Who::Visitor, outcome)
    }

    fn probe(&mut self, outcome: Verdict) -> Option<Transition> {
        self.call(Who::Probe, outcome)
    }

    fn call(&mut self, origin: Who, outcome: Verdict) -> Option<Transition> {
        let ticket = self.ticket(origin);
        if matches!(
            outcome,
            Verdict::Whole | Verdict::Failed { started: true, .. }
        ) {
            let latency = Duration::from_millis(300);
            assert_eq!(
                self.breaker
                    .first_token(ticket, latency, self.now, NO_JITTER),
                None
            );
        }
        self.settle(ticket, outcome)
    }

    fn state(&self) -> ProviderState {
        self.view().state
    }

    fn view(&self) -> View {
        self.breaker.view(self.now)
    }

    fn remaining_wait(&self) -> Option<Duration> {
        self.view().retry_at.map(|at| at - self.now)
    }
}

fn probed_by_visitors() -> Rules {
    Rules {
        recovery_probe: false,
        ..Rules::default()
    }
}

fn three_probes() -> Rules {
    Rules {
        probes: 3,
        ..Rules::default()
    }
}
