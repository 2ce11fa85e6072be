//! Instances of the replicated store, for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::link::Link;
use super::server::Redis;
use super::{SharedStore, Terms};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};
use crate::settings::Secret;
use crate::store::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, Idle, SpentRecord, Store,
    StoreError, open,
};

/// Longer than any step takes.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(20);

/// One instance's store and data folder.
pub(in crate::store) struct Instance {
    pub(in crate::store) store: Arc<SharedStore>,
    pub(in crate::store) link: Link,
    _folder: TempDir,
}

impl Instance {
    /// Starts an instance and waits until it is connected.
    pub(in crate::store) async fn join(redis: &Redis) -> Self {
        let instance = Self::alone(&redis.url());
        instance.joined().await;
        instance
    }

    /// Starts an instance; its Redis need not be up.
    pub(in crate::store) fn alone(url: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let client = Link::open(&Secret::new(url), "one", || 0.0).unwrap();
        let local = open(folder.path(), At(0)).unwrap().sled.unwrap();
        let day = Duration::from_secs(24 * 60 * 60);
        let terms = watch::channel(Terms {
            retention: day,
            answers: day,
        })
        .1;
        let store = Arc::new(SharedStore::start(local, client.clone(), terms, || 0.0));
        Self {
            store,
            link: client,
            _folder: folder,
        }
    }

    pub(in crate::store) async fn joined(&self) {
        let mut health = self.link.health();
        timeout(PATIENCE, health.wait_for(|health| health.is_up()))
            .await
            .unwrap()
            .unwrap();
    }

    pub(in crate::store) async fn left(&self) {
        let mut health = self.link.health();
        timeout(PATIENCE, health.wait_for(|health| !health.is_up()))
            .await
            .unwrap()
            .unwrap();
    }

    /// Waits until every acknowledged change is replicated.
    pub(in crate::store) async fn handed_over(&self) {
        timeout(PATIENCE, self.store.all_handed_over())
            .await
            .unwrap();
    }
}

/// A store that writes to one instance and reads from another.
pub(in crate::store) struct Relay {
    pub(in crate::store) from: Arc<SharedStore>,
    pub(in crate::store) to: Arc<SharedStore>,
}

type Written<'s> = BoxFuture<'s, Result<(), StoreError>>;
type Read<'s, T> = BoxFuture<'s, Result<T, StoreError>>;

impl Relay {
    fn then_over<'s>(&'s self, write: Written<'s>) -> Written<'s> {
        Box::pin(async move {
            write.await?;
            timeout(PATIENCE, self.from.all_handed_over())
                .await
                .unwrap();
            Ok(())
        })
    }
}

impl Store for Relay {
    fn conversation(&self, id: ConversationId) -> Read<'_, Option<ConversationRecord>> {
        self.to.conversation(id)
    }
    fn begin(&self, id: ConversationId, record: ConversationRecord) -> Written<'_> {
        self.then_over(self.from.begin(id, record))
    }
    fn newest_of(&self, subject: String) -> Read<'_, Option<ConversationId>> {
        self.to.newest_of(subject)
    }
    fn write_turn(&self, conversation: ConversationId, turn: TurnRecord) -> Written<'_> {
        self.then_over(self.from.write_turn(conversation, turn))
    }
    fn amend(&self, conversation: ConversationId, turn: TurnId, change: Amendment) -> Written<'_> {
        self.then_over(self.from.amend(conversation, turn, change))
    }
    fn write_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> Written<'_> {
        self.then_over(self.from.write_waiting(conversation, turn, is_pending))
    }
    fn waiting(&self) -> Read<'_, Vec<(ConversationId, TurnId)>> {
        self.to.waiting()
    }
    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.from.checkpoint(conversation, turn);
    }
    fn turn(&self, conversation: ConversationId, turn: TurnId) -> Read<'_, Option<TurnRecord>> {
        self.to.turn(conversation, turn)
    }
    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> Read<'_, Option<TurnRecord>> {
        self.to.turn_of(conversation, message)
    }
    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> Read<'_, Vec<TurnRecord>> {
        self.to.turns(conversation, before, limit)
    }
    fn idle(&self, before: At, cursor: Option<ConversationId>, limit: usize) -> Read<'_, Idle> {
        // Each instance scans its own tree.
        self.from.idle(before, cursor, limit)
    }
    fn forget(&self, conversation: ConversationId) -> Written<'_> {
        self.then_over(self.from.forget(conversation))
    }
    fn breakers(&self) -> Read<'_, Vec<BreakerRecord>> {
        self.to.breakers()
    }
    fn write_breaker(&self, provider: String, record: Option<BreakerRecord>) -> Written<'_> {
        self.then_over(self.from.write_breaker(provider, record))
    }
    fn spent(&self) -> Read<'_, Vec<SpentRecord>> {
        self.to.spent()
    }
    fn write_spent(&self, record: SpentRecord) -> Written<'_> {
        self.then_over(self.from.write_spent(record))
    }
    fn note(&self, name: String) -> Read<'_, Option<String>> {
        self.to.note(name)
    }
    fn write_note(&self, name: String, text: String) -> Written<'_> {
        self.then_over(self.from.write_note(name, text))
    }
    fn incidents(&self) -> Read<'_, Vec<Incident>> {
        self.to.incidents()
    }
    fn write_incident(&self, incident: Incident) -> Written<'_> {
        self.then_over(self.from.write_incident(incident))
    }
    fn life(&self) -> Read<'_, Option<Life>> {
        self.to.life()
    }
    fn write_life(&self, life: Life) -> Written<'_> {
        self.then_over(self.from.write_life(life))
    }
    fn cached(&self, key: CacheKey) -> Read<'_, Option<CachedAnswer>> {
        self.to.cached(key)
    }
    fn cached_keys(&self) -> Read<'_, Vec<CacheKey>> {
        self.to.cached_keys()
    }
    fn write_cached(&self, key: CacheKey, answer: CachedAnswer) -> Written<'_> {
        self.then_over(self.from.write_cached(key, answer))
    }
    fn remove_cached(&self, keys: Vec<CacheKey>) -> Written<'_> {
        self.then_over(self.from.remove_cached(keys))
    }
}
