//! The loop that answers pending follow-ups while providers are available.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::queue::{FollowupOutcome, PendingFollowup};
use super::{answer, clear_pending};
use crate::provider::handle::Provider;
use crate::turn::deps::ShutdownPhase;
use crate::turn::service::TurnService;

/// The interval at which the queue is checked while turns wait.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The pause before a failed store read is repeated, and after a panic.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The interval at which the store is searched for turns that wait at other instances.
const PEER_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Answers follow-ups until shutdown. Then running answers end at once and wait for the next start.
pub async fn run(service: Arc<TurnService>) {
    let mut phase = service.phase.clone();
    tokio::select! {
        _ = phase.wait_for(|phase| *phase != ShutdownPhase::Running) => {}
        never = run_forever(&service) => match never {},
        never = poll_other_instances(&service) => match never {},
    }
}

/// Restores the queue from the store, then answers. A panic restarts the loop.
async fn run_forever(service: &Arc<TurnService>) -> Infallible {
    service.followup_queue.wait_enabled().await;
    restore_waiting(service).await;
    loop {
        let Err(_) = AssertUnwindSafe(answer_loop(service)).catch_unwind().await;
        tracing::error!("follow-up loop panicked, restarting");
        service.followup_queue.order.lock().reset_running();
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Regularly adds turns that wait at other instances: an instance that is gone answers none.
async fn poll_other_instances(service: &TurnService) -> Infallible {
    if service.replication.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(PEER_POLL_INTERVAL).await;
        service.followup_queue.wait_enabled().await;
        for (conversation, turn) in service.store.pending_followups().await.unwrap_or_default() {
            service
                .followup_queue
                .insert(&*service.store, conversation, turn);
        }
    }
}

/// Adds the turns that waited when the service stopped. Retries until the store answers.
async fn restore_waiting(service: &TurnService) {
    let pending = loop {
        match service.store.pending_followups().await {
            Ok(pending) => break pending,
            Err(_) => tokio::time::sleep(RETRY_DELAY).await,
        }
    };
    if !pending.is_empty() {
        tracing::info!(turns = pending.len(), "follow-ups restored");
    }
    for (conversation, turn) in pending {
        service
            .followup_queue
            .insert(&*service.store, conversation, turn);
    }
}

async fn answer_loop(service: &Arc<TurnService>) -> Infallible {
    let outbox = &service.followup_queue;
    let mut running = FuturesUnordered::new();
    loop {
        // Only an empty queue needs no polling. Running answers keep their place in it.
        if outbox.order.lock().is_empty() {
            outbox.changed.notified().await;
        }
        let providers = Arc::clone(&service.config().providers);
        let can_serve = |provider: &Arc<Provider>| answer::can_serve(service, provider);
        let next = if outbox.is_enabled() && providers.iter().any(can_serve) {
            let now = service.clock.now();
            outbox.order.lock().start_next(now, (outbox.random_unit)())
        } else {
            None
        };
        if let Some(followup) = next {
            running.push(catch_panic(service, followup));
            continue;
        }
        tokio::select! {
            Some((followup, outcome)) = running.next() => {
                let now = service.clock.now();
                let mut order = outbox.order.lock();
                let is_over = order.record_outcome(followup, outcome, now, (outbox.random_unit)());
                drop(order);
                // An answer is stored together with the removal from the pending turns.
                if is_over && outcome != FollowupOutcome::Answered {
                    clear_pending(&*service.store, followup);
                }
            }
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

/// Answers one follow-up. A panic counts as a failure.
async fn catch_panic(
    service: &Arc<TurnService>,
    followup: PendingFollowup,
) -> (PendingFollowup, FollowupOutcome) {
    let answered = AssertUnwindSafe(answer::answer_pending(service, followup))
        .catch_unwind()
        .await;
    let outcome = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %followup.turn, "follow-up panicked");
        FollowupOutcome::Failed
    });
    (followup, outcome)
}
