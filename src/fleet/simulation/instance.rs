//! One simulated instance, with the real breakers, retry budget and rules.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::Load;
use crate::fleet::known::{Known, Reliefs};
use crate::provider::breaker::{Breaker, Rules};
use crate::router::budget::Budget;
use crate::router::plan::{self, Failed, Next};
use crate::router::rank::{self, Candidate, Order, Wish};
use crate::settings::Strategy;

/// The providers. The first one is preferred, and fails.
pub const NAMES: [&str; 2] = ["preferred", "second"];

pub struct Instance {
    pub breakers: [Breaker; 2],
    pub budget: Budget,
    pub known: Known,
    pub reliefs: Reliefs,
    /// When the next probe is due. An alarm for another time is void.
    pub alarm: Option<Duration>,
}

pub struct Turn {
    pub failed: Vec<Failed>,
    pub again: Option<usize>,
}

impl Instance {
    pub fn new() -> Self {
        Self {
            breakers: [
                Breaker::new(Rules::default()),
                Breaker::new(Rules::default()),
            ],
            budget: Budget::new(0.2),
            known: Known::default(),
            reliefs: Reliefs::default(),
            alarm: None,
        }
    }

    /// Returns the providers to try, best first, and whether to retry the last one instead.
    pub fn order(&mut self, turn: &Turn, now: Duration) -> (Vec<usize>, bool) {
        let candidates = NAMES.map(|name| Candidate {
            name: name.into(),
            context_tokens: 0,
            weight: 1,
            prices: None,
            first_token_ms: None,
            asked: false,
        });
        let tried: Vec<Arc<str>> = turn
            .failed
            .iter()
            .map(|attempt| Arc::clone(&attempt.provider))
            .collect();
        let order = Order {
            strategy: Strategy::Priority,
            chance: 0.5,
            turn_of: 0,
        };
        let constraints = Wish {
            load: Load::default(),
            ..Wish::default()
        };
        let others = rank::order(&candidates, order, &constraints, &tried);
        let policy = plan::Rules {
            max_attempts: 4,
            same_provider: 1,
            max_retry_after: Duration::from_secs(2),
        };
        match plan::next(&turn.failed, others.len(), policy) {
            Next::Nobody => (Vec::new(), false),
            Next::Other => (others, false),
            Next::Again(_) => {
                let retry = self.budget.withdraw(now);
                (others, retry)
            }
        }
    }
}
