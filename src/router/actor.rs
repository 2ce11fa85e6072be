//! The RouterActor: who is asked next, and whether anyone is, also in mid-answer.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};

use super::backoff::Backoff;
use super::budget::Budget;
use super::plan::{self, Failed, Next};
use super::rank::{self, Candidate, Wish};
use crate::chat::{Class, Load};
use crate::provider::actor::{Admit, Refusal};
use crate::provider::backend::{Backend, Clock};
use crate::provider::permit::Permit;
use crate::supervised::{Crash, Guard};

/// How long an answer of another actor is waited for; then its provider counts as busy.
pub const ACTOR_LIMIT: Duration = Duration::from_millis(50);

/// How long those who did not answer in time are waited for, all together, where nobody else can be asked: a visitor would rather wait for a
/// busy machine, or an actor that is being rebuilt, than get a lesser answer while a provider is well.
pub const LAST_LIMIT: Duration = Duration::from_millis(500);

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
    /// What must fit whom it is asked of.
    pub load: Load,
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
    fn again(&mut self, wait: Option<Duration>, last: &Backend, failed: &[Failed]) -> Option<Duration> {
        if !self.budget.withdraw(self.seed.clock.now()) {
            return None;
        }
        let here = failed.iter().filter(|one| one.provider == last.name).count();
        let retry = u32::try_from(here).unwrap_or(u32::MAX).saturating_sub(1);
        let backoff = Backoff { base: last.retry.base, max: last.retry.max };
        Some(wait.unwrap_or_else(|| backoff.wait(retry, (self.seed.chance)())))
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
            load: pick.load,
        };
        let others = self.ordered(&wish, &tried);
        if pick.waited {
            // The others stand behind it: its breaker may have opened during the wait.
            return Ok(last.into_iter().chain(others).collect());
        }
        let rules = plan::Rules {
            max_attempts: self.seed.rules.max_attempts,
            same_provider: last.as_ref().map_or(0, |last| last.retry.same_provider),
            max_retry_after: last.as_ref().map_or(Duration::ZERO, |last| last.retry.max_retry_after),
        };
        match plan::next(&pick.failed, others.len(), rules) {
            Next::Nobody => Err(Route::Nobody { retry_after: None }),
            Next::Other => Ok(others),
            Next::Again(wait) => match last.and_then(|last| self.again(wait, &last, &pick.failed)) {
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

/// Asks for leave, one provider after the other; those who did not answer in time once more, where nobody else gave it.
async fn admit(backends: Vec<Arc<Backend>>, attempt: u32, clock: Clock) -> Route {
    let mut earliest: Option<Duration> = None;
    let mut unheard = Vec::new();
    for backend in backends {
        let Some(actor) = backend.actor.borrow().clone() else {
            unheard.push(backend);
            continue;
        };
        match tokio::time::timeout(ACTOR_LIMIT, actor.send(Admit)).await {
            Ok(Ok(Ok(permit))) => {
                return Route::Go(Lease { permit, backend, attempt });
            }
            Ok(Ok(Err(Refusal { retry_at, .. }))) => earliest = earliest.into_iter().chain(retry_at).min(),
            // Its actor is gone for a moment, or behind: the provider counts as busy.
            Ok(Err(_)) | Err(_) => unheard.push(backend),
        }
    }
    let share = LAST_LIMIT / u32::try_from(unheard.len()).unwrap_or(u32::MAX).max(1);
    for backend in unheard {
        match tokio::time::timeout(share, heard(&backend)).await {
            Ok(Ok(permit)) => return Route::Go(Lease { permit, backend, attempt }),
            Ok(Err(Refusal { retry_at, .. })) => earliest = earliest.into_iter().chain(retry_at).min(),
            Err(_) => {}
        }
    }
    Route::Nobody { retry_after: earliest.map(|at| at.saturating_sub(clock.now())) }
}

/// What a provider's actor says, be it this one or, where it is being rebuilt, the next.
async fn heard(backend: &Backend) -> Result<Permit, Refusal> {
    let mut place = backend.actor.clone();
    loop {
        let actor = place.borrow_and_update().clone();
        if let Some(actor) = actor
            && let Ok(answer) = actor.send(Admit).await
        {
            return answer;
        }
        if place.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
