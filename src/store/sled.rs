//! The embedded store: one sled tree behind one writer thread.
//!
//! A call queues its write; the writer thread applies all queued writes, flushes once and
//! acknowledges them. Sharing the flush makes durable writes affordable for many conversations at
//! once. Reads run on the blocking pool. No call waits longer than [`CALL_TIMEOUT`]. A disk that
//! stops taking writes costs durability, and the writer thread reopens the store once that works.

mod cached;
mod idle;
mod journal;
mod layout;
mod queue;
mod reads;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sled::Db;
use tokio::time::timeout;

use self::queue::Op;
use self::reads::Reads;
use self::writer::Shared;
use super::{
    BreakerRecord, CacheKey, CachedAnswer, ConversationRecord, Idle, SpentRecord, Store, StoreError,
};
use crate::chat::{Amendment, At, ClientMsgId, ConversationId, Incident, Life, TurnId, TurnRecord};

pub(super) use self::cached::unreadable;
pub(super) use self::journal::{Changed, Mark, Standing};
pub(super) use self::layout::interrupt_running;

pub const LIMIT: Duration = Duration::from_secs(5);

/// sled's page cache, in bytes. sled's default is 1 GiB, but the system's page cache holds the file
/// anyway, and the process should stay small.
const CACHE: u64 = 8 << 20;

/// Interval at which sled flushes writes that nobody waits for. Together with the interval between
/// two checkpoints of a turn, it stays under the half second that a crash may cost.
const FLUSH_EVERY_MS: u64 = 100;

/// Opens the tree in `folder`. Blocks without a time limit and panics if sled does;
/// [`super::open()`] guards against both.
pub(super) fn open_tree(folder: &std::path::Path) -> sled::Result<Db> {
    sled::Config::new()
        .path(folder)
        .cache_capacity(CACHE)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()
}

/// The store on disk. On drop, the writer thread finishes the queued writes and closes the tree.
pub struct SledStore {
    shared: Arc<Shared>,
    reads: Arc<Reads>,
}

impl SledStore {
    /// Starts the writer thread on an open tree.
    ///
    /// `folder` is the tree's location, for reopening it. `lock` is held until the tree is closed.
    ///
    /// # Errors
    /// `Unavailable` if the thread cannot be started or the tree's file cannot be opened.
    pub(super) fn start(db: Db, folder: PathBuf, lock: File) -> Result<Self, StoreError> {
        let state = Arc::new(Shared::default());
        writer::start(Arc::clone(&state), db, folder, lock)?;
        Ok(Self::over(state))
    }

    fn over(state: Arc<Shared>) -> Self {
        Self {
            shared: state,
            reads: Arc::default(),
        }
    }

    pub(super) fn keep_journal(&self) {
        self.shared.journals.store(true, Ordering::Relaxed);
    }

    /// Returns the next journal entries, with `after` only those behind it.
    pub(super) fn marks(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Mark>, StoreError>> {
        self.read(move |db| journal::marks(db, after.as_ref(), limit))
    }

    /// Reads the current state of the records that the entries name. Skips unreadable ones, which
    /// cannot be replicated.
    pub(super) fn standing(
        &self,
        entries: Vec<Mark>,
    ) -> BoxFuture<'_, Result<Vec<(Mark, Standing)>, StoreError>> {
        self.read(move |db| {
            let read_state = |entry: Mark| {
                let state = journal::standing(db, &entry.changed).ok()?;
                Some((entry, state))
            };
            Ok(entries.into_iter().filter_map(read_state).collect())
        })
    }

    pub(super) fn is_marked(&self, record: Changed) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.read(move |db| journal::is_marked(db, &record))
    }

    /// Queues the removal of journal entries. An entry stays if its record changed after the read.
    pub(super) fn unmark(&self, entries: Vec<Mark>) {
        drop(self.shared.queue.push(Op::Unmark(entries)));
    }

    /// Queues the removal of the local copy of a conversation that another instance deleted.
    pub(super) fn outdate(&self, conversation: ConversationId) {
        drop(self.shared.queue.push(Op::Outdated(conversation)));
    }

    /// Queues a write immediately, in the order of the calls. The future waits for its result.
    fn write(&self, op: Op) -> BoxFuture<'_, Result<(), StoreError>> {
        let receipt = self.shared.queue.push(op);
        Box::pin(async move {
            match timeout(LIMIT, receipt?).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(StoreError::Broken("it is closed".into())),
                Err(_) => Err(StoreError::Broken("no answer in time".into())),
            }
        })
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(async move {
            let call = timeout(LIMIT, async {
                let guard = self.reads.begin().await;
                let state = Arc::clone(&self.shared);
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
                        StoreError::Broken("it is closed".into())
                    })
                })
            });
            let result = call
                .await
                .unwrap_or_else(|_| Err(StoreError::Broken("no answer in time".into())));
            if matches!(result, Err(StoreError::Damaged(_))) {
                self.shared.health.damaged();
            }
            result
        })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Store for SledStore {
    fn conversation(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'_, Result<Option<ConversationRecord>, StoreError>> {
        self.read(move |db| layout::conversation(db, id))
    }

    fn begin(
        &self,
        id: ConversationId,
        record: ConversationRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Begin(id, record))
    }

    fn newest_of(
        &self,
        subject: String,
    ) -> BoxFuture<'_, Result<Option<ConversationId>, StoreError>> {
        self.read(move |db| layout::newest_of(db, &subject))
    }

    fn write_turn(
        &self,
        conversation: ConversationId,
        turn: TurnRecord,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Turn(conversation, turn))
    }

    fn amend(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        change: Amendment,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Amend(conversation, turn, change))
    }

    fn write_waiting(
        &self,
        conversation: ConversationId,
        turn: TurnId,
        is_pending: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Waiting(conversation, turn, is_pending))
    }

    fn waiting(&self) -> BoxFuture<'_, Result<Vec<(ConversationId, TurnId)>, StoreError>> {
        self.read(layout::waiting)
    }

    fn checkpoint(&self, conversation: ConversationId, turn: TurnRecord) {
        self.shared.queue.checkpoint(conversation, turn);
    }

    fn turn(
        &self,
        conversation: ConversationId,
        turn: TurnId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.read(move |db| layout::turn(db, conversation, turn))
    }

    fn turn_of(
        &self,
        conversation: ConversationId,
        message: ClientMsgId,
    ) -> BoxFuture<'_, Result<Option<TurnRecord>, StoreError>> {
        self.read(move |db| layout::turn_of(db, conversation, &message))
    }

    fn turns(
        &self,
        conversation: ConversationId,
        before: Option<TurnId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<TurnRecord>, StoreError>> {
        self.read(move |db| layout::turns(db, conversation, before, limit))
    }

    fn idle(
        &self,
        before: At,
        cursor: Option<ConversationId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        self.read(move |db| idle::idle(db, before, cursor, limit))
    }

    fn forget(&self, conversation: ConversationId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Forget(conversation))
    }

    fn breakers(&self) -> BoxFuture<'_, Result<Vec<BreakerRecord>, StoreError>> {
        self.read(layout::breakers)
    }

    fn write_breaker(
        &self,
        provider: String,
        record: Option<BreakerRecord>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Breaker(provider, record))
    }

    fn spent(&self) -> BoxFuture<'_, Result<Vec<SpentRecord>, StoreError>> {
        self.read(layout::spent)
    }

    fn write_spent(&self, record: SpentRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Spent(record))
    }

    fn incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        self.read(layout::incidents)
    }

    fn write_incident(&self, incident: Incident) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Incident(incident))
    }

    fn life(&self) -> BoxFuture<'_, Result<Option<Life>, StoreError>> {
        self.read(layout::life)
    }

    fn write_life(&self, life: Life) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Life(life))
    }

    fn note(&self, name: String) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        self.read(move |db| layout::note(db, &name))
    }

    fn write_note(&self, name: String, text: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Note(name, text))
    }

    fn cached(&self, key: CacheKey) -> BoxFuture<'_, Result<Option<CachedAnswer>, StoreError>> {
        self.read(move |db| cached::get_answer(db, key))
    }

    fn cached_keys(&self) -> BoxFuture<'_, Result<Vec<CacheKey>, StoreError>> {
        self.read(cached::keys)
    }

    fn write_cached(
        &self,
        key: CacheKey,
        answer: CachedAnswer,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Cached(key, answer))
    }

    fn remove_cached(&self, keys: Vec<CacheKey>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Uncached(keys))
    }

    fn hangs(&self) -> bool {
        self.reads.hang(LIMIT)
    }

    fn problem(&self) -> Option<&'static str> {
        let stalled = || {
            self.hangs()
                .then_some("Saved conversations cannot be read in time: the disk does not answer.")
        };
        self.shared.health.problem().or_else(stalled)
    }
}

#[cfg(test)]
mod tests;
