//! Persistent state: conversations, turns, breakers, incidents and cached answers.
//!
//! Three traits with several implementations, all held to the same contract tests.

mod cached_answer;
pub(crate) mod codec;
mod documents;
mod memory;
mod open;
pub mod redis;
mod sled;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub mod flaky;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::domain::{ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnUpdate};

pub use self::cached_answer::{CacheKey, CachedAnswer};
pub use self::documents::{
    BreakerRecord, DailySpendRecord, DocumentKind, DocumentStore, MAX_INCIDENTS,
};
pub use self::memory::MemoryStore;
pub use self::open::{OpenedStore, open};
#[cfg(test)]
pub(crate) use self::redis::server;
pub use self::redis::{ReplicatedStore, RetentionTerms};
pub use self::sled::SledStore;

/// A failure of the store. Never fatal to a chat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the data folder is in use by another process")]
    Locked,
    /// The tree does not open, or a record cannot be decoded.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store does not respond: it is closed, full or too slow.
    #[error("the store does not work: {0}")]
    Unavailable(String),
}

/// The result of a call. Without a type, that of a change.
pub type StoreFuture<'s, T = ()> = BoxFuture<'s, Result<T, StoreError>>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationRecord {
    #[serde(rename = "began")]
    pub started_at: Timestamp,
    /// The JWT subject of the visitor who owns it. `None` for an anonymous visitor.
    pub subject: Option<String>,
}

/// One page of a scan for expired conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiredPage {
    pub conversations: Vec<ConversationId>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<ConversationId>,
}

/// Storage of conversations and of the service's own state.
///
/// Every call returns within 5 s. A failed call costs durability, never an answer.
///
/// A change is submitted when the method is called, even if its future is never polled; dropping
/// the future only gives up waiting. A change that failed may still be applied later, but never
/// partly. A read sees every change acknowledged before it.
///
/// A turn, message, cached answer or document that cannot be decoded (damaged, or written by a
/// later version) is treated as absent.
pub trait Store: ConversationStore + AnswerStore + DocumentStore {
    /// Waits, for at most a second, until other instances can read every acknowledged change.
    fn flush_replication(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// `true` if other processes write to the same data.
    fn is_shared(&self) -> bool {
        false
    }

    /// `true` if acknowledged changes survive the process.
    fn is_durable(&self) -> bool {
        true
    }

    /// `true` if a read has been running for longer than any caller waits: the disk hangs.
    fn is_stalled(&self) -> bool {
        false
    }

    /// The current problem as a sentence for the public status page, or `None`.
    ///
    /// Cheap enough to call every second.
    fn problem(&self) -> Option<&'static str> {
        None
    }
}

/// Storage of conversations and their turns.
pub trait ConversationStore: Send + Sync {
    /// Returns the conversation's record, or `None` if it was never written.
    ///
    /// # Errors
    /// `Damaged` if the record exists but cannot be decoded: its owner must not be guessed.
    fn conversation(&self, id: ConversationId) -> StoreFuture<'_, Option<ConversationRecord>>;

    /// Writes the conversation's record unless it has one.
    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> StoreFuture<'_>;

    /// Returns the visitor's most recently started conversation.
    ///
    /// `None` if there is none or its index entry cannot be decoded.
    fn latest_conversation(&self, subject: String) -> StoreFuture<'_, Option<ConversationId>>;

    /// Inserts or replaces a turn and returns once it is on disk.
    ///
    /// Concurrent writes share one flush. Writes of one turn take effect in the order of the calls.
    fn write_turn(&self, id: ConversationId, turn: TurnRecord) -> StoreFuture<'_>;

    /// Applies an update to an ended turn, if it exists, in order with calls of `write_turn`.
    ///
    /// A follow-up answer also clears the turn's pending mark.
    fn update_turn(&self, id: ConversationId, turn: TurnId, change: TurnUpdate) -> StoreFuture<'_>;

    /// Marks whether a turn waits for a follow-up answer. The turn itself may be written later.
    fn set_followup_pending(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> StoreFuture<'_>;

    /// Returns the turns waiting for a follow-up answer, oldest first. That includes turns that
    /// were running when an earlier process died.
    fn pending_followups(&self) -> StoreFuture<'_, Vec<(ConversationId, TurnId)>>;

    /// Queues the text of a running turn so far. A crash loses at most half a second of it.
    ///
    /// Only the newest queued checkpoint of a turn is written, in order with calls of `write_turn`.
    /// It has no effect unless the stored turn is running, so it cannot bring back a turn that
    /// ended or was deleted.
    fn checkpoint(&self, id: ConversationId, turn: TurnRecord);

    fn turn(&self, id: ConversationId, turn: TurnId) -> StoreFuture<'_, Option<TurnRecord>>;

    /// Returns the turn that a message started, so that a resent message starts no second turn.
    ///
    /// If two turns have the same message, it returns the one written first.
    fn turn_by_message(
        &self,
        id: ConversationId,
        message: ClientMsgId,
    ) -> StoreFuture<'_, Option<TurnRecord>>;

    /// Returns the last `limit` turns, oldest first. With `before`, only earlier turns.
    fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<TurnRecord>>;

    /// Scans up to `limit` conversations after `cursor` for those whose last turn started before
    /// `before`.
    ///
    /// A conversation without turns counts from its start; if its record cannot be decoded either,
    /// it is not returned. The scan order is the store's own and stable. A conversation written to
    /// during the scan may or may not be returned.
    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> StoreFuture<'_, ExpiredPage>;

    /// Deletes a conversation with its turns and the cached answers that came from it.
    ///
    /// Stop its running turns first: a turn written later creates the conversation again.
    fn delete_conversation(&self, id: ConversationId) -> StoreFuture<'_>;
}

/// Storage of cached answers.
pub trait AnswerStore: Send + Sync {
    /// Returns a cached answer. `None` also if it was written by an unsupported version.
    fn get_answer(&self, key: CacheKey) -> StoreFuture<'_, Option<CachedAnswer>>;

    /// Returns the keys of all cached answers, oldest first. Undecodable answers count as oldest.
    fn answer_keys(&self) -> StoreFuture<'_, Vec<CacheKey>>;

    /// Inserts or replaces a cached answer, visible on return but not yet safe from a crash.
    ///
    /// It is deleted with its conversation. The caller bounds the number of answers.
    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> StoreFuture<'_>;

    fn remove_answers(&self, keys: Vec<CacheKey>) -> StoreFuture<'_>;
}
