//! What outlives the process: conversations, turns with their drafts, the breakers' state. One trait, one contract suite, several stores.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::chat::{At, ClientMsgId, ConversationId, TurnId, TurnRecord};

/// Why a store did not do what it was asked. Never fatal to a chat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is locked by another process.
    #[error("the data folder is in use by another process")]
    Locked,
    /// It does not open, or a record does not read.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// It does not answer: closed, full, too slow.
    #[error("the store does not work: {0}")]
    Broken(String),
}

/// A conversation's own record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationRecord {
    /// When it began.
    pub began: At,
    /// The visitor it belongs to; none for an anonymous one.
    pub subject: Option<String>,
}

/// A breaker's state as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerRecord {
    /// The provider.
    pub provider: String,
    /// Whether it was blocked (key or quota refused) rather than open.
    pub blocked: bool,
    /// How many times in a row its probe failed.
    pub strikes: u32,
    /// When it was to be tried again.
    pub until: At,
    /// Why, in the fault table's words.
    pub reason: String,
}

/// Where things are kept. Every call returns within the store's own limit (5 s at most); a failure costs durability, never an answer.
pub trait Store: Send + Sync {
    /// The conversation's record, if it was ever written.
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>>;

    /// Writes the conversation's record where there is none yet.
    fn begin(&self, id: ConversationId, record: ConversationRecord) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Writes a turn, new or known, and returns when it is on disk. Writes that are ready together share one flush.
    ///
    /// Writes of one turn take effect in the order of the calls.
    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The text of a running turn so far: queued, not waited for, lost at worst by a crash within half a second.
    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord);

    /// One turn.
    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>>;

    /// The turn that a message opened, if any: the same message again is the same turn.
    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>>;

    /// The last `limit` turns, those before `before` if given; oldest first.
    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>>;

    /// Removes a conversation with all its turns.
    fn forget(&self, conversation: ConversationId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The breakers as last written.
    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>>;

    /// Writes one breaker's state; `None` for one that is closed.
    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
}
