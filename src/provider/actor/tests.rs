//! The actor with a scripted provider, on a paused clock.

mod admitting;
mod changing;
mod coming_back;
mod recovering;

use tokio::time::Instant;

use super::super::breaker::CallOutcome;
use super::super::paused_system::{Paused, advance, run_until_idle};
use super::super::scripted_client::{ScriptStep, fail_with, hang, rate_limited, reply};
use super::super::test_bench::{BenchOptions, ProviderBench};
use super::permit::Permit;
use super::*;
use crate::domain::{FinishReason, Timestamp};
use crate::store::{BreakerRecord, DocumentStore as _, MemoryStore};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn failed(fault: FaultKind) -> CallOutcome {
    CallOutcome::Failed {
        fault,
        had_text: false,
        retry_after: None,
    }
}

async fn call(bench: &ProviderBench, outcome: CallOutcome) {
    bench.try_acquire().await.unwrap().complete(outcome);
    run_until_idle().await;
}

/// Starts an actor and opens its breaker with five failures, for ten seconds.
async fn opened(plan: BenchOptions) -> ProviderBench {
    let bench = ProviderBench::standalone(plan);
    for _ in 0..5 {
        call(&bench, failed(FaultKind::ServerError)).await;
    }
    assert_eq!(bench.status().await.state, ProviderState::Open);
    bench
}

fn probe_count(bench: &ProviderBench) -> usize {
    bench.client.probes().len()
}

fn rejection(admitted: Result<Permit, AcquireRejection>) -> AcquireRejection {
    admitted.unwrap_err()
}
