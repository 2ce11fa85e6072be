//! The embedded store: one sled tree behind one writer thread.
//!
//! A call queues its write; the writer thread applies all queued writes, flushes once and
//! acknowledges them. Sharing the flush makes durable writes affordable for many conversations at
//! once. Reads run on the blocking pool. No call waits longer than [`CALL_TIMEOUT`]. A disk that
//! stops taking writes costs durability, and the writer thread reopens the store once that works.

mod answers;
mod conversations;
mod documents;
mod expiry;
mod journal;
mod queue;
mod read_pool;
pub(super) mod tree;
mod write_op;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sled::Db;
use tokio::time::timeout;

use self::read_pool::ReadPool;
use self::write_op::WriteOp;
use self::writer::WriterState;
use super::{
    AnswerStore, CacheKey, CachedAnswer, ConversationRecord, ConversationStore, DocumentKind,
    DocumentStore, ExpiredPage, Store, StoreError, StoreFuture,
};
use crate::domain::{ClientMsgId, ConversationId, Timestamp, TurnId, TurnRecord, TurnUpdate};

pub(super) use self::answers::count_unreadable;
pub(super) use self::conversations::interrupt_running;
pub(super) use self::journal::{JournalEntry, RecordKey, RecordState};

pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

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
    ) -> StoreFuture<'_, Vec<JournalEntry>> {
        self.read(move |db| journal::read_entries(db, after.as_ref(), limit))
    }

    /// Reads the current state of the records that the entries name. Skips unreadable ones, which
    /// cannot be replicated.
    pub(super) fn read_states(
        &self,
        entries: Vec<JournalEntry>,
    ) -> StoreFuture<'_, Vec<(JournalEntry, RecordState)>> {
        self.read(move |db| {
            let read_state = |entry: JournalEntry| {
                let state = journal::read_state(db, &entry.record).ok()?;
                Some((entry, state))
            };
            Ok(entries.into_iter().filter_map(read_state).collect())
        })
    }

    pub(super) fn awaits_replication(&self, record: RecordKey) -> StoreFuture<'_, bool> {
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
    fn queue_write(&self, op: WriteOp) -> StoreFuture<'_> {
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
    ) -> StoreFuture<'_, T> {
        let call = async move {
            let guard = self.read_pool.start().await;
            let state = Arc::clone(&self.state);
            let reading = tokio::task::spawn_blocking(move || {
                // The read counts as active until it returns, even if its caller has given up.
                let _guard = guard;
                read(&state.tree()?)
            });
            match reading.await {
                Ok(result) => result,
                // sled panics on inconsistent pages.
                Err(error) if error.is_panic() => {
                    Err(StoreError::Damaged("it cannot be read".into()))
                }
                Err(_) => Err(StoreError::Unavailable("it is closed".into())),
            }
        };
        Box::pin(async move {
            let late = |_| Err(StoreError::Unavailable("no answer in time".into()));
            let result = timeout(CALL_TIMEOUT, call).await.unwrap_or_else(late);
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

impl ConversationStore for SledStore {
    fn conversation(&self, id: ConversationId) -> StoreFuture<'_, Option<ConversationRecord>> {
        self.read(move |db| conversations::conversation(db, id))
    }

    fn create_conversation(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> StoreFuture<'_> {
        self.queue_write(WriteOp::CreateConversation(id, record))
    }

    fn latest_conversation(&self, subject: String) -> StoreFuture<'_, Option<ConversationId>> {
        self.read(move |db| conversations::latest_conversation(db, &subject))
    }

    fn write_turn(&self, id: ConversationId, turn: TurnRecord) -> StoreFuture<'_> {
        self.queue_write(WriteOp::WriteTurn(id, turn))
    }

    fn update_turn(&self, id: ConversationId, turn: TurnId, change: TurnUpdate) -> StoreFuture<'_> {
        self.queue_write(WriteOp::UpdateTurn(id, turn, change))
    }

    fn set_followup_pending(
        &self,
        id: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> StoreFuture<'_> {
        self.queue_write(WriteOp::SetFollowupPending(id, turn, is_pending))
    }

    fn pending_followups(&self) -> StoreFuture<'_, Vec<(ConversationId, TurnId)>> {
        self.read(conversations::pending_followups)
    }

    fn checkpoint(&self, id: ConversationId, turn: TurnRecord) {
        self.state.queue.push_checkpoint(id, turn);
    }

    fn turn(&self, id: ConversationId, turn: TurnId) -> StoreFuture<'_, Option<TurnRecord>> {
        self.read(move |db| conversations::turn(db, id, turn))
    }

    fn turn_by_message(
        &self,
        id: ConversationId,
        message: ClientMsgId,
    ) -> StoreFuture<'_, Option<TurnRecord>> {
        self.read(move |db| conversations::turn_by_message(db, id, &message))
    }

    fn turns(
        &self,
        id: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<TurnRecord>> {
        self.read(move |db| conversations::turns(db, id, before, limit))
    }

    fn expired_conversations(
        &self,
        before: Timestamp,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> StoreFuture<'_, ExpiredPage> {
        self.read(move |db| expiry::expired_conversations(db, before, cursor, limit))
    }

    fn delete_conversation(&self, id: ConversationId) -> StoreFuture<'_> {
        self.queue_write(WriteOp::DeleteConversation(id))
    }
}

impl DocumentStore for SledStore {
    fn get(&self, kind: DocumentKind, key: String) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.read(move |db| documents::get(db, kind, &key))
    }

    fn list(&self, kind: DocumentKind) -> StoreFuture<'_, Vec<(String, Vec<u8>)>> {
        self.read(move |db| documents::list(db, kind))
    }

    fn put(&self, kind: DocumentKind, key: String, document: Option<Vec<u8>>) -> StoreFuture<'_> {
        self.queue_write(WriteOp::PutDocument(kind, key, document))
    }
}

impl AnswerStore for SledStore {
    fn get_answer(&self, key: CacheKey) -> StoreFuture<'_, Option<CachedAnswer>> {
        self.read(move |db| answers::get_answer(db, key))
    }

    fn answer_keys(&self) -> StoreFuture<'_, Vec<CacheKey>> {
        self.read(answers::answer_keys)
    }

    fn put_answer(&self, key: CacheKey, answer: CachedAnswer) -> StoreFuture<'_> {
        self.queue_write(WriteOp::PutAnswer(key, answer))
    }

    fn remove_answers(&self, keys: Vec<CacheKey>) -> StoreFuture<'_> {
        self.queue_write(WriteOp::RemoveAnswers(keys))
    }
}

#[cfg(test)]
mod tests;
