//! The store over one instance's own tree and the records shared over Redis.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::client::{BACKGROUND_TIMEOUT, OutageReason, RedisCallError, RedisClient};
use super::merge;
use super::reader::{RedisReader, RetentionTerms};
use super::replicator::Replicator;
use crate::domain::{
    ClientMsgId, ConversationId, Incident, ServiceLifetime, Timestamp, TurnId, TurnRecord,
    TurnUpdate,
};
use crate::store::sled::{RecordKey, SledStore};
use crate::store::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, DailySpendRecord, ExpiredPage,
    MAX_INCIDENTS, OpenedStore, Store, StoreError,
};

/// Limit on the wait for replication at shutdown. Later records stay in the journal.
const SHUTDOWN_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

type WriteFuture<'s> = BoxFuture<'s, Result<(), StoreError>>;

/// A store on this instance's disk that is replicated to other instances over Redis.
pub struct ReplicatedStore {
    local: Arc<SledStore>,
    reader: RedisReader,
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
        let remote = RedisReader { client, terms };
        let wake = Arc::new(Notify::new());
        let (passes, passes_receiver) = watch::channel((0, 0));
        let handover = Replicator {
            local: Arc::clone(&local),
            reader: remote.clone(),
            wake: Arc::clone(&wake),
            passes,
            random_unit,
        };
        let handover = tokio::spawn(handover.run()).abort_handle();
        Self {
            local,
            reader: remote,
            wake,
            passes: passes_receiver,
            replicator: handover,
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
    fn replicate_after<'s>(&'s self, write: WriteFuture<'s>) -> WriteFuture<'s> {
        Box::pin(async move {
            let result = write.await;
            self.wake.notify_one();
            result
        })
    }

    /// Also waits for the replication while Redis is up, so that other instances stop reading what
    /// was replaced or removed.
    fn replicate_and_wait<'s>(&'s self, write: WriteFuture<'s>) -> WriteFuture<'s> {
        Box::pin(async move {
            write.await?;
            if self.reader.client.is_up() {
                // After the timeout it is replicated in the background.
                let _ = timeout(BACKGROUND_TIMEOUT, self.wait_replicated()).await;
            }
            Ok(())
        })
    }

    /// Drops the local copy of a conversation that another instance deleted.
    ///
    /// That is the case if all `known` turns are at or before the last `deleted` one.
    fn drop_deleted(&self, id: ConversationId, known: &[TurnRecord], deleted: Option<TurnId>) {
        if let Some(deleted) = deleted
            && !known.is_empty()
            && known.iter().all(|turn| turn.turn <= deleted)
        {
            self.local.drop_local(id);
        }
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

fn redis_unavailable() -> StoreError {
    StoreError::Unavailable(
        "the record may be on another instance, and Redis is unavailable".into(),
    )
}

impl Store for ReplicatedStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        Box::pin(async move {
            match join(self.local.conversation(id), self.reader.conversation(id)).await {
                (local, Ok((Ok(None), is_deleted))) => {
                    // Another instance deleted it, unless it was created again here.
                    let exists = !is_deleted
                        || self
                            .local
                            .awaits_replication(RecordKey::Conversation(id))
                            .await
                            .unwrap_or(true);
                    if exists { local } else { Ok(None) }
                }
                (_, Ok((shared, _))) => shared,
                (local, Err(_)) => local,
            }
        })
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> WriteFuture<'_> {
        self.replicate_after(self.local.create_conversation(id, record))
    }

    fn latest_conversation(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        Box::pin(async move {
            let (local, shared) = join(
                self.local.latest_conversation(subject.clone()),
                self.reader.conversations_of(&subject),
            )
            .await;
            let shared = match shared {
                Ok(shared) => shared,
                Err(_) => return local,
            };
            let mut newest = None;
            // The index entries are hints. Only a conversation's record tells who owns it.
            for id in local.ok().flatten().into_iter().chain(shared) {
                if let Ok(Some(record)) = self.conversation(id).await
                    && record.subject.as_ref() == Some(&subject)
                {
                    newest = newest.max(Some((record.started_at, id)));
                }
            }
            Ok(newest.map(|(_, id)| id))
        })
    }

    fn write_turn(&self, conversation: ConversationId, turn: TurnRecord) -> WriteFuture<'_> {
        self.replicate_after(self.local.write_turn(conversation, turn))
    }

    fn update_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: TurnUpdate,
    ) -> WriteFuture<'_> {
        let queued = self.local.update_turn(conversation, turn, change.clone());
        self.replicate_and_wait(Box::pin(async move {
            queued.await?;
            if self.local.turn(conversation, turn).await?.is_some() {
                return Ok(());
            }
            // It belongs to another instance: copy it here, then update the copy.
            match self.reader.turn(conversation, turn).await {
                Ok((Some(record), _)) => {
                    let copied = self.local.write_turn(conversation, record);
                    let updated = self.local.update_turn(conversation, turn, change);
                    join(copied, updated).await.1
                }
                Ok((None, _)) => Ok(()),
                Err(_) => Err(redis_unavailable()),
            }
        }))
    }

    fn set_followup_pending(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> WriteFuture<'_> {
        self.replicate_and_wait(
            self.local
                .set_followup_pending(conversation, turn, is_pending),
        )
    }

    fn pending_followups(
        &self,
    ) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        Box::pin(async move {
            let (local, shared) = join(
                self.local.pending_followups(),
                self.reader.pending_followups(),
            )
            .await;
            let Ok(shared) = shared else { return local };
            let mut pending: Vec<_> = local?
                .into_iter()
                .chain(shared)
                .map(|(id, turn)| (turn, id))
                .collect();
            pending.sort_unstable();
            pending.dedup();
            Ok(pending.into_iter().map(|(turn, id)| (id, turn)).collect())
        })
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        // Other instances read the text of a running turn from its stream.
        self.local.checkpoint(conversation, turn);
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        Box::pin(async move {
            match join(
                self.local.turn(conversation, turn),
                self.reader.turn(conversation, turn),
            )
            .await
            {
                (local, Ok((shared, deleted))) => {
                    let local = local
                        .unwrap_or_default()
                        .filter(|_| deleted.is_none_or(|deleted| turn > deleted));
                    Ok(merge::merge_views(local, shared))
                }
                // Another instance may have the turn, so `None` would be a guess.
                (Ok(None), Err(RedisCallError::Unavailable)) => Err(redis_unavailable()),
                (local, Err(_)) => local,
            }
        })
    }

    fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        Box::pin(async move {
            let shared = self.reader.turn_by_message(conversation, &message);
            match join(
                self.local.turn_by_message(conversation, message.clone()),
                shared,
            )
            .await
            {
                (Ok(Some(local)), Ok(Some(shared))) if local.turn == shared.turn => {
                    Ok(Some(merge::merge_turns(local, shared)))
                }
                // Two turns have the same message: the first one counts.
                (Ok(Some(local)), Ok(Some(shared))) if local.turn < shared.turn => Ok(Some(local)),
                (_, Ok(Some(shared))) => Ok(Some(shared)),
                (Ok(Some(local)), Ok(None)) => self.turn(conversation, local.turn).await,
                (local, Ok(None) | Err(_)) => local,
            }
        })
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        Box::pin(async move {
            let shared = self.reader.turns(conversation, before, limit);
            let (local, shared) = join(self.local.turns(conversation, before, limit), shared).await;
            let Ok(shared) = shared else { return local };
            let local = local.unwrap_or_default();
            self.drop_deleted(conversation, &local, shared.last_deleted);
            let mut merged: BTreeMap<_, _> = shared
                .turns
                .into_iter()
                .map(|turn| (turn.turn, turn))
                .collect();
            for turn in local.into_iter().filter(|turn| {
                shared
                    .last_deleted
                    .is_none_or(|deleted| turn.turn > deleted)
            }) {
                let shared_turn = merged.remove(&turn.turn);
                merged.extend(
                    merge::merge_views(Some(turn), shared_turn).map(|turn| (turn.turn, turn)),
                );
            }
            let skip = merged.len().saturating_sub(limit);
            Ok(merged.into_values().skip(skip).collect())
        })
    }

    /// Scans this instance's own tree; shared copies expire in Redis by themselves.
    ///
    /// Another instance may have continued a conversation, so it fails while Redis is unavailable.
    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ExpiredPage, StoreError>> {
        Box::pin(async move {
            let ExpiredPage {
                conversations: known,
                next_cursor: next,
            } = self
                .local
                .expired_conversations(before, cursor, limit)
                .await?;
            let mut found = Vec::new();
            for id in known {
                let shared = self.reader.turns(id, None, 1).await;
                let shared = shared.map_err(|_| {
                    StoreError::Unavailable("it is shared, and Redis is unavailable".into())
                })?;
                if shared
                    .turns
                    .iter()
                    .all(|turn| turn.turn.timestamp() < before)
                {
                    found.push(id);
                }
            }
            Ok(ExpiredPage {
                conversations: found,
                next_cursor: next,
            })
        })
    }

    fn delete_conversation(&self, conversation: ConversationId) -> WriteFuture<'_> {
        self.replicate_and_wait(self.local.delete_conversation(conversation))
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        self.local.breakers()
    }

    fn write_breaker(&self, provider: String, record: Option<BreakerRecord>) -> WriteFuture<'_> {
        self.local.write_breaker(provider, record)
    }

    fn daily_spend(&self) -> BoxFuture<'_, Result<Vec<DailySpendRecord>, StoreError>> {
        self.local.daily_spend()
    }

    fn save_daily_spend(&self, record: DailySpendRecord) -> WriteFuture<'_> {
        self.local.save_daily_spend(record)
    }

    fn get_document(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        self.local.get_document(name)
    }

    fn put_document(&self, name: String, text: String) -> WriteFuture<'_> {
        self.local.put_document(name, text)
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        Box::pin(async move {
            let (local, shared) = join(self.local.incidents(), self.reader.incidents()).await;
            let Ok(shared) = shared else { return local };
            // The local view wins: each instance writes its own incidents.
            let incidents: BTreeMap<_, _> = shared
                .into_iter()
                .chain(local?)
                .map(|incident| ((incident.started, incident.id.clone()), incident))
                .collect();
            let skip = incidents.len().saturating_sub(MAX_INCIDENTS);
            Ok(incidents.into_values().skip(skip).collect())
        })
    }

    fn write_incident(&self, incident: Incident) -> WriteFuture<'_> {
        self.replicate_after(self.local.write_incident(incident))
    }

    fn service_lifetime(&self) -> BoxFuture<'_, Result<Option<ServiceLifetime>, StoreError>> {
        Box::pin(async move {
            match join(
                self.local.service_lifetime(),
                self.reader.service_lifetime(),
            )
            .await
            {
                (Ok(Some(local)), Ok(Some(shared))) => {
                    Ok(Some(merge::merge_lifetimes(local, shared)))
                }
                (Ok(None), Ok(shared)) => Ok(shared),
                (local, _) => local,
            }
        })
    }

    fn save_service_lifetime(&self, life: ServiceLifetime) -> WriteFuture<'_> {
        self.replicate_after(self.local.save_service_lifetime(life))
    }

    fn get_answer(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        Box::pin(async move {
            match join(self.local.get_answer(key), self.reader.get_answer(key)).await {
                // A journaled local answer is newer than the shared one. Otherwise the shared view
                // counts, since another instance may have removed the answer.
                (_, Ok(shared))
                    if !self
                        .local
                        .awaits_replication(RecordKey::Answer(key))
                        .await? =>
                {
                    Ok(shared)
                }
                (local, Ok(_) | Err(RedisCallError::Unavailable | RedisCallError::Rejected)) => {
                    local
                }
            }
        })
    }

    fn answer_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        Box::pin(async move {
            let (local, shared) = join(self.local.answer_keys(), self.reader.answer_keys()).await;
            let mut keys = local?;
            let shared = shared.unwrap_or_default();
            keys.retain(|key| !shared.contains(key));
            keys.extend(shared);
            Ok(keys)
        })
    }

    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> WriteFuture<'_> {
        self.replicate_and_wait(self.local.put_answer(key, answer))
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> WriteFuture<'_> {
        self.replicate_and_wait(self.local.remove_answers(keys))
    }

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
        self.local.problem().or_else(|| {
            self.reader
                .client
                .health()
                .borrow()
                .outage
                .map(OutageReason::describe)
        })
    }
}
