//! What there is of a conversation: what the store tells of it in time, and what is in memory, which is newer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::log::TurnLog;
use super::rooms::Room;
use crate::chat::{TurnId, TurnRecord};
use crate::store::Store;

/// Turns of a conversation, twice where they are in both.
pub struct Past {
    /// The last that the store has, oldest first; none where it does not tell in time.
    pub stored: Option<Vec<TurnRecord>>,
    /// All whose logs are not dropped yet, oldest first.
    pub logs: Vec<Arc<TurnLog>>,
}

/// Reads the last turns, at most `limit` of the store's, those before `before` if given. The store is waited for as long as `patience` says, and not
/// asked at all where it has nothing that is not in memory.
pub async fn read(
    store: &dyn Store,
    room: &Room,
    before: Option<TurnId>,
    limit: usize,
    patience: Duration,
) -> Past {
    let here = room.all_here();
    let stored = match &here {
        Some(_) => Some(Vec::new()),
        None => timeout(patience, store.turns(room.id(), before, limit))
            .await
            .ok()
            .and_then(Result::ok),
    };
    // Looked at after the store, which has a turn before its log is dropped: so none falls between the two.
    let mut logs = here.unwrap_or_else(|| room.logs());
    logs.retain(|log| before.is_none_or(|before| log.turn() < before));
    Past { stored, logs }
}
