//! A store whose calls fail, panic or take long on demand, for tests.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, DailySpendRecord, ExpiredPage,
    MemoryStore, Store, StoreError,
};
use crate::domain::{
    ClientMsgId, ConversationId, Incident, ServiceLifetime, Timestamp, TurnId, TurnRecord,
    TurnUpdate,
};

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
    /// The name of a document that is unreadable until it is written again.
    damaged_document: Mutex<Option<String>>,
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
            damaged_document: Mutex::default(),
            checkpoint_count: AtomicUsize::new(0),
        }
    }

    pub fn set_fault(&self, fault: StoreFault) {
        *self.fault.lock() = fault;
    }

    pub fn damage_document(&self, note: &str) {
        *self.damaged_document() = Some(note.to_owned());
    }

    fn damaged_document(&self) -> MutexGuard<'_, Option<String>> {
        self.damaged_document.lock()
    }

    pub fn checkpoint_count(&self) -> usize {
        self.checkpoint_count.load(Ordering::Relaxed)
    }

    fn fault(&self) -> StoreFault {
        *self.fault.lock()
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
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
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        self.call(|inner| inner.conversation(id))
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.create_conversation(id, record))
    }

    fn latest_conversation(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        self.call(|inner| inner.latest_conversation(subject))
    }

    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_turn(conversation, turn))
    }

    fn update_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: TurnUpdate,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.update_turn(conversation, turn, change))
    }

    fn set_followup_pending(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.set_followup_pending(conversation, turn, is_pending))
    }

    fn pending_followups(
        &self,
    ) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        self.call(|inner| inner.pending_followups())
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        if !matches!(self.fault(), StoreFault::Failing | StoreFault::Panicking) {
            self.inner.checkpoint(conversation, turn);
        }
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.call(|inner| inner.turn(conversation, turn))
    }

    fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.call(|inner| inner.turn_by_message(conversation, message))
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        self.call(|inner| inner.turns(conversation, before, limit))
    }

    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ExpiredPage, StoreError>> {
        self.call(|inner| inner.expired_conversations(before, cursor, limit))
    }

    fn delete_conversation(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.delete_conversation(conversation))
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        self.call(|inner| inner.breakers())
    }

    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_breaker(provider, record))
    }

    fn daily_spend(&self) -> BoxFuture<'_, Result<Vec<DailySpendRecord>, StoreError>> {
        self.call(|inner| inner.daily_spend())
    }

    fn save_daily_spend(&self, record: DailySpendRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.save_daily_spend(record))
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        self.call(|inner| inner.incidents())
    }

    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_incident(incident))
    }

    fn service_lifetime(&self) -> BoxFuture<'_, Result<Option<ServiceLifetime>, StoreError>> {
        self.call(|inner| inner.service_lifetime())
    }

    fn save_service_lifetime(
        &self,
        life: ServiceLifetime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.save_service_lifetime(life))
    }

    fn get_document(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        if self.damaged_document().as_ref() == Some(&name) {
            return Box::pin(async { Err(StoreError::Damaged("a test says so".into())) });
        }
        self.call(|inner| inner.get_document(name))
    }

    fn put_document(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.damaged_document().take_if(|damaged| *damaged == name);
        self.call(|inner| inner.put_document(name, text))
    }

    fn get_answer(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        self.call(|inner| inner.get_answer(key))
    }

    fn answer_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        self.call(|inner| inner.answer_keys())
    }

    fn put_answer(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.put_answer(key, answer))
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.remove_answers(keys))
    }

    fn problem(&self) -> Option<&'static str> {
        match self.fault() {
            StoreFault::Failing => Some("The store fails."),
            _ => self.inner.problem(),
        }
    }
}
