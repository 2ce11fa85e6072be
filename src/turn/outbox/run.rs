//! The loop that has turns answered late, while providers can be asked.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::late;
use super::line::{Came, Waiting};
use crate::turn::desk::{Desk, Phase};

/// How often it is looked whether somebody may be asked, while anyone waits.
const LOOK: Duration = Duration::from_millis(100);

/// The pause before the store is asked once more who waits, or after a panic.
const PAUSE: Duration = Duration::from_secs(2);

/// How often it is looked who waits at other instances.
const OTHERS: Duration = Duration::from_secs(10);

/// Answers late, until the service goes down: then what is under way ends at once, and waits for the next start.
pub async fn run(desk: Arc<Desk>) {
    let mut phase = desk.phase.clone();
    tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        never = for_ever(&desk) => match never {},
        never = others(&desk) => match never {},
    }
}

async fn for_ever(desk: &Arc<Desk>) -> Infallible {
    desk.outbox.on().await;
    recall(desk).await;
    loop {
        let Err(_) = AssertUnwindSafe(rounds(desk)).catch_unwind().await;
        tracing::error!("late answers panicked; they go on");
        desk.outbox.line().abandon();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Those who wait at other instances, now and then: an instance that is gone answers nobody.
async fn others(desk: &Desk) -> Infallible {
    if desk.sharing.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(OTHERS).await;
        desk.outbox.on().await;
        for (conversation, turn) in desk.store.waiting().await.unwrap_or_default() {
            desk.outbox.stand(desk, conversation, turn);
        }
    }
}

/// Those who waited when the service went down.
async fn recall(desk: &Desk) {
    let waiting = loop {
        match desk.store.waiting().await {
            Ok(waiting) => break waiting,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    if !waiting.is_empty() {
        tracing::info!(turns = waiting.len(), "turns wait for a late answer");
    }
    for (conversation, turn) in waiting {
        desk.outbox.stand(desk, conversation, turn);
    }
}

async fn rounds(desk: &Arc<Desk>) -> Infallible {
    let outbox = &desk.outbox;
    let mut under_way = FuturesUnordered::new();
    loop {
        if outbox.line().is_empty() {
            outbox.came.notified().await;
        }
        let on = outbox.is_on();
        let well = on
            && desk
                .table()
                .backends
                .iter()
                .any(|backend| late::is_well(desk, backend));
        let next = well.then(|| outbox.begin(desk.clock.now())).flatten();
        if let Some(one) = next {
            under_way.push(guarded(desk, one));
            continue;
        }
        tokio::select! {
            Some((one, came)) = under_way.next() => {
                if outbox.settle(one, came, desk.clock.now()) && came != Came::Answered {
                    forget(desk, one);
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One late answer. A panic is a failure of it.
async fn guarded(desk: &Arc<Desk>, one: Waiting) -> (Waiting, Came) {
    let came = AssertUnwindSafe(late::answer(desk, one))
        .catch_unwind()
        .await;
    (
        one,
        came.unwrap_or_else(|_| {
            tracing::error!(turn = %one.turn, "a late answer panicked");
            Came::Failed
        }),
    )
}

/// One had to go because too many wait.
pub(super) fn let_go(desk: &Desk, gone: Waiting) {
    tracing::warn!(turn = %gone.turn, "too many turns wait for a late answer; the oldest gets none");
    forget(desk, gone);
}

/// It waits no more, also after a restart. On its way when the call returns; at worst it is looked at once more then.
fn forget(desk: &Desk, one: Waiting) {
    drop(desk.store.write_waiting(one.conversation, one.turn, false));
}
