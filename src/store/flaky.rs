//! A store whose calls fail, panic or take long on demand, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{
    AnswerStore, CacheKey, CachedAnswer, ConversationRecord, ConversationStore, DocumentKind,
    DocumentStore, ExpiredPage, MemoryStore, Store, StoreError, StoreFuture,
};
use crate::domain::{ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnUpdate};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreFault {
    #[default]
    None,
    /// Nothing is saved, every call fails at once, and [`Store::problem`] reports it.
    Failing,
    /// Every call panics, which no real store should do.
    Panicking,
    /// Every call takes effect at once but returns only after this long on the tokio clock.
    Slow(Duration),
}

/// A wrapper whose fault can be switched while the store is in use.
pub struct FlakyStore {
    inner: Arc<dyn Store>,
    fault: Mutex<StoreFault>,
    /// The name of a note that is unreadable until it is written again.
    damaged_note: Mutex<Option<String>>,
    checkpoint_count: AtomicUsize,
}

impl Default for FlakyStore {
    fn default() -> Self {
        Self::wrapping(Arc::new(MemoryStore::default()))
    }
}

impl FlakyStore {
    pub fn wrapping(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            fault: Mutex::default(),
            damaged_note: Mutex::default(),
            checkpoint_count: AtomicUsize::new(0),
        }
    }

    pub fn set_fault(&self, fault: StoreFault) {
        *self.fault.lock() = fault;
    }

    pub fn damage_note(&self, note: &str) {
        *self.damaged_note.lock() = Some(note.to_owned());
    }

    pub fn checkpoint_count(&self) -> usize {
        self.checkpoint_count.load(Ordering::Relaxed)
    }

    fn fault(&self) -> StoreFault {
        *self.fault.lock()
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        let delay = match self.fault() {
            StoreFault::None => return call(&*self.inner),
            StoreFault::Failing => {
                return Box::pin(async { Err(StoreError::Unavailable("a test says so".into())) });
            }
            StoreFault::Panicking => panic!("a test says so"),
            StoreFault::Slow(delay) => delay,
        };
        let result = call(&*self.inner);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            result.await
        })
    }
}

impl Store for FlakyStore {
    fn problem(&self) -> Option<&'static str> {
        match self.fault() {
            StoreFault::Failing => Some("The store fails."),
            _ => self.inner.problem(),
        }
    }
}

impl ConversationStore for FlakyStore {
    fn conversation(&self, id: ConversationId) -> StoreFuture<'_, Option<ConversationRecord>> {
        self.call(|inner| inner.conversation(id))
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> StoreFuture<'_> {
        self.call(|inner| inner.create_conversation(id, record))
    }

    fn latest_conversation(&self, subject: String) -> StoreFuture<'_, Option<ConversationId>> {
        self.call(|inner| inner.latest_conversation(subject))
    }

    fn write_turn(&self, id: ConversationId, turn: TurnRecord) -> StoreFuture<'_> {
        self.call(|inner| inner.write_turn(id, turn))
    }

    fn update_turn(&self, id: ConversationId, turn: TurnId, change: TurnUpdate) -> StoreFuture<'_> {
        self.call(|inner| inner.update_turn(id, turn, change))
    }

    fn set_followup_pending(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> StoreFuture<'_> {
        self.call(|inner| inner.set_followup_pending(id, turn, is_pending))
    }

    fn pending_followups(&self) -> StoreFuture<'_, Vec<(ConversationId, TurnId)>> {
        self.call(|inner| inner.pending_followups())
    }

    fn checkpoint(&self, id: ConversationId, turn: TurnRecord) {
        self.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        if !matches!(self.fault(), StoreFault::Failing | StoreFault::Panicking) {
            self.inner.checkpoint(id, turn);
        }
    }

    fn turn(&self, id: ConversationId, turn: TurnId) -> StoreFuture<'_, Option<TurnRecord>> {
        self.call(|inner| inner.turn(id, turn))
    }

    fn turn_by_message(
        &self,
        id: ConversationId,
        message: ClientMsgId,
    ) -> StoreFuture<'_, Option<TurnRecord>> {
        self.call(|inner| inner.turn_by_message(id, message))
    }

    fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<TurnRecord>> {
        self.call(|inner| inner.turns(id, before, limit))
    }

    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> StoreFuture<'_, ExpiredPage> {
        self.call(|inner| inner.expired_conversations(before, cursor, limit))
    }

    fn delete_conversation(&self, id: ConversationId) -> StoreFuture<'_> {
        self.call(|inner| inner.delete_conversation(id))
    }
}

impl DocumentStore for FlakyStore {
    fn get(&self, kind: DocumentKind, key: String) -> StoreFuture<'_, Option<Vec<u8>>> {
        if kind == DocumentKind::Note && self.damaged_note.lock().as_ref() == Some(&key) {
            return Box::pin(async { Err(StoreError::Damaged("a test says so".into())) });
        }
        self.call(|inner| inner.get(kind, key))
    }

    fn list(&self, kind: DocumentKind) -> StoreFuture<'_, Vec<(String, Vec<u8>)>> {
        self.call(|inner| inner.list(kind))
    }

    fn put(&self, kind: DocumentKind, key: String, document: Option<Vec<u8>>) -> StoreFuture<'_> {
        if kind == DocumentKind::Note {
            self.damaged_note.lock().take_if(|damaged| *damaged == key);
        }
        self.call(|inner| inner.put(kind, key, document))
    }
}

impl AnswerStore for FlakyStore {
    fn get_answer(&self, key: CacheKey) -> StoreFuture<'_, Option<CachedAnswer>> {
        self.call(|inner| inner.get_answer(key))
    }

    fn answer_keys(&self) -> StoreFuture<'_, Vec<CacheKey>> {
        self.call(|inner| inner.answer_keys())
    }

    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> StoreFuture<'_> {
        self.call(|inner| inner.put_answer(key, answer))
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> StoreFuture<'_> {
        self.call(|inner| inner.remove_answers(keys))
    }
}
