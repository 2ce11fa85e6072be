//! The RouterActor: who is asked next, and whether anyone is, also in mid-answer.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};

use super::backoff::Backoff;
use super::budget::Budget;
use super::plan::{self, Failed, Next};
use super::rank::{self, Candidate, Order, Wish};
use super::table::{Published, Table};
use crate::chat::{Class, Load};
use crate::provider::actor::{Admit, Refusal};
use crate::provider::backend::{Backend, Clock};
use crate::provider::permit::Permit;
use crate::provider::places::Place;
use crate::supervised::{Crash, Guard};

/// How long an answer of another actor is waited for; then its provider counts as busy.
pub const ACTOR_LIMIT: Duration = Duration::from_millis(50);

/// How long those who did not answer in time are waited for, all together, where nobody else can be asked: a visitor would rather wait for a
/// busy machine, or an actor that is being rebuilt, than get a lesser answer while a provider is well.
pub const LAST_LIMIT: Duration = Duration::from_millis(500);

/// Questions that may wait to be heard. Each has a place ([`Pick::waits`]), because a mailbox alone has no bound: it takes one more message of every
/// new clone of its address, however full it is.
pub const MAILBOX: usize = 1024;

/// Picks who is asked next, knowing how the turn's attempts so far failed.
#[derive(Clone, Debug, Default, Message)]
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
    /// Who served the conversation last.
    pub served_by: Option<Arc<str>>,
    /// Attempts that were given up because another was faster: they failed nobody, and were made all the same.
    pub given_up: u32,
    /// This provider is being asked and says nothing yet: another one beside it, where the retry budget agrees.
    pub hedge: Option<Arc<str>>,
    /// It is for a late answer, which nobody waits for: each of its attempts is an extra call and within half the retry budget.
    pub late: bool,
    /// Its place among the questions that wait, free again when it is heard.
    pub waits: Option<Arc<Place>>,
}

/// Asks how many extra calls (retries, hedges) the retry budget would pay for now; for showing.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "f64")]
pub struct Balance;

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

/// What a RouterActor is made of, and made of again after a panic.
#[derive(Clone)]
pub struct Seed {
    /// The providers and the measures, as they are at each question.
    pub table: Published,
    /// The clocks.
    pub clock: Clock,
    /// A random number in 0..1.
    pub chance: fn() -> f64,
}

/// What is to be done with a [`Pick`].
enum Decision {
    /// Ask these for leave, in this order.
    Ask(Vec<Arc<Backend>>),
    /// Wait, then ask the same one.
    Wait(Duration),
    /// There is nobody.
    Nobody,
}

/// Owns the order of providers and the retry budget.
pub struct RouterActor {
    seed: Seed,
    /// What it goes by until the next question.
    table: Arc<Table>,
    budget: Budget,
    /// Whose turn it is under `round_robin`, as a place in the backends.
    turn_of: usize,
    _guard: Guard,
}

/// A backend as the order sees it, by its last published vitals.
pub fn candidate(backend: &Backend) -> Candidate {
    let vitals = backend.vitals.borrow();
    Candidate {
        name: Arc::clone(&backend.name),
        context_tokens: backend.context_tokens,
        weight: backend.weight,
        prices: backend.prices,
        first_token_ms: vitals.first_token.map(|latency| latency.p50),
        asked: vitals.in_flight > 0,
    }
}

impl RouterActor {
    /// A new actor, with a fresh retry budget.
    pub fn new(seed: Seed, guard: Guard) -> Self {
        let mut seed = seed;
        let table = Arc::clone(&seed.table.borrow_and_update());
        let budget = Budget::new(table.settings.retry.budget);
        Self {
            seed,
            table,
            budget,
            turn_of: 0,
            _guard: guard,
        }
    }

    /// Goes by what is published now.
    fn look(&mut self) {
        if self.seed.table.has_changed().unwrap_or_default() {
            self.table = Arc::clone(&self.seed.table.borrow_and_update());
            self.budget.set_share(self.table.settings.retry.budget);
        }
    }

    /// Whether the same provider is asked once more, and after what wait.
    fn again(
        &mut self,
        wait: Option<Duration>,
        last: &Backend,
        failed: &[Failed],
    ) -> Option<Duration> {
        if !self.budget.withdraw(self.seed.clock.now()) {
            return None;
        }
        let here = failed
            .iter()
            .filter(|one| one.provider == last.name)
            .count();
        let retry = u32::try_from(here).unwrap_or(u32::MAX).saturating_sub(1);
        let backoff = Backoff {
            base: last.retry.base,
            max: last.retry.max,
        };
        Some(wait.unwrap_or_else(|| backoff.wait(retry, (self.seed.chance)())))
    }

    /// Those to ask, best first, or the wait before the same one is asked again.
    fn decide(&mut self, pick: &Pick) -> Decision {
        let backend = |name: &Arc<str>| self.table.backend(name).cloned();
        let last = pick.failed.last().and_then(|one| backend(&one.provider));
        let (tried, more_room_than) = ruled_out(pick);
        let wish = Wish {
            first: pick.first.clone(),
            only_first: pick.only_first,
            more_room_than,
            load: pick.load,
            served_by: pick.served_by.clone(),
        };
        let others = self.ordered(&wish, &tried, pick.failed.last().map(|one| &one.provider));
        if pick.waited {
            // The others stand behind it: its breaker may have opened during the wait.
            return Decision::Ask(last.into_iter().chain(others).collect());
        }
        if pick.failed.is_empty() && pick.first.is_none() {
            self.pass_on(&others);
        }
        let rules = plan::Rules {
            max_attempts: self
                .table
                .settings
                .routing
                .max_attempts
                .saturating_sub(pick.given_up),
            same_provider: last.as_ref().map_or(0, |last| last.retry.same_provider),
            max_retry_after: last
                .as_ref()
                .map_or(Duration::ZERO, |last| last.retry.max_retry_after),
        };
        match plan::next(&pick.failed, others.len(), rules) {
            Next::Nobody => Decision::Nobody,
            Next::Other => Decision::Ask(others),
            Next::Again(wait) => {
                match last.and_then(|last| self.again(wait, &last, &pick.failed)) {
                    Some(wait) => Decision::Wait(wait),
                    None => Decision::Ask(others),
                }
            }
        }
    }

    /// Those to ask beside the one that is silent; nobody where no attempt is left, or the retry budget is spent.
    fn beside(&mut self, silent: &Arc<str>, pick: &Pick) -> Vec<Arc<Backend>> {
        let made = pick.failed.len() + pick.given_up as usize + 1;
        if pick.only_first || made >= self.table.settings.routing.max_attempts as usize {
            return Vec::new();
        }
        let (mut tried, more_room_than) = ruled_out(pick);
        tried.push(Arc::clone(silent));
        let wish = Wish {
            more_room_than,
            load: pick.load,
            ..Wish::default()
        };
        let order = self.ordered(&wish, &tried, Some(silent));
        if order.is_empty() || !self.budget.withdraw(self.seed.clock.now()) {
            return Vec::new();
        }
        order
    }

    /// The next attempt of a late answer, as long as the budget agrees.
    fn route_late(&mut self, pick: &Pick, attempt: u32) -> ResponseFuture<Route> {
        let (tried, more_room_than) = ruled_out(pick);
        let wish = Wish {
            more_room_than,
            load: pick.load,
            ..Wish::default()
        };
        let order = self.ordered(&wish, &tried, pick.failed.last().map(|one| &one.provider));
        // Who was asked before is not asked again: there is time for another turn later.
        let rules = plan::Rules {
            max_attempts: self.table.settings.routing.max_attempts,
            same_provider: 0,
            max_retry_after: Duration::ZERO,
        };
        let may = pick.hedge.is_none() && !order.is_empty();
        let other = plan::next(&pick.failed, order.len(), rules) == Next::Other;
        if may && other && self.budget.withdraw_late(self.seed.clock.now()) {
            return Box::pin(admit(order, attempt, self.seed.clock));
        }
        Box::pin(ready(Route::Nobody { retry_after: None }))
    }

    /// The backends in the strategy's order. `after` is whom the turn asked last.
    fn ordered(
        &self,
        wish: &Wish,
        tried: &[Arc<str>],
        after: Option<&Arc<str>>,
    ) -> Vec<Arc<Backend>> {
        let candidates: Vec<_> = self
            .table
            .backends
            .iter()
            .map(|one| candidate(one))
            .collect();
        let after = after.and_then(|name| candidates.iter().position(|one| one.name == *name));
        let by = Order {
            strategy: self.table.settings.routing.strategy,
            chance: (self.seed.chance)(),
            turn_of: after.map_or(self.turn_of, |place| place + 1),
        };
        let order = rank::order(&candidates, by, wish, tried);
        order
            .into_iter()
            .filter_map(|place| self.table.backends.get(place).cloned())
            .collect()
    }

    /// The next turn is the next one's: after the first that can be asked, so that who comes behind one that is down gets no double share.
    fn pass_on(&mut self, order: &[Arc<Backend>]) {
        let now = self.seed.clock.wall();
        let asked = order
            .iter()
            .find(|one| one.vitals.borrow().can_be_asked(now))
            .or(order.first());
        let place = asked.and_then(|asked| {
            self.table
                .backends
                .iter()
                .position(|one| Arc::ptr_eq(one, asked))
        });
        self.turn_of = place.map_or(self.turn_of, |place| place + 1);
    }
}

/// Whom the turn has asked already and may not ask again, and whose room was not enough.
fn ruled_out(pick: &Pick) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
    let (before, since) = pick
        .failed
        .split_at_checked(pick.before_halving)
        .unwrap_or((&pick.failed, &[]));
    let forgiven = |one: &&Failed| one.failure.fault.class() == Class::MoreRoom;
    let tried = before.iter().filter(|one| !forgiven(one)).chain(since);
    (
        tried.map(|one| Arc::clone(&one.provider)).collect(),
        plan::outgrown(since),
    )
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
                return Route::Go(Lease {
                    permit,
                    backend,
                    attempt,
                });
            }
            Ok(Ok(Err(Refusal { retry_at, .. }))) => {
                earliest = earliest.into_iter().chain(retry_at).min()
            }
            // Its actor is gone for a moment, or behind: the provider counts as busy.
            Ok(Err(_)) | Err(_) => unheard.push(backend),
        }
    }
    let share = LAST_LIMIT / u32::try_from(unheard.len()).unwrap_or(u32::MAX).max(1);
    for backend in unheard {
        match tokio::time::timeout(share, heard(&backend)).await {
            Ok(Ok(permit)) => {
                return Route::Go(Lease {
                    permit,
                    backend,
                    attempt,
                });
            }
            Ok(Err(Refusal { retry_at, .. })) => {
                earliest = earliest.into_iter().chain(retry_at).min()
            }
            Err(_) => {}
        }
    }
    Route::Nobody {
        retry_after: earliest.map(|at| at.saturating_sub(clock.now())),
    }
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
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Pick> for RouterActor {
    type Result = ResponseFuture<Route>;

    fn handle(&mut self, pick: Pick, _: &mut Self::Context) -> Self::Result {
        self.look();
        let failed = u32::try_from(pick.failed.len()).unwrap_or(u32::MAX);
        let attempt = failed.saturating_add(pick.given_up).saturating_add(1);
        if pick.late {
            return self.route_late(&pick, attempt);
        }
        if let Some(silent) = &pick.hedge {
            let beside = self.beside(silent, &pick);
            return Box::pin(admit(beside, attempt.saturating_add(1), self.seed.clock));
        }
        if attempt == 1 {
            self.budget.deposit(self.seed.clock.now());
        }
        match self.decide(&pick) {
            Decision::Ask(backends) => Box::pin(admit(backends, attempt, self.seed.clock)),
            Decision::Wait(wait) => Box::pin(ready(Route::Wait(wait))),
            Decision::Nobody => Box::pin(ready(Route::Nobody { retry_after: None })),
        }
    }
}

impl Handler<Balance> for RouterActor {
    type Result = f64;

    fn handle(&mut self, _: Balance, _: &mut Self::Context) -> f64 {
        self.budget.balance(self.seed.clock.now())
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
