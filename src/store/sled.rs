//! The embedded store: one sled tree behind one writing thread.
//!
//! A write is queued at the call, applied and flushed by the writing thread together with all others that wait, and then acknowledged: that
//! is what makes "on disk" affordable for many conversations at once. Reads run on the blocking pool. No call waits longer than [`LIMIT`];
//! a disk that stops taking writes costs durability, and the writing thread opens the store again as soon as that works.

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

/// The longest that any call waits.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What sled keeps of the tree in memory, in bytes. Its own default is 1 GiB; the system's page cache has the file anyway, and the whole
/// process is to stay small.
const CACHE: u64 = 8 << 20;

/// How often sled flushes what nobody waits for, in milliseconds. Together with the time from one checkpoint of a turn to the next it stays
/// under the half second that a crash may cost.
const FLUSH_EVERY_MS: u64 = 100;

/// Opens the tree in `folder`, blocking, without a limit of time, and panicking where sled does: see [`super::open()`] for the guarded way.
pub(super) fn open_tree(folder: &std::path::Path) -> sled::Result<Db> {
    sled::Config::new()
        .path(folder)
        .cache_capacity(CACHE)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()
}

/// Conversations on disk. Dropping it lets the writing thread finish what waits and close the tree behind it.
pub struct SledStore {
    shared: Arc<Shared>,
    reads: Arc<Reads>,
}

impl SledStore {
    /// A store over an open tree.
    ///
    /// `folder` is where the tree lies, for opening it again; `lock` is held until the tree is closed.
    ///
    /// # Errors
    /// `Broken` where no thread can be started or the tree's file cannot be opened beside it.
    pub(super) fn start(db: Db, folder: PathBuf, lock: File) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        writer::start(Arc::clone(&shared), db, folder, lock)?;
        Ok(Self::over(shared))
    }

    fn over(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            reads: Arc::default(),
        }
    }

    /// Marks every change from now on, to be handed over to a shared store.
    pub(super) fn keep_journal(&self) {
        self.shared.journals.store(true, Ordering::Relaxed);
    }

    /// The next marks of the journal, those behind `after` if given.
    pub(super) fn marks(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Mark>, StoreError>> {
        self.read(move |db| journal::marks(db, after.as_ref(), limit))
    }

    /// What these marks came to, each with its own. What does not read is passed over: it has nothing to be handed over.
    pub(super) fn standing(
        &self,
        marks: Vec<Mark>,
    ) -> BoxFuture<'_, Result<Vec<(Mark, Standing)>, StoreError>> {
        self.read(move |db| {
            let of = |mark: Mark| Some((journal::standing(db, &mark.changed).ok()?, mark));
            Ok(marks
                .into_iter()
                .filter_map(of)
                .map(|(standing, mark)| (mark, standing))
                .collect())
        })
    }

    /// Whether this is still to be handed over.
    pub(super) fn is_marked(&self, changed: Changed) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.read(move |db| journal::is_marked(db, &changed))
    }

    /// Removes marks, where nothing changed since they were read. Queued, not waited for.
    pub(super) fn unmark(&self, marks: Vec<Mark>) {
        drop(self.shared.queue.push(Op::Unmark(marks)));
    }

    /// Removes what is here of a conversation that was forgotten elsewhere. Queued, not waited for.
    pub(super) fn outdate(&self, conversation: ConversationId) {
        drop(self.shared.queue.push(Op::Outdated(conversation)));
    }

    /// Queues a write now, in the order of the calls, and waits for it when polled.
    fn write(&self, op: Op) -> BoxFuture<'_, Result<(), StoreError>> {
        let told = self.shared.queue.push(op);
        Box::pin(async move {
            match timeout(LIMIT, told?).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(StoreError::Broken("it is closed".into())),
                Err(_) => Err(StoreError::Broken("no answer in time".into())),
            }
        })
    }

    fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(async move {
            let found = timeout(LIMIT, async {
                let under_way = self.reads.begin().await;
                let shared = Arc::clone(&self.shared);
                tokio::task::spawn_blocking(move || {
                    let _until_read = under_way;
                    look(&shared.tree()?)
                })
                .await
                .unwrap_or_else(|error| {
                    Err(if error.is_panic() {
                        // sled found its own pages in disorder.
                        StoreError::Damaged("it cannot be read".into())
                    } else {
                        StoreError::Broken("it is closed".into())
                    })
                })
            });
            let result = found
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
        waits: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(Op::Waiting(conversation, turn, waits))
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
        after: Option<ConversationId>,
        look: usize,
    ) -> BoxFuture<'_, Result<Idle, StoreError>> {
        self.read(move |db| idle::idle(db, before, after, look))
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
        let hangs = || {
            self.hangs()
                .then_some("Saved conversations cannot be read in time: the disk does not answer.")
        };
        self.shared.health.problem().or_else(hangs)
    }
}

#[cfg(test)]
mod tests;
