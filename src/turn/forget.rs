//! Deletes a conversation: on an operator's request, or when its retention time is over.

use std::time::Duration;

use super::desk::Desk;
use super::log::{Cancel, TurnLog};
use crate::chat::ConversationId;

const END_LIMIT: Duration = Duration::from_secs(3);

const STORE_LIMIT: Duration = Duration::from_secs(5);

/// The reason why a deletion is not confirmed. Parts may be deleted already; it can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForgotten {
    Runs,
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
pub async fn forget(service: &Desk, id: ConversationId) -> Result<(), NotForgotten> {
    // No answer in progress may be cached any more: it might belong to this conversation.
    service.shelf.disturb();
    let conversation = service.rooms.find(id);
    // No turn may start until the conversation is deleted.
    let _guard = conversation
        .as_ref()
        .map(|conversation| conversation.close());
    if let Some(running) = conversation
        .as_ref()
        .and_then(|conversation| conversation.running())
    {
        running.cancel(Cancel::Stopped);
        tokio::time::timeout(END_LIMIT, ended(&running))
            .await
            .map_err(|_| NotForgotten::Runs)?;
    }
    service.outbox.forget(id);
    match tokio::time::timeout(STORE_LIMIT, service.store.forget(id)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(NotForgotten::Store),
    }
    if let Some(conversation) = &conversation {
        conversation.forget();
    }
    Ok(())
}

async fn ended(log: &TurnLog) {
    let mut changes = log.changes();
    while !log.ended() && changes.changed().await.is_ok() {}
}
