//! Persistent state: conversations, turns, breakers, incidents and cached answers.
//!
//! One trait with several implementations, all held to the same contract tests.

mod cached_answer;
pub(crate) mod codec;
mod memory;
mod open;
pub mod redis;
mod sled;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub mod flaky;

use futures_util::future::BoxFuture;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::{
    ClientMsgId, ConversationId, FaultKind, Incident, ServiceLifetime, Timestamp, TurnId,
    TurnRecord, TurnUpdate,
};

pub use self::cached_answer::{CacheKey, CachedAnswer};
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationRecord {
    #[serde(rename = "began")]
    pub started_at: Timestamp,
    /// The JWT subject of the visitor who owns it. `None` for an anonymous visitor.
    pub subject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerRecord {
    pub provider: String,
    /// The provider rejected its key or quota, so the breaker is blocked rather than open.
    #[serde(rename = "blocked")]
    pub is_blocked: bool,
    #[serde(rename = "strikes")]
    pub failed_probes: u32,
    #[serde(rename = "until")]
    pub retry_at: Timestamp,
    /// The reason in the wire protocol's words. Several faults share one reason.
    pub reason: String,
    /// The exact fault. `None` if the writer did not record it or this version does not know it.
    #[serde(default, deserialize_with = "deserialize_known_fault")]
    pub fault: Option<FaultKind>,
}

/// Reads a fault, mapping one that this version does not know to `None`.
fn deserialize_known_fault<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<FaultKind>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum MaybeKnown {
        Known(FaultKind),
        Other(IgnoredAny),
    }
    Ok(match Option::deserialize(from)? {
        Some(MaybeKnown::Known(fault)) => Some(fault),
        Some(MaybeKnown::Other(IgnoredAny)) | None => None,
    })
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DailySpendRecord {
    pub provider: String,
    /// Days since 1970-01-01, UTC.
    #[serde(rename = "day")]
    pub utc_day: u64,
    pub usd: f64,
    #[serde(rename = "estimated")]
    pub is_estimated: bool,
}

/// One page of a scan for expired conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiredPage {
    pub conversations: Vec<ConversationId>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<ConversationId>,
}

/// The number of incidents kept. The oldest is deleted first.
pub const MAX_INCIDENTS: usize = 500;

/// Storage of conversations and of the service's own state.
///
/// Every call returns within 5 s. A failed call costs durability, never an answer.
///
/// A change is submitted when the method is called, even if its future is never polled; dropping
/// the future only gives up waiting. A change that failed may still be applied later, but never
/// partly. A read sees every change acknowledged before it.
///
/// A turn, message, breaker, cached answer or daily spend that cannot be decoded (damaged, or
/// written by a later version) is treated as absent.
pub trait Store: Send + Sync {
    /// Returns the conversation's record, or `None` if it was never written.
    ///
    /// # Errors
    /// `Damaged` if the record exists but cannot be decoded: its owner must not be guessed.
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>>;

    /// Writes the conversation's record unless it has one.
    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns the visitor's most recently started conversation.
    ///
    /// `None` if there is none or its index entry cannot be decoded.
    fn latest_conversation(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>>;

    /// Inserts or replaces a turn and returns once it is on disk.
    ///
    /// Concurrent writes share one flush. Writes of one turn take effect in the order of the calls.
    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Applies an update to an ended turn, if it exists, in order with [`Store::write_turn`] calls.
    ///
    /// A follow-up answer also clears the turn's pending mark.
    fn update_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: TurnUpdate,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Marks whether a turn waits for a follow-up answer. The turn itself may be written later.
    fn set_followup_pending(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns the turns waiting for a follow-up answer, oldest first. That includes turns that
    /// were running when an earlier process died.
    fn pending_followups(&self)
    -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>>;

    /// Queues the text of a running turn so far. A crash loses at most half a second of it.
    ///
    /// Only the newest queued checkpoint of a turn is written, in order with [`Store::write_turn`]
    /// calls. It has no effect unless the stored turn is running, so it cannot bring back a turn
    /// that ended or was deleted.
    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord);

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>>;

    /// Returns the turn that a message started, so that a resent message starts no second turn.
    ///
    /// If two turns have the same message, it returns the one written first.
    fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>>;

    /// Returns the last `limit` turns, oldest first. With `before`, only earlier turns.
    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>>;

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
    ) -> BoxFuture<'_, Result<ExpiredPage, StoreError>>;

    /// Deletes a conversation with its turns and the cached answers that came from it.
    ///
    /// Stop its running turns first: a turn written later creates the conversation again.
    fn delete_conversation(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns the state of the breakers that are not closed.
    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>>;

    /// Writes a breaker's state. `None` stands for a closed breaker.
    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns each provider's spend on the last day written, one record per provider.
    fn daily_spend(&self) -> BoxFuture<'_, Result<Vec<DailySpendRecord>, StoreError>>;

    /// Replaces the provider's spend record, whatever day that was for.
    fn save_daily_spend(&self, record: DailySpendRecord) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns the last [`MAX_INCIDENTS`] incidents, oldest first.
    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>>;

    /// Inserts or replaces an incident, identified by its start and id.
    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>>;

    fn service_lifetime(&self) -> BoxFuture<'_, Result<Option<ServiceLifetime>, StoreError>>;

    fn save_service_lifetime(&self, life: ServiceLifetime)
    -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns the document last stored under `name`. Instances that share a store have separate
    /// documents.
    fn get_document(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>>;

    /// Replaces the document stored under `name`.
    ///
    /// Callers use a few fixed names and a few kilobytes per document; the store enforces neither.
    fn put_document(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Returns a cached answer. `None` also if it was written by an unsupported version.
    fn get_answer(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>>;

    /// Returns the keys of all cached answers, oldest first. Undecodable answers count as oldest.
    fn answer_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>>;

    /// Inserts or replaces a cached answer, visible on return but not yet safe from a crash.
    ///
    /// It is deleted with its conversation. The caller bounds the number of answers.
    fn put_answer(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    fn remove_answers(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>>;

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
