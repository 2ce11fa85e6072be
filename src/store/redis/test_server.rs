//! Instances of the replicated store, for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::RedisClient;
use super::server::RedisServer;
use super::{ReplicatedStore, RetentionTerms};
use crate::config::Secret;
use crate::domain::{ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnUpdate};
use crate::store::{
    AnswerStore, CacheKey, CachedAnswer, ConversationRecord, ConversationStore, DocumentKind,
    DocumentStore, ExpiredPage, Store, StoreFuture, open,
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

    pub(in crate::store) async fn write_turn(&self, id: ConversationId, turn: TurnRecord) {
        self.store.write_turn(id, turn).await.unwrap();
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

impl RelayStore {
    fn write_and_replicate<'s>(&'s self, write: StoreFuture<'s>) -> StoreFuture<'s> {
        Box::pin(async move {
            write.await?;
            timeout(STEP_TIMEOUT, self.from.wait_replicated())
                .await
                .unwrap();
            Ok(())
        })
    }
}

impl Store for RelayStore {}

impl ConversationStore for RelayStore {
    fn conversation(&self, id: ConversationId) -> StoreFuture<'_, Option<ConversationRecord>> {
        self.to.conversation(id)
    }
    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.create_conversation(id, record))
    }
    fn latest_conversation(&self, subject: String) -> StoreFuture<'_, Option<ConversationId>> {
        self.to.latest_conversation(subject)
    }
    fn write_turn(&self, id: ConversationId, turn: TurnRecord) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.write_turn(id, turn))
    }
    fn update_turn(&self, id: ConversationId, turn: TurnId, change: TurnUpdate) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.update_turn(id, turn, change))
    }
    fn set_followup_pending(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.set_followup_pending(id, turn, is_pending))
    }
    fn pending_followups(&self) -> StoreFuture<'_, Vec<(ConversationId, TurnId)>> {
        self.to.pending_followups()
    }
    fn checkpoint(&self, id: ConversationId, turn: TurnRecord) {
        self.from.checkpoint(id, turn);
    }
    fn turn(&self, id: ConversationId, turn: TurnId) -> StoreFuture<'_, Option<TurnRecord>> {
        self.to.turn(id, turn)
    }
    fn turn_by_message(
        &self,
        id: ConversationId,
        message: ClientMsgId,
    ) -> StoreFuture<'_, Option<TurnRecord>> {
        self.to.turn_by_message(id, message)
    }
    fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<TurnRecord>> {
        self.to.turns(id, before, limit)
    }
    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> StoreFuture<'_, ExpiredPage> {
        // Each instance scans its own tree.
        self.from.expired_conversations(before, cursor, limit)
    }
    fn delete_conversation(&self, id: ConversationId) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.delete_conversation(id))
    }
}

impl DocumentStore for RelayStore {
    fn get(&self, kind: DocumentKind, key: String) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.to.get(kind, key)
    }
    fn list(&self, kind: DocumentKind) -> StoreFuture<'_, Vec<(String, Vec<u8>)>> {
        self.to.list(kind)
    }
    fn put(&self, kind: DocumentKind, key: String, document: Option<Vec<u8>>) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.put(kind, key, document))
    }
}

impl AnswerStore for RelayStore {
    fn get_answer(&self, key: CacheKey) -> StoreFuture<'_, Option<CachedAnswer>> {
        self.to.get_answer(key)
    }
    fn answer_keys(&self) -> StoreFuture<'_, Vec<CacheKey>> {
        self.to.answer_keys()
    }
    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.put_answer(key, answer))
    }
    fn remove_answers(&self, keys: Vec<CacheKey>) -> StoreFuture<'_> {
        self.write_and_replicate(self.from.remove_answers(keys))
    }
}
