//! The RouterActor: selects the provider of each attempt and decides on fail-over in mid-answer.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};

use super::backoff::Backoff;
use super::ordering::{self, Candidate, OrderBy, RoutingConstraints};
use super::retry_budget::RetryBudget;
use super::retry_policy::{self, FailedAttempt, NextStep};
use super::runtime_config::{ConfigWatch, RuntimeConfig};
use crate::actor_exit::ExitGuard;
use crate::domain::{Recovery, TokenEstimate};
use crate::provider::actor::{AcquireRejection, TryAcquire};
use crate::provider::concurrency_limit::ConcurrencyPermit;
use crate::provider::handle::{Clock, Provider};
use crate::provider::permit::Permit;

/// The time for a ProviderActor to answer; after that its provider counts as busy.
pub const ACTOR_TIMEOUT: Duration = Duration::from_millis(50);

/// The total time for a second round over the providers that did not answer in time, when no other
/// provider admitted the call. A visitor would rather wait for a busy machine, or for an actor that
/// is being rebuilt, than get a fallback answer while a provider is healthy.
pub const SECOND_ROUND_TIMEOUT: Duration = Duration::from_millis(500);

/// The limit of selections that wait in the mailbox. Callers hold a permit per selection
/// ([`SelectProvider::queue_permit`]), because a mailbox alone is not bounded: each new clone of
/// its address may add one more message, however full it is.
pub const MAILBOX_CAPACITY: usize = 1024;

#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "Selection")]
pub struct SelectProvider {
    pub failed_attempts: Arc<[FailedAttempt]>,
    pub preferred: Option<Arc<str>>,
    /// Exclude every provider other than `preferred`.
    pub no_failover: bool,
    /// The delay of the last [`Selection::RetryAfter`] has elapsed.
    pub backoff_elapsed: bool,
    /// The number of failed attempts made before the history was truncated; 0 if it was not. The
    /// providers whose context was too small for these may be tried again.
    pub attempts_before_truncation: usize,
    pub token_estimate: TokenEstimate,
    pub sticky_provider: Option<Arc<str>>,
    /// Attempts abandoned because a hedge was faster. They are not failures, but count towards
    /// `max_attempts`.
    pub hedges_abandoned: u32,
    /// Select a hedge beside this provider, which has not sent its first token yet. Takes one call
    /// from the retry budget.
    pub hedging_against: Option<Arc<str>>,
    /// No visitor waits for the answer. Each attempt is an extra call, and background attempts get
    /// at most half of the retry budget.
    pub is_background: bool,
    /// A permit for a place in the mailbox, released when the router handles the message.
    pub queue_permit: Option<Arc<ConcurrencyPermit>>,
}

/// Returns the number of extra calls that the retry budget would allow now. For display.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "f64")]
pub struct GetRetryBudgetBalance;

pub enum Selection {
    Provider(ProviderLease),
    /// Wait this long, then select again with `backoff_elapsed` to retry the same provider.
    RetryAfter(Duration),
    /// No provider can be called: use the fallback chain.
    Unavailable {
        /// The shortest time after which one of them can be called, if known.
        retry_after: Option<Duration>,
    },
}

pub struct ProviderLease {
    pub permit: Permit,
    pub provider: Arc<Provider>,
    /// The number of the attempt within its turn, from 1.
    pub attempt_number: u32,
}

/// The parts of a RouterActor. They outlive a panic, and the rebuilt actor gets them again.
#[derive(Clone)]
pub struct RouterParts {
    pub config: ConfigWatch,
    pub clock: Clock,
    pub random_unit: fn() -> f64,
}

enum RoutingDecision {
    TryInOrder(Vec<Arc<Provider>>),
    RetryAfter(Duration),
    Unavailable,
}

pub struct RouterActor {
    parts: RouterParts,
    config: Arc<RuntimeConfig>,
    retry_budget: RetryBudget,
    /// Index of the provider that is first for the next turn under `round_robin`.
    round_robin_next: usize,
    _exit_guard: ExitGuard,
}

/// Returns the ranking inputs of a provider, from its last published status.
pub fn to_candidate(backend: &Provider) -> Candidate {
    let status = backend.status.borrow();
    Candidate {
        name: Arc::clone(&backend.name),
        context_tokens: backend.context_tokens,
        weight: backend.weight,
        prices: backend.prices,
        first_token_ms: status.first_token_latency.map(|latency| latency.p50),
        has_call_in_flight: status.in_flight > 0,
    }
}

impl RouterActor {
    pub fn new(mut seed: RouterParts, guard: ExitGuard) -> Self {
        let table = Arc::clone(&seed.config.borrow_and_update());
        let budget = RetryBudget::new(table.settings.retry.budget);
        Self {
            parts: seed,
            config: table,
            retry_budget: budget,
            round_robin_next: 0,
            _exit_guard: guard,
        }
    }

    fn refresh_config(&mut self) {
        if self.parts.config.has_changed().unwrap_or_default() {
            self.config = Arc::clone(&self.parts.config.borrow_and_update());
            self.retry_budget
                .set_share(self.config.settings.retry.budget);
        }
    }

    /// Returns the delay before a retry, or `None` if the retry budget does not allow one.
    fn retry_delay(
        &mut self,
        delay: Option<Duration>,
        last: &Provider,
        failed: &[FailedAttempt],
    ) -> Option<Duration> {
        if !self.retry_budget.withdraw(self.parts.clock.now()) {
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
        Some(delay.unwrap_or_else(|| backoff.delay(retry, (self.parts.random_unit)())))
    }

    fn decide(&mut self, pick: &SelectProvider) -> RoutingDecision {
        let provider = |name: &Arc<str>| self.config.provider(name).cloned();
        let last = pick
            .failed_attempts
            .last()
            .and_then(|attempt| provider(&attempt.provider));
        let (tried, more_room_than) = exclusions(pick);
        let wish = RoutingConstraints {
            preferred: pick.preferred.clone(),
            no_failover: pick.no_failover,
            larger_context_than: more_room_than,
            token_estimate: pick.token_estimate,
            sticky_provider: pick.sticky_provider.clone(),
        };
        let last_name = pick.failed_attempts.last().map(|attempt| &attempt.provider);
        let others = self.order(&wish, &tried, last_name);
        if pick.backoff_elapsed {
            // The breaker of the last provider may have opened during the delay, so the others
            // follow as alternatives.
            return RoutingDecision::TryInOrder(last.into_iter().chain(others).collect());
        }
        if pick.failed_attempts.is_empty() && pick.preferred.is_none() {
            self.advance_round_robin(&others);
        }
        let rules = retry_policy::RetryPolicy {
            max_attempts: self
                .config
                .settings
                .routing
                .max_attempts
                .saturating_sub(pick.hedges_abandoned),
            same_provider_retries: last.as_ref().map_or(0, |last| last.retry.same_provider),
            max_retry_after: last
                .as_ref()
                .map_or(Duration::ZERO, |last| last.retry.max_retry_after),
        };
        match retry_policy::next_step(&pick.failed_attempts, others.len(), rules) {
            NextStep::GiveUp => RoutingDecision::Unavailable,
            NextStep::NextProvider => RoutingDecision::TryInOrder(others),
            NextStep::RetrySame(delay) => {
                match last.and_then(|last| self.retry_delay(delay, &last, &pick.failed_attempts)) {
                    Some(delay) => RoutingDecision::RetryAfter(delay),
                    None => RoutingDecision::TryInOrder(others),
                }
            }
        }
    }

    /// Returns the candidates for a hedge beside `silent`. Empty if no attempt is left or the retry
    /// budget is spent.
    fn hedge_candidates(&mut self, silent: &Arc<str>, pick: &SelectProvider) -> Vec<Arc<Provider>> {
        let attempts = pick.failed_attempts.len() + pick.hedges_abandoned as usize + 1;
        if pick.no_failover || attempts >= self.config.settings.routing.max_attempts as usize {
            return Vec::new();
        }
        let (mut tried, more_room_than) = exclusions(pick);
        tried.push(Arc::clone(silent));
        let wish = RoutingConstraints {
            larger_context_than: more_room_than,
            token_estimate: pick.token_estimate,
            ..RoutingConstraints::default()
        };
        let order = self.order(&wish, &tried, Some(silent));
        if order.is_empty() || !self.retry_budget.withdraw(self.parts.clock.now()) {
            return Vec::new();
        }
        order
    }

    /// Selects the provider of a background attempt, if the retry budget allows it.
    fn select_background(
        &mut self,
        pick: &SelectProvider,
        attempt: u32,
    ) -> ResponseFuture<Selection> {
        let (tried, more_room_than) = exclusions(pick);
        let wish = RoutingConstraints {
            larger_context_than: more_room_than,
            token_estimate: pick.token_estimate,
            ..RoutingConstraints::default()
        };
        let last_name = pick.failed_attempts.last().map(|attempt| &attempt.provider);
        let order = self.order(&wish, &tried, last_name);
        // No retries at the same provider: there is time for another attempt later.
        let rules = retry_policy::RetryPolicy {
            max_attempts: self.config.settings.routing.max_attempts,
            same_provider_retries: 0,
            max_retry_after: Duration::ZERO,
        };
        let has_candidates = pick.hedging_against.is_none() && !order.is_empty();
        let may_try_next = retry_policy::next_step(&pick.failed_attempts, order.len(), rules)
            == NextStep::NextProvider;
        // Withdraw last, and only for an attempt that will be made.
        if has_candidates
            && may_try_next
            && self
                .retry_budget
                .withdraw_background(self.parts.clock.now())
        {
            return Box::pin(acquire_first(order, attempt, self.parts.clock));
        }
        Box::pin(ready(Selection::Unavailable { retry_after: None }))
    }

    /// Returns the providers in the strategy's order. Under `round_robin` the one behind
    /// `last_tried` is first.
    fn order(
        &self,
        wish: &RoutingConstraints,
        tried: &[Arc<str>],
        last_tried: Option<&Arc<str>>,
    ) -> Vec<Arc<Provider>> {
        let candidates: Vec<_> = self
            .config
            .providers
            .iter()
            .map(|provider| to_candidate(provider))
            .collect();
        let last_index = last_tried.and_then(|name| {
            candidates
                .iter()
                .position(|candidate| candidate.name == *name)
        });
        let by = OrderBy {
            strategy: self.config.settings.routing.strategy,
            random: (self.parts.random_unit)(),
            round_robin_next: last_index.map_or(self.round_robin_next, |index| index + 1),
        };
        let order = ordering::order(&candidates, by, wish, tried);
        order
            .into_iter()
            .filter_map(|index| self.config.providers.get(index).cloned())
            .collect()
    }

    /// Moves `round_robin` past the first available provider, so that the provider behind one that
    /// is down gets no double share.
    fn advance_round_robin(&mut self, order: &[Arc<Provider>]) {
        let now = self.parts.clock.wall();
        let first_available = order
            .iter()
            .find(|provider| provider.status.borrow().is_available(now))
            .or(order.first());
        let index = first_available.and_then(|available| {
            self.config
                .providers
                .iter()
                .position(|provider| Arc::ptr_eq(provider, available))
        });
        self.round_robin_next = index.map_or(self.round_robin_next, |index| index + 1);
    }
}

/// Returns the providers that this turn must not call again, and those whose context was too small.
fn exclusions(pick: &SelectProvider) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
    let (before, since) = pick
        .failed_attempts
        .split_at_checked(pick.attempts_before_truncation)
        .unwrap_or((&pick.failed_attempts, &[]));
    let may_retry =
        |attempt: &&FailedAttempt| attempt.failure.fault.recovery() == Recovery::LargerContext;
    let tried = before
        .iter()
        .filter(|attempt| !may_retry(attempt))
        .chain(since);
    (
        tried.map(|attempt| Arc::clone(&attempt.provider)).collect(),
        retry_policy::providers_too_small(since),
    )
}

/// Asks the providers in order for a permit. Those whose actor did not answer in time are asked
/// again at the end, if no other provider gave one.
async fn acquire_first(backends: Vec<Arc<Provider>>, attempt: u32, clock: Clock) -> Selection {
    let mut earliest: Option<Duration> = None;
    let mut unanswered = Vec::new();
    for backend in backends {
        let Some(actor) = backend.actor.borrow().clone() else {
            unanswered.push(backend);
            continue;
        };
        match tokio::time::timeout(ACTOR_TIMEOUT, actor.send(TryAcquire)).await {
            Ok(Ok(Ok(permit))) => {
                return Selection::Provider(ProviderLease {
                    permit,
                    provider: backend,
                    attempt_number: attempt,
                });
            }
            Ok(Ok(Err(AcquireRejection { retry_at, .. }))) => {
                earliest = earliest.into_iter().chain(retry_at).min()
            }
            // The actor is being rebuilt or is behind: the provider counts as busy.
            Ok(Err(_)) | Err(_) => unanswered.push(backend),
        }
    }
    let timeout = SECOND_ROUND_TIMEOUT / u32::try_from(unanswered.len()).unwrap_or(u32::MAX).max(1);
    for backend in unanswered {
        match tokio::time::timeout(timeout, await_admission(&backend)).await {
            Ok(Ok(permit)) => {
                return Selection::Provider(ProviderLease {
                    permit,
                    provider: backend,
                    attempt_number: attempt,
                });
            }
            Ok(Err(AcquireRejection { retry_at, .. })) => {
                earliest = earliest.into_iter().chain(retry_at).min()
            }
            Err(_) => {}
        }
    }
    Selection::Unavailable {
        retry_after: earliest.map(|at| at.saturating_sub(clock.now())),
    }
}

/// Waits for the answer of a provider's actor, or of its successor if it is being rebuilt.
async fn await_admission(backend: &Provider) -> Result<Permit, AcquireRejection> {
    let mut address = backend.actor.clone();
    loop {
        let actor = address.borrow_and_update().clone();
        if let Some(actor) = actor
            && let Ok(answer) = actor.send(TryAcquire).await
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
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
    }
}

impl Handler<SelectProvider> for RouterActor {
    type Result = ResponseFuture<Selection>;

    fn handle(&mut self, pick: SelectProvider, _: &mut Self::Context) -> Self::Result {
        // The configuration is current for each selection, not for each turn.
        self.refresh_config();
        let failed_attempts = u32::try_from(pick.failed_attempts.len()).unwrap_or(u32::MAX);
        let attempt = failed_attempts
            .saturating_add(pick.hedges_abandoned)
            .saturating_add(1);
        if pick.is_background {
            return self.select_background(&pick, attempt);
        }
        if let Some(silent) = &pick.hedging_against {
            let hedges = self.hedge_candidates(silent, &pick);
            return Box::pin(acquire_first(
                hedges,
                attempt.saturating_add(1),
                self.parts.clock,
            ));
        }
        // A turn deposits once, with its first attempt.
        if attempt == 1 {
            self.retry_budget.deposit(self.parts.clock.now());
        }
        match self.decide(&pick) {
            RoutingDecision::TryInOrder(backends) => {
                Box::pin(acquire_first(backends, attempt, self.parts.clock))
            }
            RoutingDecision::RetryAfter(delay) => Box::pin(ready(Selection::RetryAfter(delay))),
            RoutingDecision::Unavailable => {
                Box::pin(ready(Selection::Unavailable { retry_after: None }))
            }
        }
    }
}

impl Handler<GetRetryBudgetBalance> for RouterActor {
    type Result = f64;

    fn handle(&mut self, _: GetRetryBudgetBalance, _: &mut Self::Context) -> f64 {
        self.retry_budget.balance(self.parts.clock.now())
    }
}

#[cfg(test)]
mod tests;
