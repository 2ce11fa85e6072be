//! The loop that answers pending follow-ups while providers are available.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::late;
use super::line::{Came, Waiting};
use crate::turn::desk::{Desk, Phase};

/// The interval at which the queue is checked while turns wait.
const LOOK: Duration = Duration::from_millis(100);

/// The pause before a failed store read is repeated, and after a panic.
const PAUSE: Duration = Duration::from_secs(2);

/// The interval at which the store is searched for turns that wait at other instances.
const OTHERS: Duration = Duration::from_secs(10);

/// Answers follow-ups until shutdown. Then running answers end at once and wait for the next start.
pub async fn run(service: Arc<Desk>) {
    let mut phase = service.phase.clone();
    tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        never = for_ever(&service) => match never {},
        never = others(&service) => match never {},
    }
}

/// Restores the queue from the store, then answers. A panic restarts the loop.
async fn for_ever(service: &Arc<Desk>) -> Infallible {
    service.outbox.on().await;
    recall(service).await;
    loop {
        let Err(_) = AssertUnwindSafe(rounds(service)).catch_unwind().await;
        tracing::error!("follow-up loop panicked, restarting");
        service.outbox.line().abandon();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Regularly adds turns that wait at other instances: an instance that is gone answers none.
async fn others(service: &Desk) -> Infallible {
    if service.sharing.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(OTHERS).await;
        service.outbox.on().await;
        for (conversation, turn) in service.store.waiting().await.unwrap_or_default() {
            service.outbox.stand(service, conversation, turn);
        }
    }
}

/// Adds the turns that waited when the service stopped. Retries until the store answers.
async fn recall(service: &Desk) {
    let pending = loop {
        match service.store.waiting().await {
            Ok(pending) => break pending,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    if !pending.is_empty() {
        tracing::info!(turns = pending.len(), "follow-ups restored");
    }
    for (conversation, turn) in pending {
        service.outbox.stand(service, conversation, turn);
    }
}

async fn rounds(service: &Arc<Desk>) -> Infallible {
    let outbox = &service.outbox;
    let mut running = FuturesUnordered::new();
    loop {
        // Only an empty queue needs no polling. Running answers keep their place in it.
        if outbox.line().is_empty() {
            outbox.came.notified().await;
        }
        let is_available = outbox.is_on()
            && service
                .table()
                .backends
                .iter()
                .any(|provider| late::is_well(service, provider));
        let next = is_available
            .then(|| outbox.begin(service.clock.now()))
            .flatten();
        if let Some(followup) = next {
            running.push(guarded(service, followup));
            continue;
        }
        tokio::select! {
            Some((followup, outcome)) = running.next() => {
                let is_over = outbox.settle(followup, outcome, service.clock.now());
                // An answer is stored together with the removal from the pending turns.
                if is_over && outcome != Came::Answered {
                    forget(service, followup);
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Answers one follow-up. A panic counts as a failure.
async fn guarded(service: &Arc<Desk>, followup: Waiting) -> (Waiting, Came) {
    let answered = AssertUnwindSafe(late::answer(service, followup))
        .catch_unwind()
        .await;
    let outcome = answered.unwrap_or_else(|_| {
        tracing::error!(turn = %followup.turn, "follow-up panicked");
        Came::Failed
    });
    (followup, outcome)
}

/// Removes a turn that the full queue dropped.
pub(super) fn let_go(service: &Desk, dropped: Waiting) {
    tracing::warn!(turn = %dropped.turn, "follow-up queue full, oldest turn dropped");
    forget(service, dropped);
}

/// Removes a turn from the pending ones in the store.
///
/// Not awaited: if the write is lost, the next start checks the turn once more.
fn forget(service: &Desk, followup: Waiting) {
    drop(
        service
            .store
            .write_waiting(followup.conversation, followup.turn, false),
    );
}
