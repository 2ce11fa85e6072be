//! The embedded store: one sled tree behind one writer thread.
//!
//! A call queues its write; the writer thread applies all queued writes, flushes once and
//! acknowledges them. Sharing the flush makes durable writes affordable for many conversations at
//! once. Reads run on the blocking pool. No call waits longer than [`CALL_TIMEOUT`]. A disk that
//! stops taking writes costs durability, and the writer thread reopens the store once that works.

mod answers;
mod expiry;
mod journal;
mod queue;
mod read_pool;
mod schema;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sled::Db;
use tokio::time::timeout;

use self::queue::WriteOp;
use self::read_pool::ReadPool;
use self::writer::WriterState;
use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, DailySpendRecord, ExpiredPage,
    Store, StoreError,
};
use crate::domain::{
    ClientMsgId, ConversationId, Incident, ServiceLifetime, Timestamp, TurnId, TurnRecord,
    TurnUpdate,
};

pub(super) use self::answers::count_unreadable;
pub(super) use self::journal::{JournalEntry, RecordKey, RecordState};
pub(super) use self::schema::interrupt_running;

pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// sled's page cache, in bytes. sled's default is 1 GiB, but the system's page cache holds the file
/// anyway, and the process should stay small.
const PAGE_CACHE_BYTES: u64 = 8 << 20;

/// Interval at which sled flushes writes that nobody waits for. Together with the interval between
/// two checkpoints of a turn, it stays under the half second that a crash may cost.
const FLUSH_INTERVAL_MS: u64 = 100;

/// Opens the tree in `folder`. Blocks without a time limit and panics if sled does;
/// [`super::open()`] guards against both.
pub(super) fn open_tree(folder: &std::path::Path) -> sled::Result<Db> {
    sled::Config::new()
        .path(folder)
        .cache_capacity(PAGE_CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_INTERVAL_MS))
        .open()
}

/// The store on disk. On drop, the writer thread finishes the queued writes and closes the tree.
pub struct SledStore {
    state: Arc<WriterState>,
    read_pool: Arc<ReadPool>,
}

impl SledStore {
    /// Starts the writer thread on an open tree.
    ///
    /// `folder` is the tree's location, for reopening it. `lock` is held until the tree is closed.
    ///
    /// # Errors
    /// `Unavailable` if the thread cannot be started or the tree's file cannot be opened.
    pub(super) fn start(db: Db, folder: PathBuf, lock: File) -> Result<Self, StoreError> {
        let state = Arc::new(WriterState::default());
        writer::start(Arc::clone(&state), db, folder, lock)?;
        Ok(Self::with_state(state))
    }

    fn with_state(state: Arc<WriterState>) -> Self {
        Self {
            state,
            read_pool: Arc::default(),
        }
    }

    pub(super) fn enable_journal(&self) {
        self.state.is_journal_enabled.store(true, Ordering::Relaxed);
    }

    /// Returns the next journal entries, with `after` only those behind it.
    pub(super) fn journal_entries(
        &self,
        after: Option<JournalEntry>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<JournalEntry>, StoreError>> {
        self.read(move |db| journal::read_entries(db, after.as_ref(), limit))
    }

    /// Reads the current state of the records that the entries name. Skips unreadable ones, which
    /// cannot be replicated.
    pub(super) fn read_states(
        &self,
        entries: Vec<JournalEntry>,
    ) -> BoxFuture<'_, Result<Vec<(JournalEntry, RecordState)>, StoreError>> {
        self.read(move |db| {
            let read_state = |entry: JournalEntry| {
                let state = journal::read_state(db, &entry.record).ok()?;
                Some((entry, state))
            };
            Ok(entries.into_iter().filter_map(read_state).collect())
        })
    }

    pub(super) fn awaits_replication(
        &self,
        record: RecordKey,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.read(move |db| journal::awaits_replication(db, &record))
    }

    /// Queues the removal of journal entries. An entry stays if its record changed after the read.
    pub(super) fn clear_entries(&self, entries: Vec<JournalEntry>) {
        drop(self.state.queue.push(WriteOp::ClearEntries(entries)));
    }

    /// Queues the removal of the local copy of a conversation that another instance deleted.
    pub(super) fn drop_local(&self, conversation: ConversationId) {
        drop(self.state.queue.push(WriteOp::DropLocal(conversation)));
    }

    /// Queues a write immediately, in the order of the calls. The future waits for its result.
    fn queue_write(&self, op: WriteOp) -> BoxFuture<'_, Result<(), StoreError>> {
        let receipt = self.state.queue.push(op);
        Box::pin(async move {
            match timeout(CALL_TIMEOUT, receipt?).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(StoreError::Unavailable("it is closed".into())),
                Err(_) => Err(StoreError::Unavailable("no answer in time".into())),
            }
        })
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(async move {
            let call = timeout(CALL_TIMEOUT, async {
                let guard = self.read_pool.start().await;
                let state = Arc::clone(&self.state);
                tokio::task::spawn_blocking(move || {
                    // The read counts as active until it returns, even if its caller has given up.
                    let _guard = guard;
                    read(&state.tree()?)
                })
                .await
                .unwrap_or_else(|error| {
                    Err(if error.is_panic() {
                        // sled panics on inconsistent pages.
                        StoreError::Damaged("it cannot be read".into())
                    } else {
                        StoreError::Unavailable("it is closed".into())
                    })
                })
            });
            let result = call
                .await
                .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".into())));
            if matches!(result, Err(StoreError::Damaged(_))) {
                self.state.health.mark_damaged();
            }
            result
        })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.state.queue.close();
    }
}

impl Store for SledStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        self.read(move |db| schema::conversation(db, id))
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::CreateConversation(id, record))
    }

    fn latest_conversation(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        self.read(move |db| schema::latest_conversation(db, &subject))
    }

    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::WriteTurn(conversation, turn))
    }

    fn update_turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: TurnUpdate,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::UpdateTurn(conversation, turn, change))
    }

    fn set_followup_pending(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::SetFollowupPending(conversation, turn, is_pending))
    }

    fn pending_followups(
        &self,
    ) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        self.read(schema::pending_followups)
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.state.queue.push_checkpoint(conversation, turn);
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.read(move |db| schema::turn(db, conversation, turn))
    }

    fn turn_by_message(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.read(move |db| schema::turn_by_message(db, conversation, &message))
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        self.read(move |db| schema::turns(db, conversation, before, limit))
    }

    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ExpiredPage, StoreError>> {
        self.read(move |db| expiry::expired_conversations(db, before, cursor, limit))
    }

    fn delete_conversation(
        &self,
        conversation: ConversationId,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::DeleteConversation(conversation))
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        self.read(schema::breakers)
    }

    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::WriteBreaker(provider, record))
    }

    fn daily_spend(&self) -> BoxFuture<'_, Result<Vec<DailySpendRecord>, StoreError>> {
        self.read(schema::daily_spend)
    }

    fn save_daily_spend(&self, record: DailySpendRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::SaveDailySpend(record))
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        self.read(schema::incidents)
    }

    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::WriteIncident(incident))
    }

    fn service_lifetime(&self) -> BoxFuture<'_, Result<Option<ServiceLifetime>, StoreError>> {
        self.read(schema::service_lifetime)
    }

    fn save_service_lifetime(
        &self,
        life: ServiceLifetime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::SaveServiceLifetime(life))
    }

    fn get_document(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        self.read(move |db| schema::document(db, &name))
    }

    fn put_document(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::PutDocument(name, text))
    }

    fn get_answer(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        self.read(move |db| answers::get_answer(db, key))
    }

    fn answer_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        self.read(answers::answer_keys)
    }

    fn put_answer(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::PutAnswer(key, answer))
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.queue_write(WriteOp::RemoveAnswers(keys))
    }

    fn is_stalled(&self) -> bool {
        self.read_pool.is_stalled(CALL_TIMEOUT)
    }

    fn problem(&self) -> Option<&'static str> {
        let stalled = || {
            self.is_stalled()
                .then_some("Saved conversations cannot be read in time: the disk does not answer.")
        };
        self.state.health.problem().or_else(stalled)
    }
}

#[cfg(test)]
mod tests;
