//! One simulated instance, with the real breakers, retry budget and rules.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::peer_state::{PeerState, StaggeredRecovery};
use crate::config::RoutingStrategy;
use crate::domain::TokenEstimate;
use crate::provider::breaker::{Breaker, BreakerConfig};
use crate::router::ordering::{self, Candidate, OrderBy, RoutingConstraints};
use crate::router::retry_budget::RetryBudget;
use crate::router::retry_policy::{self, FailedAttempt, NextStep};

/// The providers. The first one is preferred, and fails.
pub const NAMES: [&str; 2] = ["preferred", "second"];

pub struct SimulatedInstance {
    pub breakers: [Breaker; 2],
    pub budget: RetryBudget,
    pub peer_state: PeerState,
    pub recovery: StaggeredRecovery,
    /// When the next probe is due. An alarm for another time is void.
    pub next_probe_at: Option<Duration>,
}

pub struct SimulatedTurn {
    pub failed_attempts: Vec<FailedAttempt>,
    pub retry_provider: Option<usize>,
}

impl SimulatedInstance {
    pub fn new() -> Self {
        Self {
            breakers: [
                Breaker::new(BreakerConfig::default()),
                Breaker::new(BreakerConfig::default()),
            ],
            budget: RetryBudget::new(0.2),
            peer_state: PeerState::default(),
            recovery: StaggeredRecovery::default(),
            next_probe_at: None,
        }
    }

    /// Returns the providers to try, best first, and whether to retry the last one instead.
    pub fn order(&mut self, turn: &SimulatedTurn, now: Duration) -> (Vec<usize>, bool) {
        let candidates = NAMES.map(|name| Candidate {
            name: name.into(),
            context_tokens: 0,
            weight: 1,
            prices: None,
            first_token_ms: None,
            has_call_in_flight: false,
        });
        let tried: Vec<Arc<str>> = turn
            .failed_attempts
            .iter()
            .map(|attempt| Arc::clone(&attempt.provider))
            .collect();
        let order = OrderBy {
            strategy: RoutingStrategy::Priority,
            random: 0.5,
            round_robin_next: 0,
        };
        let constraints = RoutingConstraints {
            token_estimate: TokenEstimate::default(),
            ..RoutingConstraints::default()
        };
        let others = ordering::order(&candidates, order, &constraints, &tried);
        let policy = retry_policy::RetryPolicy {
            max_attempts: 4,
            same_provider_retries: 1,
            max_retry_after: Duration::from_secs(2),
        };
        match retry_policy::next_step(&turn.failed_attempts, others.len(), policy) {
            NextStep::GiveUp => (Vec::new(), false),
            NextStep::NextProvider => (others, false),
            NextStep::RetrySame(_) => {
                let retry = self.budget.withdraw(now);
                (others, retry)
            }
        }
    }
}
