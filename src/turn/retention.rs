//! Deletes conversations: on an operator's request, and those whose last turn is older than
//! `chat.retention`.
//!
//! The load is bounded: a pass over all conversations goes through them in small batches, and
//! passes start at intervals of a tenth of the retention time, but between a second and ten
//! minutes.

use std::sync::Arc;
use std::time::Duration;

use super::deps::TurnDeps;
use super::log::{Cancel, TurnLog};
use super::service::TurnService;
use crate::domain::{ConversationId, Timestamp};
use crate::store::ExpiredPage;

const BATCH_SIZE: usize = 500;

const BATCH_INTERVAL: Duration = Duration::from_secs(1);

const MIN_PASS_INTERVAL: Duration = Duration::from_secs(1);
const MAX_PASS_INTERVAL: Duration = Duration::from_secs(10 * 60);

const SCAN_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn run_retention(service: Arc<TurnService>) {
    let mut config_watch = service.config_watch.clone();
    // Where the running pass goes on. `None` between two passes.
    let mut cursor = None;
    let mut deleted = 0;
    loop {
        let retention = service.config().settings.chat.retention;
        let pause = if cursor.is_some() {
            BATCH_INTERVAL
        } else {
            (retention / 10).clamp(MIN_PASS_INTERVAL, MAX_PASS_INTERVAL)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A reload may have changed the retention time.
            Ok(()) = config_watch.changed() => continue,
        }
        let retention = service.config().settings.chat.retention;
        let before = service.clock.wall().saturating_sub(retention);
        let (next, batch_deleted) = expire_batch(&service, before, cursor).await;
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
async fn expire_batch(
    deps: &TurnDeps,
    before: Timestamp,
    cursor: Option<ConversationId>,
) -> (Option<ConversationId>, usize) {
    let scan = deps.store.expired_conversations(before, cursor, BATCH_SIZE);
    let Ok(Ok(ExpiredPage {
        conversations: found,
        next_cursor: next,
    })) = tokio::time::timeout(SCAN_TIMEOUT, scan).await
    else {
        return (None, 0);
    };
    let mut deleted = 0;
    for id in found {
        // A turn that has just started may not be in the store yet.
        let is_in_use = deps
            .conversations
            .get(id)
            .is_some_and(|conversation| !conversation.logs().is_empty());
        if !is_in_use && delete_conversation(deps, id).await.is_ok() {
            deleted += 1;
        }
    }
    (next, deleted)
}

const TURN_END_TIMEOUT: Duration = Duration::from_secs(3);

const STORE_DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a deletion is not confirmed. Parts may be deleted already; it can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteError {
    StillRunning,
    /// The store failed or did not answer in time.
    Store,
}

/// Deletes a conversation from the store, the answer cache and the follow-up queue.
///
/// Stops its running turn first and notifies its open sessions at the end. An unknown conversation
/// counts as deleted.
///
/// # Errors
/// See [`DeleteError`].
pub async fn delete_conversation(deps: &TurnDeps, id: ConversationId) -> Result<(), DeleteError> {
    // No answer in progress may be cached any more: it might belong to this conversation.
    deps.answer_cache.invalidate_in_flight();
    let conversation = deps.conversations.get(id);
    // No turn may start until the conversation is deleted.
    let _guard = conversation
        .as_ref()
        .map(|conversation| conversation.begin_deletion());
    if let Some(running) = conversation
        .as_ref()
        .and_then(|conversation| conversation.running_turn())
    {
        running.cancel(Cancel::Stopped);
        tokio::time::timeout(TURN_END_TIMEOUT, wait_until_finished(&running))
            .await
            .map_err(|_| DeleteError::StillRunning)?;
    }
    deps.followup_queue.remove_conversation(id);
    match tokio::time::timeout(STORE_DELETE_TIMEOUT, deps.store.delete_conversation(id)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(DeleteError::Store),
    }
    if let Some(conversation) = &conversation {
        conversation.reset();
    }
    Ok(())
}

async fn wait_until_finished(log: &TurnLog) {
    let mut changes = log.changes();
    while !log.is_finished() && changes.changed().await.is_ok() {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::provider::paused_system::{Paused, advance};
    use crate::provider::scripted_client::reply;
    use crate::store::ConversationStore as _;
    use crate::store::flaky::StoreFault;
    use crate::turn::protocol_reader::ProtocolClient;
    use crate::turn::test_service::{TestServiceBuilder, conversation_id};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[actix_rt::test(system = "Paused")]
    async fn retention_deletes_expired_turns_only() {
        let service = TestServiceBuilder::with_scripts([vec![reply("Hello.")]]).start();
        // Three turns of 1970, and one of today.
        service.store_old_turns(3).await;
        let recent = service
            .turns
            .conversations
            .get_or_create(conversation_id(2));
        let question = crate::turn::test_service::message("m", "What is new?");
        let log = service
            .turns
            .start_turn(&recent, question, service.turns.default_options());
        let log = log.unwrap_or_else(|_| panic!("refused"));
        assert_eq!(ProtocolClient::follow(&log).await.done().text, "Hello.");
        service.reload(|settings| settings.chat.retention = DAY);
        service.store.set_fault(StoreFault::Failing);
        actix::spawn(run_retention(Arc::clone(&service.turns)));
        advance(MAX_PASS_INTERVAL + BATCH_INTERVAL).await;
        service.store.set_fault(StoreFault::None);
        let turns = async |n| {
            service
                .store
                .turns(conversation_id(n), None, 9)
                .await
                .unwrap()
                .len()
        };
        assert_eq!(
            (turns(1).await, turns(2).await),
            (3, 1),
            "a failing store loses nothing"
        );
        advance(MAX_PASS_INTERVAL + BATCH_INTERVAL).await;
        assert_eq!((turns(1).await, turns(2).await), (0, 1));
    }

    #[actix_rt::test(system = "Paused")]
    async fn pass_covers_all_conversations_in_bounded_batches() {
        let service = TestServiceBuilder::with_scripts([vec![]]).start();
        let count = BATCH_SIZE + 7;
        for n in 0..count {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let turn = crate::domain::TurnId::next_after(None, 5, 0);
            let record = crate::domain::TurnRecord::new(
                turn,
                "m".parse().unwrap(),
                Timestamp(5),
                "q".to_owned(),
                None,
            );
            service
                .store
                .write_turn(ConversationId::from_random(bytes), record)
                .await
                .unwrap();
        }
        let (next, deleted) = expire_batch(&service.turns, Timestamp(6), None).await;
        assert_eq!((next.is_some(), deleted), (true, BATCH_SIZE));
        assert_eq!(
            expire_batch(&service.turns, Timestamp(6), next).await,
            (None, 7)
        );
        assert_eq!(
            expire_batch(&service.turns, Timestamp(6), None).await,
            (None, 0)
        );
    }
}
