//! A store whose calls fail, panic or take long on demand, for tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, Idle, MemoryStore, SpentRecord,
    Store, StoreError,
};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// Nothing is saved, every call fails at once, and [`Store::problem`] reports it.
    Fails,
    /// Every call panics, which no real store should do.
    Panics,
    /// Every call takes effect at once but returns only after this long on the tokio clock.
    Slow(Duration),
}

/// A wrapper whose fault can be switched while the store is in use.
pub struct Flaky {
    inner: Arc<dyn Store>,
    fault: Mutex<Trouble>,
    /// The name of a document that is unreadable until it is written again.
    damaged_document: Mutex<Option<String>>,
    checkpoint_count: AtomicUsize,
}

impl Default for Flaky {
    fn default() -> Self {
        Self::over(Arc::new(MemoryStore::default()))
    }
}

impl Flaky {
    pub fn over(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            fault: Mutex::default(),
            damaged_document: Mutex::default(),
            checkpoint_count: AtomicUsize::new(0),
        }
    }

    pub fn set(&self, fault: Trouble) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub fn damage(&self, note: &str) {
        *self.damaged() = Some(note.to_owned());
    }

    fn damaged(&self) -> MutexGuard<'_, Option<String>> {
        self.damaged_document
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn checkpoints(&self) -> usize {
        self.checkpoint_count.load(Ordering::Relaxed)
    }

    fn trouble(&self) -> Trouble {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let delay = match self.trouble() {
            Trouble::None => return call(&*self.inner),
            Trouble::Fails => {
                return Box::pin(async { Err(StoreError::Broken("a test says so".into())) });
            }
            Trouble::Panics => panic!("a test says so"),
            Trouble::Slow(delay) => delay,
        };
        let result = call(&*self.inner);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            result.await
        })
    }
}

impl Store for Flaky {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        self.call(|inner| inner.conversation(id))
    }

    fn begin(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.begin(id, record))
    }

    fn newest_of(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        self.call(|inner| inner.newest_of(subject))
    }

    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_turn(conversation, turn))
    }

    fn amend(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: Amendment,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.amend(conversation, turn, change))
    }

    fn write_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_waiting(conversation, turn, is_pending))
    }

    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        self.call(|inner| inner.waiting())
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        if !matches!(self.trouble(), Trouble::Fails | Trouble::Panics) {
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

    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.call(|inner| inner.turn_of(conversation, message))
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        self.call(|inner| inner.turns(conversation, before, limit))
    }

    fn idle(
        &self,
        before: At,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        self.call(|inner| inner.idle(before, cursor, limit))
    }

    fn forget(&self, conversation: ConversationId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.forget(conversation))
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

    fn spent(&self) -> BoxFuture<'_, Result<Vec<SpentRecord>, StoreError>> {
        self.call(|inner| inner.spent())
    }

    fn write_spent(&self, record: SpentRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_spent(record))
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        self.call(|inner| inner.incidents())
    }

    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_incident(incident))
    }

    fn life(&self) -> BoxFuture<'_, Result<Option<Life>, StoreError>> {
        self.call(|inner| inner.life())
    }

    fn write_life(&self, life: Life) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_life(life))
    }

    fn note(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        if self.damaged().as_ref() == Some(&name) {
            return Box::pin(async { Err(StoreError::Damaged("a test says so".into())) });
        }
        self.call(|inner| inner.note(name))
    }

    fn write_note(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.damaged().take_if(|damaged| *damaged == name);
        self.call(|inner| inner.write_note(name, text))
    }

    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        self.call(|inner| inner.cached(key))
    }

    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        self.call(|inner| inner.cached_keys())
    }

    fn write_cached(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_cached(key, answer))
    }

    fn remove_cached(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.remove_cached(keys))
    }

    fn problem(&self) -> Option<&'static str> {
        match self.trouble() {
            Trouble::Fails => Some("The store fails."),
            _ => self.inner.problem(),
        }
    }
}
