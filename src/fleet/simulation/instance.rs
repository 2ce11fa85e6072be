//! One instance of those that are played: its breakers and its budget, with the real rules.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::Load;
use crate::fleet::known::{Known, Reliefs};
use crate::provider::breaker::{Breaker, Rules};
use crate::router::budget::Budget;
use crate::router::plan::{self, Failed, Next};
use crate::router::rank::{self, Candidate, Order, Wish};
use crate::settings::Strategy;

/// The two providers; the first is preferred, and breaks.
pub const NAMES: [&str; 2] = ["preferred", "second"];

/// One instance.
pub struct Instance {
    /// Of both providers.
    pub breakers: [Breaker; 2],
    /// Of its retries.
    pub budget: Budget,
    /// What it heard.
    pub known: Known,
    /// When its breaker closes because another's probe went well.
    pub reliefs: Reliefs,
    /// When its next probe is due; an alarm of another moment is void.
    pub alarm: Option<Duration>,
}

/// A turn under way.
pub struct Turn {
    /// Its failed attempts.
    pub failed: Vec<Failed>,
    /// Whom it waits for to ask again.
    pub again: Option<usize>,
}

impl Instance {
    /// A fresh one.
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

    /// Whom the turn may ask now, best first; or that it asks the last one again, if the budget agrees.
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
            .map(|one| Arc::clone(&one.provider))
            .collect();
        let by = Order {
            strategy: Strategy::Priority,
            chance: 0.5,
            turn_of: 0,
        };
        let wish = Wish {
            load: Load::default(),
            ..Wish::default()
        };
        let others = rank::order(&candidates, by, &wish, &tried);
        let rules = plan::Rules {
            max_attempts: 4,
            same_provider: 1,
            max_retry_after: Duration::from_secs(2),
        };
        match plan::next(&turn.failed, others.len(), rules) {
            Next::Nobody => (Vec::new(), false),
            Next::Other => (others, false),
            Next::Again(_) => {
                let again = self.budget.withdraw(now);
                (others, again)
            }
        }
    }
}
