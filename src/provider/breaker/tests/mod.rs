//! A sentence of the rules, a table or a scene that holds it.

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

/// The middle of every draw: waits are as long as they are said to be.
const EVEN: f64 = 0.5;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failed(fault: Fault) -> Verdict {
    failed_asking(fault, None)
}

fn failed_asking(fault: Fault, retry_after: Option<Duration>) -> Verdict {
    Verdict::Failed {
        fault,
        started: false,
        retry_after,
    }
}

fn broke(fault: Fault) -> Verdict {
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

/// A breaker and its time.
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

    /// One that five failures have opened, for ten seconds.
    fn opened(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        bench.opens_by_five();
        bench
    }

    /// One whose open time has ended.
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

    fn opens_by_five(&mut self) {
        (0..4).for_each(|_| assert_eq!(self.visit(failed(Fault::ServerError)), None));
        self.visit(failed(Fault::ServerError)).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ticket(&mut self, who: Who) -> Ticket {
        self.breaker.admit(self.now, who).unwrap()
    }

    fn refused(&mut self, who: Who) -> bool {
        self.breaker.admit(self.now, who).is_err()
    }

    fn settle(&mut self, ticket: Ticket, verdict: Verdict) -> Option<Transition> {
        self.breaker.settle(ticket, verdict, self.now, EVEN)
    }

    /// A visitor's call that ends so, with a first token before where that belongs to it.
    fn visit(&mut self, verdict: Verdict) -> Option<Transition> {
        self.call(Who::Visitor, verdict)
    }

    fn probe(&mut self, verdict: Verdict) -> Option<Transition> {
        self.call(Who::Probe, verdict)
    }

    fn call(&mut self, who: Who, verdict: Verdict) -> Option<Transition> {
        let ticket = self.ticket(who);
        if matches!(
            verdict,
            Verdict::Whole | Verdict::Failed { started: true, .. }
        ) {
            let latency = Duration::from_millis(300);
            assert_eq!(
                self.breaker.first_token(ticket, latency, self.now, EVEN),
                None
            );
        }
        self.settle(ticket, verdict)
    }

    fn state(&self) -> ProviderState {
        self.view().state
    }

    fn view(&self) -> View {
        self.breaker.view(self.now)
    }

    fn waits(&self) -> Option<Duration> {
        self.view().retry_at.map(|at| at - self.now)
    }
}

fn visitors_probe() -> Rules {
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
