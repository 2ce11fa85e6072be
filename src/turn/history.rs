//! Reads the recent turns of a conversation from the store and from memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::conversations::LiveConversation;
use super::log::TurnLog;
use crate::domain::{TurnId, TurnRecord};
use crate::store::Store;

/// The turns of a conversation. A turn may be in both lists; its log is newer than its record.
pub struct History {
    /// The last turns in the store, oldest first. `None` if the store did not answer in time.
    pub stored: Option<Vec<TurnRecord>>,
    pub logs: Vec<Arc<TurnLog>>,
}

/// Loads the turns before `before` (`None`: all), at most `limit` of them from the store.
///
/// The store gets `store_timeout` to answer, and is not asked if all turns are in memory.
pub async fn load_history(
    store: &dyn Store,
    conversation: &LiveConversation,
    before: Option<TurnId>,
    limit: usize,
    store_timeout: Duration,
) -> History {
    let complete_logs = conversation.complete_logs();
    let stored = match &complete_logs {
        Some(_) => Some(Vec::new()),
        None => timeout(store_timeout, store.turns(conversation.id(), before, limit))
            .await
            .ok()
            .and_then(Result::ok),
    };
    // Read the logs after the store: a turn is stored before its log is evicted, so none is missed.
    let mut logs = complete_logs.unwrap_or_else(|| conversation.logs());
    logs.retain(|log| before.is_none_or(|before| log.turn() < before));
    History { stored, logs }
}
