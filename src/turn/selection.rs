//! Asks the router for the provider of the next attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::deps::{TurnDeps, TurnOptions};
use crate::domain::TokenEstimate;
use crate::router::actor::{
    ACTOR_TIMEOUT, MAILBOX_CAPACITY, SECOND_ROUND_TIMEOUT, SelectProvider, Selection,
};
use crate::router::retry_policy::FailedAttempt;

/// No attempt starts if less time than this is left of the turn's limit.
pub(super) const MIN_TIME_FOR_ATTEMPT: Duration = Duration::from_millis(500);

const ROUTER_RESTART_TIMEOUT: Duration = Duration::from_millis(200);

/// The attempts of a turn so far, as the router needs to know them.
#[derive(Default)]
pub(super) struct AttemptHistory {
    /// In the order of their ends.
    pub(super) failed: Vec<FailedAttempt>,
    /// Attempts that lost a hedged race. They are neither failures nor successes.
    pub(super) hedges_abandoned: u32,
    pub(super) backoff_elapsed: bool,
    /// The number of failed attempts when the history was halved. `None` if it was not.
    pub(super) history_halved_after: Option<usize>,
    pub(super) token_estimate: TokenEstimate,
    pub(super) sticky_provider: Option<Arc<str>>,
}

impl AttemptHistory {
    pub(super) fn select_request(&self, options: &TurnOptions) -> SelectProvider {
        SelectProvider {
            failed_attempts: self.failed.as_slice().into(),
            preferred: options.preferred_provider.clone(),
            no_failover: options.no_failover,
            backoff_elapsed: self.backoff_elapsed,
            attempts_before_truncation: self.history_halved_after.unwrap_or_default(),
            token_estimate: self.token_estimate,
            sticky_provider: self.sticky_provider.clone(),
            hedges_abandoned: self.hedges_abandoned,
            hedging_against: None,
            is_background: options.is_background,
            queue_permit: None,
        }
    }
}

/// Asks the router for the next provider.
///
/// Waits a moment for a router that is being restarted. Returns `Selection::Unavailable` if it
/// does not answer in time, or at once if its queue is full.
pub(super) async fn select_provider(deps: &TurnDeps, request: &SelectProvider) -> Selection {
    let mut router = deps.router.clone();
    for _ in 0..2 {
        let addr = timeout(ROUTER_RESTART_TIMEOUT, router.wait_for(Option::is_some)).await;
        let Some(actor) = addr.ok().and_then(|addr| addr.ok()?.clone()) else {
            break;
        };
        // The router asks the providers one by one, each for at most `ACTOR_TIMEOUT`.
        let limit = SECOND_ROUND_TIMEOUT
            + ACTOR_TIMEOUT * (u32::try_from(deps.config().providers.len()).unwrap_or(1) + 1);
        let Some(queue_permit) = deps.router_queue.try_acquire(MAILBOX_CAPACITY) else {
            break;
        };
        let request = SelectProvider {
            queue_permit: Some(Arc::new(queue_permit)),
            ..request.clone()
        };
        match timeout(limit, actor.send(request)).await {
            Ok(Ok(route)) => return route,
            // The actor ended while the request was queued: wait for its successor.
            Ok(Err(_)) => drop(timeout(ROUTER_RESTART_TIMEOUT, router.changed()).await),
            Err(_) => break,
        }
    }
    tracing::warn!("router did not answer");
    Selection::Unavailable { retry_after: None }
}
