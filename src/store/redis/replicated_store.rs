//! The store over one instance's own tree and the records shared over Redis.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::client::{BACKGROUND_TIMEOUT, OutageReason, RedisClient};
use super::merge;
use super::reader::{RedisReader, RetentionTerms};
use super::replicator::Replicator;
use crate::store::codec::encode;
use crate::store::documents::incident_key;
use crate::store::sled::{RecordKey, SledStore};
use crate::store::{
    AnswerStore, CacheKey, CachedAnswer, ConversationStore as _, DocumentKind, DocumentStore,
    MAX_INCIDENTS, OpenedStore, Store, StoreFuture,
};

/// Limit on the wait for replication at shutdown. Later records stay in the journal.
const SHUTDOWN_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A store on this instance's disk that is replicated to other instances over Redis.
pub struct ReplicatedStore {
    pub(super) local: Arc<SledStore>,
    pub(super) reader: RedisReader,
    wake: Arc<Notify>,
    passes: watch::Receiver<(u64, u64)>,
    replicator: AbortHandle,
}

impl Drop for ReplicatedStore {
    fn drop(&mut self) {
        self.replicator.abort();
    }
}

impl ReplicatedStore {
    /// Starts replicating `local`. The replication task runs on the runtime of the caller.
    ///
    /// `random_unit` returns numbers in 0..1.
    pub fn start(
        local: Arc<SledStore>,
        client: RedisClient,
        terms: watch::Receiver<RetentionTerms>,
        random_unit: fn() -> f64,
    ) -> Self {
        local.enable_journal();
        let reader = RedisReader { client, terms };
        let wake = Arc::new(Notify::new());
        let (passes, passes_receiver) = watch::channel((0, 0));
        let replicator = Replicator {
            local: Arc::clone(&local),
            reader: reader.clone(),
            wake: Arc::clone(&wake),
            passes,
            random_unit,
        };
        Self {
            local,
            reader,
            wake,
            passes: passes_receiver,
            replicator: tokio::spawn(replicator.run()).abort_handle(),
        }
    }

    /// Waits until every change acknowledged before the call is replicated.
    pub(super) async fn wait_replicated(&self) {
        let mut passes = self.passes.clone();
        let started = passes.borrow().0;
        self.wake.notify_one();
        // A pass that is already running may have missed the last changes, so wait for a later one.
        let _ = passes.wait_for(|(_, clean)| *clean > started).await;
    }

    /// Wakes the replication once the local write is on disk.
    pub(super) fn replicate_after<'s>(&'s self, write: StoreFuture<'s>) -> StoreFuture<'s> {
        Box::pin(async move {
            let result = write.await;
            self.wake.notify_one();
            result
        })
    }

    /// Also waits for the replication while Redis is up, so that other instances stop reading what
    /// was replaced or removed.
    pub(super) fn replicate_and_wait<'s>(&'s self, write: StoreFuture<'s>) -> StoreFuture<'s> {
        Box::pin(async move {
            write.await?;
            if self.reader.client.is_up() {
                // After the timeout it is replicated in the background.
                let _ = timeout(BACKGROUND_TIMEOUT, self.wait_replicated()).await;
            }
            Ok(())
        })
    }
}

impl OpenedStore {
    /// Replicates the store to other instances.
    ///
    /// A store in memory cannot be replicated: a crash would lose changes before they are sent.
    pub fn replicated(
        mut self,
        client: RedisClient,
        terms: watch::Receiver<RetentionTerms>,
        random_unit: fn() -> f64,
    ) -> Self {
        let Some(local) = self.sled.take() else {
            self.problems
                .push("Without a data folder nothing is shared with other instances.".into());
            return self;
        };
        let shared = ReplicatedStore::start(local, client, terms, random_unit);
        for (conversation, turn) in &self.interrupted_turns {
            // Its mark is set already. Setting it again journals the interrupted turn.
            drop(shared.set_followup_pending(*conversation, *turn, true));
        }
        self.store = Arc::new(shared);
        self
    }
}

impl Store for ReplicatedStore {
    fn flush_replication(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.reader.client.is_up() {
                let _ = timeout(SHUTDOWN_FLUSH_TIMEOUT, self.wait_replicated()).await;
            }
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_stalled(&self) -> bool {
        self.local.is_stalled()
    }

    fn problem(&self) -> Option<&'static str> {
        let outage = || self.reader.client.health().borrow().outage;
        self.local
            .problem()
            .or_else(|| outage().map(OutageReason::describe))
    }
}

impl DocumentStore for ReplicatedStore {
    fn get(&self, kind: DocumentKind, key: String) -> StoreFuture<'_, Option<Vec<u8>>> {
        if kind != DocumentKind::Lifetime {
            return self.local.get(kind, key);
        }
        Box::pin(async move {
            let shared = self.reader.service_lifetime();
            let (local, shared) = join(self.local.service_lifetime(), shared).await;
            let merged = match (local, shared) {
                (Ok(Some(local)), Ok(Some(shared))) => Some(merge::merge_lifetimes(local, shared)),
                (Ok(None), Ok(shared)) => shared,
                (local, _) => local?,
            };
            merged.as_ref().map(encode).transpose()
        })
    }

    fn list(&self, kind: DocumentKind) -> StoreFuture<'_, Vec<(String, Vec<u8>)>> {
        if kind != DocumentKind::Incident {
            return self.local.list(kind);
        }
        Box::pin(async move {
            let (local, shared) = join(self.local.incidents(), self.reader.incidents()).await;
            // The local view wins: each instance writes its own incidents.
            let all = shared.unwrap_or_default().into_iter().chain(local?);
            let merged: BTreeMap<_, _> = all
                .map(|incident| (incident_key(&incident), incident))
                .collect();
            let skip = merged.len().saturating_sub(MAX_INCIDENTS);
            let encoded = |(key, incident)| Ok((key, encode(&incident)?));
            merged.into_iter().skip(skip).map(encoded).collect()
        })
    }

    fn put(&self, kind: DocumentKind, key: String, document: Option<Vec<u8>>) -> StoreFuture<'_> {
        let write = self.local.put(kind, key, document);
        if kind.is_shared() {
            self.replicate_after(write)
        } else {
            write
        }
    }
}

impl AnswerStore for ReplicatedStore {
    fn get_answer(&self, key: CacheKey) -> StoreFuture<'_, Option<CachedAnswer>> {
        Box::pin(async move {
            let (local, shared) =
                join(self.local.get_answer(key), self.reader.get_answer(key)).await;
            let Ok(shared) = shared else { return local };
            // A journaled local answer is newer than the shared one. Otherwise the shared view
            // counts, since another instance may have removed the answer.
            let is_newer = self
                .local
                .awaits_replication(RecordKey::Answer(key))
                .await?;
            if is_newer { local } else { Ok(shared) }
        })
    }

    fn answer_keys(&self) -> StoreFuture<'_, Vec<CacheKey>> {
        Box::pin(async move {
            let (local, shared) = join(self.local.answer_keys(), self.reader.answer_keys()).await;
            let mut keys = local?;
            let shared = shared.unwrap_or_default();
            keys.retain(|key| !shared.contains(key));
            keys.extend(shared);
            Ok(keys)
        })
    }

    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> StoreFuture<'_> {
        self.replicate_and_wait(self.local.put_answer(key, answer))
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> StoreFuture<'_> {
        self.replicate_and_wait(self.local.remove_answers(keys))
    }
}
