//! The RouterActor: selects the provider of each attempt and decides on fail-over in mid-answer.

mod admission;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};

use super::ordering::{self, Candidate, OrderBy, RoutingConstraints};
use super::retry_budget::RetryBudget;
use super::retry_policy::{self, FailedAttempt, NextStep, RetryPolicy};
use super::runtime_config::{ConfigWatch, RuntimeConfig};
use crate::actor_exit::ExitGuard;
use crate::domain::{Recovery, TokenEstimate};
use crate::provider::actor::permit::Permit;
use crate::provider::backoff::Backoff;
use crate::provider::clock::Clock;
use crate::provider::concurrency_limit::ConcurrencyPermit;
use crate::provider::handle::Provider;
use admission::acquire_first;
pub use admission::{ACTOR_TIMEOUT, SECOND_ROUND_TIMEOUT};

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

impl SelectProvider {
    fn last_tried(&self) -> Option<&Arc<str>> {
        self.failed_attempts.last().map(|attempt| &attempt.provider)
    }
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
    /// Nobody, if empty.
    TryInOrder(Vec<Arc<Provider>>),
    RetryAfter(Duration),
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
pub fn to_candidate(provider: &Provider) -> Candidate {
    let status = provider.status.borrow();
    Candidate {
        name: Arc::clone(&provider.name),
        context_tokens: provider.context_tokens,
        weight: provider.weight,
        prices: provider.prices,
        first_token_ms: status.first_token_latency.map(|latency| latency.p50),
        has_call_in_flight: status.in_flight > 0,
    }
}

impl RouterActor {
    pub fn new(mut parts: RouterParts, guard: ExitGuard) -> Self {
        let config = Arc::clone(&parts.config.borrow_and_update());
        Self {
            parts,
            retry_budget: RetryBudget::new(config.settings.retry.budget),
            config,
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
        let attempts = failed.iter().filter(|one| one.provider == last.name);
        let attempts = u32::try_from(attempts.count()).unwrap_or(u32::MAX);
        let backoff = Backoff {
            base: last.retry.base,
            max: last.retry.max,
        };
        Some(delay.unwrap_or_else(|| {
            backoff.delay(attempts.saturating_sub(1), (self.parts.random_unit)())
        }))
    }

    fn decide(&mut self, pick: &SelectProvider) -> RoutingDecision {
        let failed = &*pick.failed_attempts;
        let last = failed.last().map(|attempt| &*attempt.provider);
        let last = last.and_then(|name| self.config.provider(name).cloned());
        let (tried, exclusions) = exclusions(pick);
        let constraints = RoutingConstraints {
            preferred: pick.preferred.clone(),
            no_failover: pick.no_failover,
            sticky_provider: pick.sticky_provider.clone(),
            ..exclusions
        };
        let others = self.order(&constraints, &tried, pick.last_tried());
        if pick.backoff_elapsed {
            // The breaker of the last provider may have opened during the delay, so the others
            // follow as alternatives.
            return RoutingDecision::TryInOrder(last.into_iter().chain(others).collect());
        }
        if failed.is_empty() && pick.preferred.is_none() {
            self.advance_round_robin(&others);
        }
        let max_attempts = self.config.settings.routing.max_attempts;
        let retry = last.as_ref().map(|last| &last.retry);
        let policy = RetryPolicy {
            max_attempts: max_attempts.saturating_sub(pick.hedges_abandoned),
            same_provider_retries: retry.map_or(0, |retry| retry.same_provider),
            max_retry_after: retry.map_or(Duration::ZERO, |retry| retry.max_retry_after),
        };
        match retry_policy::next_step(failed, others.len(), policy) {
            NextStep::GiveUp => RoutingDecision::TryInOrder(Vec::new()),
            NextStep::NextProvider => RoutingDecision::TryInOrder(others),
            NextStep::RetrySame(delay) => {
                match last.and_then(|last| self.retry_delay(delay, &last, failed)) {
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
        let (mut tried, constraints) = exclusions(pick);
        tried.push(Arc::clone(silent));
        let order = self.order(&constraints, &tried, Some(silent));
        if order.is_empty() || !self.retry_budget.withdraw(self.parts.clock.now()) {
            return Vec::new();
        }
        order
    }

    /// Returns the candidates for a background attempt. Empty if the retry budget does not allow
    /// one.
    fn background_candidates(&mut self, pick: &SelectProvider) -> Vec<Arc<Provider>> {
        let (tried, constraints) = exclusions(pick);
        let order = self.order(&constraints, &tried, pick.last_tried());
        // No retries at the same provider: there is time for another attempt later.
        let policy = RetryPolicy {
            max_attempts: self.config.settings.routing.max_attempts,
            same_provider_retries: 0,
            max_retry_after: Duration::ZERO,
        };
        let step = retry_policy::next_step(&pick.failed_attempts, order.len(), policy);
        let has_candidates = pick.hedging_against.is_none() && !order.is_empty();
        let now = self.parts.clock.now();
        // Withdraw last, and only for an attempt that will be made.
        if has_candidates
            && step == NextStep::NextProvider
            && self.retry_budget.withdraw_background(now)
        {
            order
        } else {
            Vec::new()
        }
    }

    /// Returns the providers in the strategy's order. Under `round_robin` the one behind
    /// `last_tried` is first.
    fn order(
        &self,
        constraints: &RoutingConstraints,
        tried: &[Arc<str>],
        last_tried: Option<&Arc<str>>,
    ) -> Vec<Arc<Provider>> {
        let providers = &self.config.providers;
        let candidates: Vec<_> = providers.iter().map(|one| to_candidate(one)).collect();
        let last_index = providers
            .iter()
            .position(|provider| Some(&provider.name) == last_tried);
        let by = OrderBy {
            strategy: self.config.settings.routing.strategy,
            random: (self.parts.random_unit)(),
            round_robin_next: last_index.map_or(self.round_robin_next, |index| index + 1),
        };
        ordering::order(&candidates, by, constraints, tried)
            .into_iter()
            .filter_map(|index| providers.get(index).cloned())
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

/// Returns the providers that this turn must not call again, and the limits of their contexts.
fn exclusions(pick: &SelectProvider) -> (Vec<Arc<str>>, RoutingConstraints) {
    let failed = &*pick.failed_attempts;
    let (before, since) = failed
        .split_at_checked(pick.attempts_before_truncation)
        .unwrap_or((failed, &[]));
    let is_final =
        |attempt: &&FailedAttempt| attempt.failure.fault.recovery() != Recovery::LargerContext;
    let tried = before.iter().filter(is_final).chain(since);
    let constraints = RoutingConstraints {
        larger_context_than: retry_policy::providers_too_small(since),
        token_estimate: pick.token_estimate,
        ..RoutingConstraints::default()
    };
    let tried = tried.map(|attempt| Arc::clone(&attempt.provider));
    (tried.collect(), constraints)
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
        let mut attempt = failed_attempts
            .saturating_add(pick.hedges_abandoned)
            .saturating_add(1);
        let candidates = if pick.is_background {
            self.background_candidates(&pick)
        } else if let Some(silent) = &pick.hedging_against {
            attempt = attempt.saturating_add(1);
            self.hedge_candidates(silent, &pick)
        } else {
            // A turn deposits once, with its first attempt.
            if attempt == 1 {
                self.retry_budget.deposit(self.parts.clock.now());
            }
            match self.decide(&pick) {
                RoutingDecision::TryInOrder(candidates) => candidates,
                RoutingDecision::RetryAfter(delay) => {
                    return Box::pin(ready(Selection::RetryAfter(delay)));
                }
            }
        };
        Box::pin(acquire_first(candidates, attempt, self.parts.clock))
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
