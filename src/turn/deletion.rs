//! Deletes a conversation: on an operator's request, or when its retention time is over.

use std::time::Duration;

use super::log::{Cancel, TurnLog};
use super::service::TurnService;
use crate::domain::ConversationId;

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
pub async fn delete_conversation(
    service: &TurnService,
    id: ConversationId,
) -> Result<(), DeleteError> {
    // No answer in progress may be cached any more: it might belong to this conversation.
    service.answer_cache.invalidate_in_flight();
    let conversation = service.conversations.get(id);
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
    service.followup_queue.remove_conversation(id);
    match tokio::time::timeout(STORE_DELETE_TIMEOUT, service.store.delete_conversation(id)).await {
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
