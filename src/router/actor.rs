//! The RouterActor: who is asked next, and whether anyone is, also in mid-answer.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};

use super::backoff::Backoff;
use super::budget::Budget;
use super::plan::{self, Failed, Next};
use super::rank::{self, Candidate, Wish};
use crate::chat::Class;
use crate::provider::actor::{Admit, Refusal};
use crate::provider::backend::{Backend, Clock};
use crate::provider::permit::Permit;
use crate::supervised::{Crash, Guard};

/// How long an answer of another actor is waited for; then its provider counts as busy.
pub const ACTOR_LIMIT: Duration = Duration::from_millis(50);

/// Picks who is asked next, knowing how the turn's attempts so far failed.
#[derive(Debug, Message)]
#[rtype(result = "Route")]
pub struct Pick {
    /// The attempts so far, in order; none for a new turn.
    pub failed: Arc<[Failed]>,
    /// Ask this provider first.
    pub first: Option<Arc<str>>,
    /// And nobody else.
    pub only_first: bool,
    /// The wait that the last answer asked for is over.
    pub waited: bool,
    /// How many of the attempts were made before the history was halved: whom it was too long for then may be asked again. 0 where
    /// it was not.
    pub before_halving: usize,
}

/// Where a turn goes.
pub enum Route {
    /// To this provider.
    Go(Lease),
    /// To the same provider again, after this long: wait, then pick again with `waited`.
    Wait(Duration),
    /// Nowhere: the ladder.
    Nobody {
        /// When the first of them may be asked again, in time from now.
        retry_after: Option<Duration>,
    },
}

/// Leave to make one attempt.
pub struct Lease {
    /// To be settled with how it ended.
    pub permit: Permit,
    /// Whom to ask.
    pub backend: Arc<Backend>,
    /// The attempt's number in its turn, from 1.
    pub attempt: u32,
}

/// The measures of the router.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Of the plan; the retries on one provider are the provider's own.
    pub max_attempts: u32,
    /// The longest `Retry-After` that is waited for.
    pub max_retry_after: Duration,
    /// The waits before retries.
    pub backoff: Backoff,
    /// Retries a turn, over all turns.
    pub budget: f64,
}

/// What a RouterActor is made of, and made of again after a panic.
#[derive(Clone)]
pub struct Seed {
    /// The backends in order of preference.
    pub backends: Arc<[Arc<Backend>]>,
    /// The measures.
    pub rules: Rules,
    /// The clocks.
    pub clock: Clock,
    /// A random number in 0..1.
    pub chance: fn() -> f64,
}

/// Owns the order of providers and the retry budget.
pub struct RouterActor {
    seed: Seed,
    candidates: Vec<Candidate>,
    budget: Budget,
    _guard: Guard,
}

impl RouterActor {
    /// A new actor, with a fresh retry budget.
    pub fn new(seed: Seed, guard: Guard) -> Self {
        let candidate = |backend: &Arc<Backend>| Candidate {
            name: Arc::clone(&backend.name),
            context_tokens: backend.context_tokens,
        };
        let candidates = seed.backends.iter().map(candidate).collect();
        let budget = Budget::new(seed.rules.budget);
        Self { seed, candidates, budget, _guard: guard }
    }

    /// Whether the same provider is asked once more, and after what wait.
    fn again(&mut self, wait: Option<Duration>, failed: &[Failed]) -> Option<Duration> {
        if !self.budget.withdraw(self.seed.clock.now()) {
            return None;
        }
        let made = u32::try_from(failed.len()).unwrap_or(u32::MAX).saturating_sub(1);
        Some(wait.unwrap_or_else(|| self.seed.rules.backoff.wait(made, (self.seed.chance)())))
    }

    /// Those to ask, best first, or the wait before the same one is asked again.
    fn decide(&mut self, pick: &Pick) -> Result<Vec<Arc<Backend>>, Route> {
        let backend = |name: &Arc<str>| self.seed.backends.iter().find(|one| one.name == *name).cloned();
        let last = pick.failed.last().and_then(|one| backend(&one.provider));
        let (before, since) =
            pick.failed.split_at_checked(pick.before_halving).unwrap_or((&pick.failed, &[]));
        let forgiven = |one: &&Failed| one.failure.fault.class() == Class::MoreRoom;
        let tried = before.iter().filter(|one| !forgiven(one)).chain(since);
        let tried: Vec<_> = tried.map(|one| Arc::clone(&one.provider)).collect();
        let wish = Wish {
            first: pick.first.clone(),
            only_first: pick.only_first,
            more_room_than: plan::outgrown(since),
        };
        let others = self.ordered(&wish, &tried);
        if pick.waited {
            // The others stand behind it: its breaker may have opened during the wait.
            return Ok(last.into_iter().chain(others).collect());
        }
        let rules = plan::Rules {
            max_attempts: self.seed.rules.max_attempts,
            same_provider: last.map_or(0, |backend| backend.same_provider),
            max_retry_after: self.seed.rules.max_retry_after,
        };
        match plan::next(&pick.failed, others.len(), rules) {
            Next::Nobody => Err(Route::Nobody { retry_after: None }),
            Next::Other => Ok(others),
            Next::Again(wait) => match self.again(wait, &pick.failed) {
                Some(wait) => Err(Route::Wait(wait)),
                None => Ok(others),
            },
        }
    }

    fn ordered(&self, wish: &Wish, tried: &[Arc<str>]) -> Vec<Arc<Backend>> {
        let order = rank::order(&self.candidates, wish, tried);
        order.into_iter().filter_map(|place| self.seed.backends.get(place).cloned()).collect()
    }
}

/// Asks for leave, one provider after the other.
async fn admit(backends: Vec<Arc<Backend>>, attempt: u32, clock: Clock) -> Route {
    let mut earliest: Option<Duration> = None;
    for backend in backends {
        let Some(actor) = backend.actor.borrow().clone() else {
            continue;
        };
        let asked = tokio::time::timeout(ACTOR_LIMIT, actor.send(Admit)).await;
        match asked {
            Ok(Ok(Ok(permit))) => {
                return Route::Go(Lease { permit, backend, attempt });
            }
            Ok(Ok(Err(Refusal { retry_at, .. }))) => earliest = earliest.into_iter().chain(retry_at).min(),
            // Its actor is gone for a moment, or behind: the provider counts as busy.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Route::Nobody { retry_after: earliest.map(|at| at.saturating_sub(clock.now())) }
}

impl Actor for RouterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

impl Handler<Pick> for RouterActor {
    type Result = ResponseFuture<Route>;

    fn handle(&mut self, pick: Pick, _: &mut Self::Context) -> Self::Result {
        if pick.failed.is_empty() {
            self.budget.deposit(self.seed.clock.now());
        }
        let attempt = u32::try_from(pick.failed.len()).unwrap_or(u32::MAX).saturating_add(1);
        match self.decide(&pick) {
            Ok(backends) => Box::pin(admit(backends, attempt, self.seed.clock)),
            Err(route) => Box::pin(std::future::ready(route)),
        }
    }
}

impl Handler<Crash> for RouterActor {
    type Result = ();

    #[allow(clippy::panic, reason = "what it is for")]
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

#[cfg(test)]
mod tests;
