//! A store that fails, or is slow, when a test tells it to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, Idle, MemoryStore, SpentRecord,
    Store, StoreError,
};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Nothing is kept, every call fails at once, and [`Store::problem`] says so.
    Fails,
    /// Every call panics: what no store should do.
    Panics,
    /// Every call takes effect, and says so only after this long, on the runtime's clock.
    Slow(Duration),
}

/// Another store with trouble that can be switched while it is in use.
pub struct Flaky {
    inner: Arc<dyn Store>,
    trouble: Mutex<Trouble>,
    /// A note whose place on the disk is damaged, until it is written again.
    damaged: Mutex<Option<String>>,
    checkpoints: AtomicUsize,
}

impl Default for Flaky {
    fn default() -> Self {
        Self::over(Arc::new(MemoryStore::default()))
    }
}

impl Flaky {
    /// `inner`, without trouble for now.
    pub fn over(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            trouble: Mutex::default(),
            damaged: Mutex::default(),
            checkpoints: AtomicUsize::new(0),
        }
    }

    /// From now on this is wrong.
    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// From now on this note cannot be read, until it is written again.
    pub fn damage(&self, note: &str) {
        *self.damaged() = Some(note.to_owned());
    }

    fn damaged(&self) -> MutexGuard<'_, Option<String>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many checkpoints it was given.
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.load(Ordering::Relaxed)
    }

    fn trouble(&self) -> Trouble {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
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
        let answer = call(&*self.inner);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer.await
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
        waits: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(|inner| inner.write_waiting(conversation, turn, waits))
    }

    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        self.call(|inner| inner.waiting())
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
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
        after: Option<ConversationId>,
        look: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        self.call(|inner| inner.idle(before, after, look))
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
