//! The actor with a scripted provider, on a paused clock.

mod admitting;
mod changing;
mod coming_back;
mod recovering;

use tokio::time::Instant;

use super::super::paused::{Paused, pass, settled};
use super::super::permit::Permit;
use super::super::scripted::{Act, fails, limited, says, silent};
use super::super::stand::{Plan, Stand};
use super::*;
use crate::chat::{At, Finish};
use crate::store::{BreakerRecord, MemoryStore};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn failed(fault: Fault) -> Verdict {
    Verdict::Failed {
        fault,
        started: false,
        retry_after: None,
    }
}

async fn call(stand: &Stand, outcome: Verdict) {
    stand.admit().await.unwrap().settle(outcome);
    settled().await;
}

/// Starts an actor and opens its breaker with five failures, for ten seconds.
async fn opened(plan: Plan) -> Stand {
    let stand = Stand::alone(plan);
    for _ in 0..5 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    assert_eq!(stand.vitals().await.state, ProviderState::Open);
    stand
}

fn probe_count(stand: &Stand) -> usize {
    stand.upstream.probes().len()
}

fn rejection(admitted: Result<Permit, Refusal>) -> Refusal {
    admitted.unwrap_err()
}
