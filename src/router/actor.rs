//! The RouterActor: selects the provider of each attempt and decides on fail-over in mid-answer.

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

/// The time for a ProviderActor to answer; after that its provider counts as busy.
pub const ACTOR_LIMIT: Duration = Duration::from_millis(50);

/// The total time for a second round over the providers that did not answer in time, when no other
/// provider admitted the call. A visitor would rather wait for a busy machine, or for an actor that
/// is being rebuilt, than get a fallback answer while a provider is healthy.
pub const LAST_LIMIT: Duration = Duration::from_millis(500);

/// The limit of selections that wait in the mailbox. Callers hold a permit per selection
/// ([`SelectProvider::queue_permit`]), because a mailbox alone is not bounded: each new clone of
/// its address may add one more message, however full it is.
pub const MAILBOX: usize = 1024;

#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "Route")]
pub struct Pick {
    pub failed: Arc<[Failed]>,
    pub first: Option<Arc<str>>,
    /// Exclude every provider other than `preferred`.
    pub only_first: bool,
    /// The delay of the last [`Selection::RetryAfter`] has elapsed.
    pub waited: bool,
    /// The number of failed attempts made before the history was truncated; 0 if it was not. The
    /// providers whose context was too small for these may be tried again.
    pub before_halving: usize,
    pub load: Load,
    pub served_by: Option<Arc<str>>,
    /// Attempts abandoned because a hedge was faster. They are not failures, but count towards
    /// `max_attempts`.
    pub given_up: u32,
    /// Select a hedge beside this provider, which has not sent its first token yet. Takes one call
    /// from the retry budget.
    pub hedge: Option<Arc<str>>,
    /// No visitor waits for the answer. Each attempt is an extra call, and background attempts get
    /// at most half of the retry budget.
    pub late: bool,
    /// A permit for a place in the mailbox, released when the router handles the message.
    pub waits: Option<Arc<Place>>,
}

/// Returns the number of extra calls that the retry budget would allow now. For display.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "f64")]
pub struct Balance;

pub enum Route {
    Go(Lease),
    /// Wait this long, then select again with `backoff_elapsed` to retry the same provider.
    Wait(Duration),
    /// No provider can be called: use the fallback chain.
    Nobody {
        /// The shortest time after which one of them can be called, if known.
        retry_after: Option<Duration>,
    },
}

pub struct Lease {
    pub permit: Permit,
    pub backend: Arc<Backend>,
    /// The number of the attempt within its turn, from 1.
    pub attempt: u32,
}

/// The parts of a RouterActor. They outlive a panic, and the rebuilt actor gets them again.
#[derive(Clone)]
pub struct Seed {
    pub table: Published,
    pub clock: Clock,
    pub chance: fn() -> f64,
}

enum Decision {
    Ask(Vec<Arc<Backend>>),
    Wait(Duration),
    Nobody,
}

pub struct RouterActor {
    seed: Seed,
    table: Arc<Table>,
    budget: Budget,
    /// Index of the provider that is first for the next turn under `round_robin`.
    turn_of: usize,
    _guard: Guard,
}

/// Returns the ranking inputs of a provider, from its last published status.
pub fn candidate(backend: &Backend) -> Candidate {
    let status = backend.vitals.borrow();
    Candidate {
        name: Arc::clone(&backend.name),
        context_tokens: backend.context_tokens,
        weight: backend.weight,
        prices: backend.prices,
        first_token_ms: status.first_token.map(|latency| latency.p50),
        asked: status.in_flight > 0,
    }
}

impl RouterActor {
    pub fn new(mut seed: Seed, guard: Guard) -> Self {
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

    fn look(&mut self) {
        if self.seed.table.has_changed().unwrap_or_default() {
            self.table = Arc::clone(&self.seed.table.borrow_and_update());
            self.budget.set_share(self.table.settings.retry.budget);
        }
    }

    /// Returns the delay before a retry, or `None` if the retry budget does not allow one.
    fn again(
        &mut self,
        delay: Option<Duration>,
        last: &Backend,
        failed: &[Failed],
    ) -> Option<Duration> {
        if !self.budget.withdraw(self.seed.clock.now()) {
            return None;
        }
        let attempts_here = failed
            .iter()
            .filter(|attempt| attempt.provider == last.name)
            .count();
        let retry = u32::try_from(attempts_here)
            .unwrap_or(u32::MAX)
            .saturating_sub(1);
        let backoff = Backoff {
            base: last.retry.base,
            max: last.retry.max,
        };
        Some(delay.unwrap_or_else(|| backoff.wait(retry, (self.seed.chance)())))
    }

    fn decide(&mut self, pick: &Pick) -> Decision {
        let provider = |name: &Arc<str>| self.table.backend(name).cloned();
        let last = pick
            .failed
            .last()
            .and_then(|attempt| provider(&attempt.provider));
        let (tried, more_room_than) = ruled_out(pick);
        let wish = Wish {
            first: pick.first.clone(),
            only_first: pick.only_first,
            more_room_than,
            load: pick.load,
            served_by: pick.served_by.clone(),
        };
        let last_name = pick.failed.last().map(|attempt| &attempt.provider);
        let others = self.ordered(&wish, &tried, last_name);
        if pick.waited {
            // The breaker of the last provider may have opened during the delay, so the others
            // follow as alternatives.
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
            Next::Again(delay) => {
                match last.and_then(|last| self.again(delay, &last, &pick.failed)) {
                    Some(delay) => Decision::Wait(delay),
                    None => Decision::Ask(others),
                }
            }
        }
    }

    /// Returns the candidates for a hedge beside `silent`. Empty if no attempt is left or the retry
    /// budget is spent.
    fn beside(&mut self, silent: &Arc<str>, pick: &Pick) -> Vec<Arc<Backend>> {
        let attempts = pick.failed.len() + pick.given_up as usize + 1;
        if pick.only_first || attempts >= self.table.settings.routing.max_attempts as usize {
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

    /// Selects the provider of a background attempt, if the retry budget allows it.
    fn route_late(&mut self, pick: &Pick, attempt: u32) -> ResponseFuture<Route> {
        let (tried, more_room_than) = ruled_out(pick);
        let wish = Wish {
            more_room_than,
            load: pick.load,
            ..Wish::default()
        };
        let last_name = pick.failed.last().map(|attempt| &attempt.provider);
        let order = self.ordered(&wish, &tried, last_name);
        // No retries at the same provider: there is time for another attempt later.
        let rules = plan::Rules {
            max_attempts: self.table.settings.routing.max_attempts,
            same_provider: 0,
            max_retry_after: Duration::ZERO,
        };
        let has_candidates = pick.hedge.is_none() && !order.is_empty();
        let may_try_next = plan::next(&pick.failed, order.len(), rules) == Next::Other;
        // Withdraw last, and only for an attempt that will be made.
        if has_candidates && may_try_next && self.budget.withdraw_late(self.seed.clock.now()) {
            return Box::pin(admit(order, attempt, self.seed.clock));
        }
        Box::pin(ready(Route::Nobody { retry_after: None }))
    }

    /// Returns the providers in the strategy's order. Under `round_robin` the one behind
    /// `last_tried` is first.
    fn ordered(
        &self,
        wish: &Wish,
        tried: &[Arc<str>],
        last_tried: Option<&Arc<str>>,
    ) -> Vec<Arc<Backend>> {
        let candidates: Vec<_> = self
            .table
            .backends
            .iter()
            .map(|provider| candidate(provider))
            .collect();
        let last_index = last_tried.and_then(|name| {
            candidates
                .iter()
                .position(|candidate| candidate.name == *name)
        });
        let by = Order {
            strategy: self.table.settings.routing.strategy,
            chance: (self.seed.chance)(),
            turn_of: last_index.map_or(self.turn_of, |index| index + 1),
        };
        let order = rank::order(&candidates, by, wish, tried);
        order
            .into_iter()
            .filter_map(|index| self.table.backends.get(index).cloned())
            .collect()
    }

    /// Moves `round_robin` past the first available provider, so that the provider behind one that
    /// is down gets no double share.
    fn pass_on(&mut self, order: &[Arc<Backend>]) {
        let now = self.seed.clock.wall();
        let first_available = order
            .iter()
            .find(|provider| provider.vitals.borrow().can_be_asked(now))
            .or(order.first());
        let index = first_available.and_then(|available| {
            self.table
                .backends
                .iter()
                .position(|provider| Arc::ptr_eq(provider, available))
        });
        self.turn_of = index.map_or(self.turn_of, |index| index + 1);
    }
}

/// Returns the providers that this turn must not call again, and those whose context was too small.
fn ruled_out(pick: &Pick) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
    let (before, since) = pick
        .failed
        .split_at_checked(pick.before_halving)
        .unwrap_or((&pick.failed, &[]));
    let may_retry = |attempt: &&Failed| attempt.failure.fault.class() == Class::MoreRoom;
    let tried = before
        .iter()
        .filter(|attempt| !may_retry(attempt))
        .chain(since);
    (
        tried.map(|attempt| Arc::clone(&attempt.provider)).collect(),
        plan::outgrown(since),
    )
}

/// Asks the providers in order for a permit. Those whose actor did not answer in time are asked
/// again at the end, if no other provider gave one.
async fn admit(backends: Vec<Arc<Backend>>, attempt: u32, clock: Clock) -> Route {
    let mut earliest: Option<Duration> = None;
    let mut unanswered = Vec::new();
    for backend in backends {
        let Some(actor) = backend.actor.borrow().clone() else {
            unanswered.push(backend);
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
            // The actor is being rebuilt or is behind: the provider counts as busy.
            Ok(Err(_)) | Err(_) => unanswered.push(backend),
        }
    }
    let timeout = LAST_LIMIT / u32::try_from(unanswered.len()).unwrap_or(u32::MAX).max(1);
    for backend in unanswered {
        match tokio::time::timeout(timeout, heard(&backend)).await {
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

/// Waits for the answer of a provider's actor, or of its successor if it is being rebuilt.
async fn heard(backend: &Backend) -> Result<Permit, Refusal> {
    let mut address = backend.actor.clone();
    loop {
        let actor = address.borrow_and_update().clone();
        if let Some(actor) = actor
            && let Ok(answer) = actor.send(Admit).await
        {
            return answer;
        }
        if address.changed().await.is_err() {
            // The provider was removed, so no actor will follow. The caller's timeout ends the
            // wait.
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
        // The configuration is current for each selection, not for each turn.
        self.look();
        let failed_attempts = u32::try_from(pick.failed.len()).unwrap_or(u32::MAX);
        let attempt = failed_attempts
            .saturating_add(pick.given_up)
            .saturating_add(1);
        if pick.late {
            return self.route_late(&pick, attempt);
        }
        if let Some(silent) = &pick.hedge {
            let hedges = self.beside(silent, &pick);
            return Box::pin(admit(hedges, attempt.saturating_add(1), self.seed.clock));
        }
        // A turn deposits once, with its first attempt.
        if attempt == 1 {
            self.budget.deposit(self.seed.clock.now());
        }
        match self.decide(&pick) {
            Decision::Ask(backends) => Box::pin(admit(backends, attempt, self.seed.clock)),
            Decision::Wait(delay) => Box::pin(ready(Route::Wait(delay))),
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

    #[allow(clippy::panic, reason = "the purpose of the message")]
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

#[cfg(test)]
mod tests;
