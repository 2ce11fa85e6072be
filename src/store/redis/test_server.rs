//! Instances of the replicated store, for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::RedisClient;
use super::server::RedisServer;
use super::{ReplicatedStore, RetentionTerms};
use crate::config::Secret;
use crate::domain::{
    ClientMsgId, ConversationId, Incident, ServiceLifetime, Timestamp, TurnId, TurnRecord,
    TurnUpdate,
};
use crate::store::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, DailySpendRecord, ExpiredPage,
    Store, StoreError, open,
};

/// Longer than any step takes.
pub(in crate::store) const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// One instance's store and data folder.
pub(in crate::store) struct TestInstance {
    pub(in crate::store) store: Arc<ReplicatedStore>,
    pub(in crate::store) client: RedisClient,
    _folder: TempDir,
}

impl TestInstance {
    /// Starts an instance and waits until it is connected.
    pub(in crate::store) async fn start_connected(redis: &RedisServer) -> Self {
        let instance = Self::start(&redis.url());
        instance.wait_connected().await;
        instance
    }

    /// Starts an instance; its Redis need not be up.
    pub(in crate::store) fn start(url: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let client = RedisClient::open(&Secret::new(url), "one", || 0.0).unwrap();
        let local = open(folder.path(), Timestamp(0)).unwrap().sled.unwrap();
        let day = Duration::from_secs(24 * 60 * 60);
        let terms = watch::channel(RetentionTerms {
            retention: day,
            answer_ttl: day,
        })
        .1;
        let store = Arc::new(ReplicatedStore::start(local, client.clone(), terms, || 0.0));
        Self {
            store,
            client,
            _folder: folder,
        }
    }

    pub(in crate::store) async fn wait_connected(&self) {
        let mut health = self.client.health();
        timeout(STEP_TIMEOUT, health.wait_for(|health| health.is_up()))
            .await
            .unwrap()
            .unwrap();
    }

    pub(in crate::store) async fn wait_disconnected(&self) {
        let mut health = self.client.health();
        timeout(STEP_TIMEOUT, health.wait_for(|health| !health.is_up()))
            .await
            .unwrap()
            .unwrap();
    }

    /// Waits until every acknowledged change is replicated.
    pub(in crate::store) async fn wait_replicated(&self) {
        timeout(STEP_TIMEOUT, self.store.wait_replicated())
            .await
            .unwrap();
    }
}

/// A store that writes to one instance and reads from another.
pub(in crate::store) struct RelayStore {
    pub(in crate::store) from: Arc<ReplicatedStore>,
    pub(in crate::store) to: Arc<ReplicatedStore>,
}

type WriteFuture<'s> = BoxFuture<'s, Result<(), StoreError>>;
type ReadFuture<'s, T> = BoxFuture<'s, Result<T, StoreError>>;

impl RelayStore {
    fn write_and_replicate<'s>(&'s self, write: WriteFuture<'s>) -> WriteFuture<'s> {
        Box::pin(async move {
            write.await?;
            timeout(STEP_TIMEOUT, self.from.wait_replicated())
                .await
                .unwrap();
            Ok(())
        })
    }
}

impl Store for RelayStore {
    fn conversation(&self, id: ConversationId) -> ReadFuture<'_, Option<ConversationRecord>> {
        self.to.conversation(id)
    }
    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.create_conversation(id, record))
    }
    fn latest_conversation(&self, subject: String) -> ReadFuture<'_, Option<ConversationId>> {
        self.to.latest_conversation(subject)
    }
    fn write_turn(&self, conversation: ConversationId, turn: TurnRecord) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.write_turn(conversation, turn))
    }
    fn update_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: TurnUpdate,
    ) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.update_turn(conversation, turn, change))
    }
    fn set_followup_pending(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> WriteFuture<'_> {
        self.write_and_replicate(
            self.from
                .set_followup_pending(conversation, turn, is_pending),
        )
    }
    fn pending_followups(&self) -> ReadFuture<'_, Vec<(ConversationId, TurnId)>> {
        self.to.pending_followups()
    }
    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.from.checkpoint(conversation, turn);
    }
    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> ReadFuture<'_, Option<TurnRecord>> {
        self.to.turn(conversation, turn)
    }
    fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> ReadFuture<'_, Option<TurnRecord>> {
        self.to.turn_by_message(conversation, message)
    }
    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> ReadFuture<'_, Vec<TurnRecord>> {
        self.to.turns(conversation, before, limit)
    }
    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> ReadFuture<'_, ExpiredPage> {
        // Each instance scans its own tree.
        self.from.expired_conversations(before, cursor, limit)
    }
    fn delete_conversation(&self, conversation: ConversationId) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.delete_conversation(conversation))
    }
    fn breakers(&self) -> ReadFuture<'_, Vec<BreakerRecord>> {
        self.to.breakers()
    }
    fn write_breaker(&self, provider: String, record: Option<BreakerRecord>) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.write_breaker(provider, record))
    }
    fn daily_spend(&self) -> ReadFuture<'_, Vec<DailySpendRecord>> {
        self.to.daily_spend()
    }
    fn save_daily_spend(&self, record: DailySpendRecord) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.save_daily_spend(record))
    }
    fn get_document(&self, name: String) -> ReadFuture<'_, Option<String>> {
        self.to.get_document(name)
    }
    fn put_document(&self, name: String, text: String) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.put_document(name, text))
    }
    fn incidents(&self) -> ReadFuture<'_, Vec<Incident>> {
        self.to.incidents()
    }
    fn write_incident(&self, incident: Incident) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.write_incident(incident))
    }
    fn service_lifetime(&self) -> ReadFuture<'_, Option<ServiceLifetime>> {
        self.to.service_lifetime()
    }
    fn save_service_lifetime(&self, life: ServiceLifetime) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.save_service_lifetime(life))
    }
    fn get_answer(&self, key: CacheKey) -> ReadFuture<'_, Option<CachedAnswer>> {
        self.to.get_answer(key)
    }
    fn answer_keys(&self) -> ReadFuture<'_, Vec<CacheKey>> {
        self.to.answer_keys()
    }
    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.put_answer(key, answer))
    }
    fn remove_answers(&self, keys: Vec<CacheKey>) -> WriteFuture<'_> {
        self.write_and_replicate(self.from.remove_answers(keys))
    }
}
