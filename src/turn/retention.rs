//! Deletes conversations whose last turn is older than `chat.retention`.
//!
//! The load is bounded: a pass over all conversations goes through them in small batches, and
//! passes start at intervals of a tenth of the retention time, but between a second and ten
//! minutes.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::forget::forget;
use crate::chat::{At, ConversationId};
use crate::store::Idle;

const LOOK: usize = 500;

const STEP: Duration = Duration::from_secs(1);

const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10 * 60);

const LIMIT: Duration = Duration::from_secs(5);

pub async fn retain(service: Arc<Desk>) {
    let mut config_watch = service.published.clone();
    // Where the running pass goes on. `None` between two passes.
    let mut cursor = None;
    let mut deleted = 0;
    loop {
        let retention = service.table().settings.chat.retention;
        let pause = if cursor.is_some() {
            STEP
        } else {
            (retention / 10).clamp(LEAST, MOST)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A reload may have changed the retention time.
            Ok(()) = config_watch.changed() => continue,
        }
        let retention = service.table().settings.chat.retention;
        let before = service.clock.wall().minus(retention);
        let (next, batch_deleted) = step(&service, before, cursor).await;
        cursor = next;
        deleted += batch_deleted;
        if cursor.is_none() && deleted > 0 {
            tracing::info!(
                conversations = deleted,
                "deleted conversations older than chat.retention"
            );
            deleted = 0;
        }
    }
}

/// Deletes the conversations of one batch whose last turn is older than `before`.
///
/// Returns the cursor of the next batch, `None` at the end, and the number of deleted
/// conversations. If the store does not answer, the pass ends.
async fn step(
    service: &Desk,
    before: At,
    cursor: Option<ConversationId>,
) -> (Option<ConversationId>, usize) {
    let scan = service.store.idle(before, cursor, LOOK);
    let Ok(Ok(Idle { found, next })) = tokio::time::timeout(LIMIT, scan).await else {
        return (None, 0);
    };
    let mut deleted = 0;
    for id in found {
        // A turn that has just started may not be in the store yet.
        let is_in_use = service
            .rooms
            .find(id)
            .is_some_and(|conversation| !conversation.logs().is_empty());
        if !is_in_use && forget(service, id).await.is_ok() {
            deleted += 1;
        }
    }
    (next, deleted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::provider::paused::{Paused, pass};
    use crate::provider::scripted::says;
    use crate::store::Store as _;
    use crate::store::flaky::Trouble;
    use crate::turn::reader::Reader;
    use crate::turn::stage::{House, conversation};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[actix_rt::test(system = "Paused")]
    async fn retention_deletes_expired_turns_only() {
        let service = House::following([vec![says("Hello.")]]).open();
        // Three turns of 1970, and one of today.
        service.remember(3).await;
        let recent = service.desk.rooms.enter(conversation(2));
        let question = crate::turn::stage::question("m", "What is new?");
        let log = service.desk.open(&recent, question, service.desk.usual());
        let log = log.unwrap_or_else(|_| panic!("refused"));
        assert_eq!(Reader::follow(&log).await.done().text, "Hello.");
        service.reload(|settings| settings.chat.retention = DAY);
        service.store.set(Trouble::Fails);
        actix::spawn(retain(Arc::clone(&service.desk)));
        pass(MOST + STEP).await;
        service.store.set(Trouble::None);
        let turns = async |n| {
            service
                .store
                .turns(conversation(n), None, 9)
                .await
                .unwrap()
                .len()
        };
        assert_eq!(
            (turns(1).await, turns(2).await),
            (3, 1),
            "a failing store loses nothing"
        );
        pass(MOST + STEP).await;
        assert_eq!((turns(1).await, turns(2).await), (0, 1));
    }

    #[actix_rt::test(system = "Paused")]
    async fn pass_covers_all_conversations_in_bounded_batches() {
        let service = House::following([vec![]]).open();
        let count = LOOK + 7;
        for n in 0..count {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let turn = crate::chat::TurnId::after(None, 5, 0);
            let record = crate::chat::TurnRecord::asked(
                turn,
                "m".parse().unwrap(),
                At(5),
                "q".to_owned(),
                None,
            );
            service
                .store
                .write_turn(ConversationId::from_random(bytes), record)
                .await
                .unwrap();
        }
        let (next, deleted) = step(&service.desk, At(6), None).await;
        assert_eq!((next.is_some(), deleted), (true, LOOK));
        assert_eq!(step(&service.desk, At(6), next).await, (None, 7));
        assert_eq!(step(&service.desk, At(6), None).await, (None, 0));
    }
}
