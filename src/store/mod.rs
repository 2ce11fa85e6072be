//! What outlives the process: conversations, turns with their drafts, the breakers' state, incidents, saved answers. One trait, one contract suite, several stores.

mod answers;
mod cached;
mod memory;
mod open;
pub(crate) mod record;
mod redis;
mod sled;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub mod flaky;

use futures_util::future::BoxFuture;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::chat::{
    Amendment, At, ClientMsgId, ConversationId, Fault, Incident, Life, TurnId, TurnRecord,
};

pub use self::cached::{CacheKey, CachedAnswer};
pub use self::memory::MemoryStore;
pub use self::open::{Opened, open};
#[cfg(test)]
pub(crate) use self::redis::server;
pub use self::redis::{SharedStore, Terms, link, turns};
pub use self::sled::SledStore;

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
    /// Why, in the protocol's word, which several faults share.
    pub reason: String,
    /// Why, exactly; none where it was written by a version that did not say so, or that knows more faults than this one.
    #[serde(default, deserialize_with = "known_fault")]
    pub fault: Option<Fault>,
}

/// A fault, where it is one that this version knows.
fn known_fault<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Fault>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        Known(Fault),
        Other(IgnoredAny),
    }
    Ok(match Option::deserialize(from)? {
        Some(Told::Known(fault)) => Some(fault),
        Some(Told::Other(IgnoredAny)) | None => None,
    })
}

/// What a provider's day cost so far, as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpentRecord {
    /// The provider.
    pub provider: String,
    /// The day of UTC, counted from 1970.
    pub day: u64,
    /// USD.
    pub usd: f64,
    /// Whether some of it is an estimate.
    pub estimated: bool,
}

/// Conversations that were quiet for long, among those that were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Them.
    pub found: Vec<ConversationId>,
    /// Where the next look goes on; none where there are no more.
    pub next: Option<ConversationId>,
}

/// The most incidents that are kept; the oldest goes first.
pub const INCIDENTS: usize = 500;

/// Where things are kept. Every call returns within the store's own limit (5 s at most); a failure costs durability, never an answer.
///
/// A change is on its way when the call returns, polled or not: dropping the future gives up waiting, nothing else. A change that fails may
/// still be made up later, never partly. A read sees every change that was acknowledged before it.
///
/// A turn, a message, a breaker, a saved answer or a day's cost that does not read (of a later version, damaged) is passed over as if it were not there.
pub trait Store: Send + Sync {
    /// The conversation's record, if it was ever written.
    ///
    /// # Errors
    /// `Damaged` where it is there and does not read: whose conversation it is must not be guessed.
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>>;

    /// Writes the conversation's record where there is none yet.
    fn begin(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The conversation of this visitor that was begun last; none where there is none, or where what leads to it does not read.
    fn newest_of(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>>;

    /// Writes a turn, new or known, and returns when it is on disk. Writes that are ready together share one flush.
    ///
    /// Writes of one turn take effect in the order of the calls.
    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Changes a turn that has ended, where it is there, and leaves all else of it as it is written. It takes its place among the calls of
    /// [`Store::write_turn`]. With its late answer a turn waits for none any more.
    fn amend(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: Amendment,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Notes that a turn waits for a late answer, or no longer does. The turn itself may be written later.
    fn write_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        waits: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The turns that wait for a late answer, oldest first; also those under which an earlier process went down.
    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>>;

    /// The text of a running turn so far: queued, not waited for, lost at worst by a crash within half a second.
    ///
    /// Of several that wait only the newest is written. It takes its place among the calls of [`Store::write_turn`], and changes nothing where
    /// the turn, as last written, does not run: an ended or forgotten turn does not come back.
    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord);

    /// One turn.
    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>>;

    /// The turn that a message opened, if any: the same message again is the same turn. Of two turns with one message it is the first written.
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

    /// Of the conversations that come after `after`, in an order of the store's own that does not change, those whose last turn was opened before `before`; of one
    /// without a turn, that was begun before then. `look` at most are looked at, so that the work of a call is bounded; a conversation that is written to
    /// meanwhile may be told or not. Where a conversation's record does not read and it has no turn, it is not told.
    fn idle(
        &self,
        before: At,
        after: Option<ConversationId>,
        look: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>>;

    /// Removes a conversation with all its turns and the saved answers that come from it. A turn of it that is written later begins it anew: stop what runs first.
    fn forget(&self, conversation: ConversationId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The breakers as last written.
    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>>;

    /// Writes one breaker's state; `None` for one that is closed.
    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What providers cost on the last day that was written, one record each.
    fn spent(&self) -> BoxFuture<'_, Result<Vec<SpentRecord>, StoreError>>;

    /// Writes what a provider's day cost so far, in the place of what was written before, of whatever day.
    fn write_spent(&self, record: SpentRecord) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The incidents, oldest first: the last [`INCIDENTS`] of them.
    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>>;

    /// Writes an incident, new or known by when it began and its id.
    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>>;

    /// When the service was seen to run, as last written.
    fn life(&self) -> BoxFuture<'_, Result<Option<Life>, StoreError>>;

    /// Writes when the service was seen to run.
    fn write_life(&self, life: Life) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What the service noted for itself under this name, as last written; none where it never did. Where several instances share a store, each
    /// has its own notes.
    fn note(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>>;

    /// Notes something for the service itself, in the place of what was noted under this name. The names are a few fixed ones, a note is some
    /// kilobytes: to bound both is for the caller.
    fn write_note(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The saved answer under this key; none too where it is of a version that this program does not read.
    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>>;

    /// The keys of all saved answers, those saved longest ago first, what does not read before all.
    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>>;

    /// Saves an answer in the place of what was there; once this says so it is found, but a crash may take it. It goes when its conversation is forgotten. How many there are is for the caller to bound.
    fn write_cached(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Removes these saved answers.
    fn remove_cached(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Waits, for a second at most, until other instances can read what was acknowledged; where there are none, not at all.
    fn handed_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Whether other processes write to it too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether what it acknowledges outlives the process.
    fn lasting(&self) -> bool {
        true
    }

    /// Whether a read has been under way for longer than any call waits: the disk does not answer.
    fn hangs(&self) -> bool {
        false
    }

    /// What is wrong with the store just now, in a sentence for the public status; none while it works. Cheap enough to ask every second.
    fn problem(&self) -> Option<&'static str> {
        None
    }
}
