//! Forgetting a conversation: an operator's order, or because it is older than conversations are kept.

use std::time::Duration;

use super::desk::Desk;
use super::log::{Cancel, TurnLog};
use crate::chat::ConversationId;

/// How long what runs has to end.
const END_LIMIT: Duration = Duration::from_secs(3);

/// How long the store has to say that it is done.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Why a conversation is not known to be forgotten. It may be partly gone: it can be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForgotten {
    /// An answer of it does not end.
    Runs,
    /// The store does not do it, or does not say that it did.
    Store,
}

/// Stops what runs in the conversation, removes it from the store, with its saved answers and its turns that wait for a late answer, and tells who is in
/// it. A conversation that nobody knows is forgotten too.
///
/// # Errors
/// See [`NotForgotten`].
pub async fn forget(desk: &Desk, id: ConversationId) -> Result<(), NotForgotten> {
    // What is being answered at this moment is saved for nobody: it may be of this conversation.
    desk.shelf.disturb();
    let room = desk.rooms.find(id);
    // Nothing is opened in it until it is gone.
    let _closed = room.as_ref().map(|room| room.close());
    if let Some(running) = room.as_ref().and_then(|room| room.running()) {
        running.cancel(Cancel::Stopped);
        let ended = tokio::time::timeout(END_LIMIT, ended(&running)).await;
        ended.map_err(|_| NotForgotten::Runs)?;
    }
    desk.outbox.forget(id);
    match tokio::time::timeout(STORE_LIMIT, desk.store.forget(id)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(NotForgotten::Store),
    }
    if let Some(room) = &room {
        room.forget();
    }
    Ok(())
}

/// Waits for a turn's end.
async fn ended(log: &TurnLog) {
    let mut changes = log.changes();
    while !log.ended() && changes.changed().await.is_ok() {}
}
