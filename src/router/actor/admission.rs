//! Asks ProviderActors for a permit, within limits of time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{ProviderLease, Selection};
use crate::provider::actor::permit::Permit;
use crate::provider::actor::{AcquireRejection, TryAcquire};
use crate::provider::clock::Clock;
use crate::provider::handle::Provider;

/// The time for a ProviderActor to answer; after that its provider counts as busy.
pub const ACTOR_TIMEOUT: Duration = Duration::from_millis(50);

/// The total time for a second round over the providers that did not answer in time, when no other
/// provider admitted the call. A visitor would rather wait for a busy machine, or for an actor that
/// is being rebuilt, than get a fallback answer while a provider is healthy.
pub const SECOND_ROUND_TIMEOUT: Duration = Duration::from_millis(500);

/// Asks the providers in order for a permit. Those whose actor did not answer in time are asked
/// again at the end, if no other provider gave one.
pub(super) async fn acquire_first(
    providers: Vec<Arc<Provider>>,
    attempt_number: u32,
    clock: Clock,
) -> Selection {
    let lease = |permit, provider| {
        Selection::Provider(ProviderLease {
            permit,
            provider,
            attempt_number,
        })
    };
    let mut earliest: Option<Duration> = None;
    let mut unanswered = Vec::new();
    for provider in providers {
        let Some(actor) = provider.actor.borrow().clone() else {
            unanswered.push(provider);
            continue;
        };
        match timeout(ACTOR_TIMEOUT, actor.send(TryAcquire)).await {
            Ok(Ok(Ok(permit))) => return lease(permit, provider),
            Ok(Ok(Err(rejection))) => {
                earliest = earliest.into_iter().chain(rejection.retry_at).min();
            }
            // The actor is being rebuilt or is behind: the provider counts as busy.
            Ok(Err(_)) | Err(_) => unanswered.push(provider),
        }
    }
    let count = u32::try_from(unanswered.len()).unwrap_or(u32::MAX).max(1);
    for provider in unanswered {
        match timeout(SECOND_ROUND_TIMEOUT / count, await_admission(&provider)).await {
            Ok(Ok(permit)) => return lease(permit, provider),
            Ok(Err(rejection)) => {
                earliest = earliest.into_iter().chain(rejection.retry_at).min();
            }
            Err(_) => {}
        }
    }
    Selection::Unavailable {
        retry_after: earliest.map(|at| at.saturating_sub(clock.now())),
    }
}

/// Waits for the answer of a provider's actor, or of its successor if it is being rebuilt.
async fn await_admission(provider: &Provider) -> Result<Permit, AcquireRejection> {
    let mut address = provider.actor.clone();
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
