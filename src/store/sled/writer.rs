//! The writing thread: takes all that waits, applies it, flushes once, tells everyone.
//!
//! sled gives up for good at its first failed write. The thread then closes the tree and opens it again as soon as that works; until then it
//! tells everyone at once that nothing is saved, but keeps the changes, within bounds, and makes them up. Damage of one page fails only what
//! touches that page.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sled::Db;

use super::journal;
use super::layout;
use super::queue::{MOST_BYTES, Pending, Queue};
use crate::store::StoreError;
use crate::store::open::reopen;

/// How long the thread leaves a store alone that failed, before it tries to open it again.
const HEAL_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// A flush that takes longer than this is said in the status: visitors are no longer told that their message is on disk.
const SLOW: Duration = Duration::from_secs(1);

/// What the callers and the thread share.
#[derive(Default)]
pub(super) struct Shared {
    /// What waits to be written.
    pub(super) queue: Queue,
    /// How it stands.
    pub(super) health: Health,
    /// Whether changes are marked in the journal.
    pub(super) journals: AtomicBool,
    /// Flushes that somebody waited for.
    pub(super) flushes: AtomicU64,
    tree: RwLock<Option<Db>>,
}

impl Shared {
    /// The open tree.
    ///
    /// # Errors
    /// `Broken` while there is none.
    pub(super) fn tree(&self) -> Result<Db, StoreError> {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.clone().ok_or_else(closed)
    }

    /// Puts a tree, or none, in the place of the one there was. That one is for the caller to close, and not under the lock that readers need.
    fn set_tree(&self, tree: Option<Db>) -> Option<Db> {
        std::mem::replace(
            &mut *self.tree.write().unwrap_or_else(PoisonError::into_inner),
            tree,
        )
    }
}

fn closed() -> StoreError {
    StoreError::Broken("the disk does not take it".into())
}

/// Closes a tree, which writes, may take long, and may panic.
fn close<T>(tree: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(tree)));
}

/// How the store stands, for the status.
#[derive(Default)]
pub(super) struct Health {
    broken: AtomicBool,
    damaged: AtomicBool,
    flushing: Mutex<Option<Instant>>,
}

impl Health {
    /// Something could not be read that should be there.
    pub(super) fn damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// A group of writes is under way since then; none: no longer.
    pub(super) fn set_flushing(&self, since: Option<Instant>) {
        *self.flushing.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// What is wrong just now, in a sentence for everyone.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let flushing = *self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.broken.load(Ordering::Relaxed) {
            Some("Conversations cannot be saved at the moment: the disk does not take them.")
        } else if flushing.is_some_and(|since| since.elapsed() > SLOW) {
            Some("Conversations are saved late: the disk is slow.")
        } else if self.damaged.load(Ordering::Relaxed) {
            Some("A part of the saved conversations cannot be read.")
        } else {
            None
        }
    }
}

/// Starts the thread over an open tree that lies in `folder`. It ends once the queue is closed and empty: it closes the tree, then lets go
/// the lock.
///
/// # Errors
/// `Broken` where there is no thread or no second handle of the tree's file to be had.
pub(super) fn start(
    shared: Arc<Shared>,
    db: Db,
    folder: PathBuf,
    lock: File,
) -> Result<(), StoreError> {
    let mut writer = Writer {
        shared,
        folder,
        disk: None,
        owed: VecDeque::new(),
        retry_at: Instant::now(),
    };
    writer.resume(db)?;
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            writer.run();
            drop(lock);
        })
        .map(drop)
        .map_err(|_| StoreError::Broken("no thread to write with".into()))
}

/// A tree that takes writes: the tree itself, and its file for making sure.
struct Disk {
    db: Db,
    /// sled waits until its pages are written, but has neither the file's length nor the drive's own cache flushed.
    file: File,
}

impl Disk {
    /// Applies all, flushes once where anyone waits. Gives each change's own result, or why the whole tree failed.
    ///
    /// `at` is left at the change that was being applied, or behind the last.
    fn commit(
        &self,
        batch: &[Pending],
        shared: &Shared,
        at: &AtomicUsize,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut results = Vec::with_capacity(batch.len());
        let journals = shared.journals.load(Ordering::Relaxed);
        for pending in batch {
            // Before the change: a mark too many costs a look, one too few a record.
            let marked = if journals {
                journal::mark(&self.db, &pending.op)
            } else {
                Ok(())
            };
            match marked.and_then(|()| layout::apply(&self.db, &pending.op)) {
                Err(error @ StoreError::Broken(_)) => return Err(error),
                result => results.push(result),
            }
            at.fetch_add(1, Ordering::Relaxed);
        }
        if !batch.iter().all(|pending| pending.op.is_light()) {
            let broken = |kind: std::io::ErrorKind| StoreError::Broken(kind.to_string());
            self.db.flush().map_err(|error| layout::meaning(&error))?;
            self.file
                .sync_data()
                .map_err(|error| broken(error.kind()))?;
            shared.flushes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(results)
    }
}

struct Writer {
    shared: Arc<Shared>,
    folder: PathBuf,
    disk: Option<Disk>,
    /// Changes whose callers were told that they failed, to be made up.
    owed: VecDeque<Pending>,
    retry_at: Instant,
}

impl Writer {
    fn run(mut self) {
        loop {
            let patience = self.disk.is_none().then_some(HEAL_EVERY);
            let Some(batch) = self.shared.queue.take(patience) else {
                break;
            };
            match self.disk.take() {
                Some(disk) => self.write(disk, batch),
                None => self.owe(batch, &closed()),
            }
            if self.disk.is_none() && Instant::now() >= self.retry_at {
                self.heal();
            }
        }
        close((self.disk.take(), self.shared.set_tree(None)));
    }

    /// Takes writes into this tree from now on.
    fn resume(&mut self, db: Db) -> Result<(), StoreError> {
        let file = File::open(self.folder.join("db"));
        let file = file.map_err(|error| StoreError::Broken(error.kind().to_string()))?;
        close(self.shared.set_tree(Some(db.clone())));
        self.shared.health.broken.store(false, Ordering::Relaxed);
        self.disk = Some(Disk { db, file });
        Ok(())
    }

    fn write(&mut self, disk: Disk, mut batch: Vec<Pending>) {
        let at = AtomicUsize::new(0);
        self.shared.health.set_flushing(Some(Instant::now()));
        let done = catch_unwind(AssertUnwindSafe(|| disk.commit(&batch, &self.shared, &at)));
        self.shared.health.set_flushing(None);
        match done {
            Ok(Ok(results)) => {
                for (pending, result) in batch.iter_mut().zip(results) {
                    if result.is_err() {
                        self.shared.health.damaged();
                    }
                    pending.tell(result);
                }
                self.disk = Some(disk);
            }
            Ok(Err(error)) => self.fail(disk, batch, &error),
            Err(_) => {
                let error = StoreError::Broken("a fault of the database".into());
                let culprit = at.into_inner();
                if culprit < batch.len() {
                    // It would do it again, so it is not kept.
                    batch.remove(culprit).tell(Err(error.clone()));
                }
                self.fail(disk, batch, &error);
            }
        }
    }

    fn fail(&mut self, disk: Disk, batch: Vec<Pending>, error: &StoreError) {
        tracing::error!(%error, "store failed; conversations are not saved until it opens again");
        self.shared.health.broken.store(true, Ordering::Relaxed);
        self.owe(batch, error);
        let tree = self.shared.set_tree(None);
        // In disorder it may never close: then it is not opened again either, but this thread goes on telling so.
        let _ = std::thread::Builder::new()
            .name("store-close".into())
            .spawn(move || close((disk, tree)));
        self.retry_at = Instant::now() + HEAL_EVERY;
    }

    /// Tells everyone that it failed, and keeps what is to be made up.
    fn owe(&mut self, batch: Vec<Pending>, error: &StoreError) {
        for mut pending in batch {
            pending.tell(Err(error.clone()));
            if pending.is_owed() {
                self.owed.push_back(pending);
            }
        }
        let mut bytes = self
            .owed
            .iter()
            .map(|pending| pending.op.weight())
            .sum::<usize>();
        while bytes > MOST_BYTES
            && let Some(oldest) = self.owed.pop_front()
        {
            bytes -= oldest.op.weight();
        }
    }

    fn heal(&mut self) {
        self.retry_at = Instant::now() + HEAL_EVERY;
        let opened = reopen(&self.folder);
        if let Some(db) = opened
            && self.resume(db).is_ok()
            && let Some(disk) = self.disk.take()
        {
            tracing::info!(owed = self.owed.len(), "store opened again");
            let owed = Vec::from(std::mem::take(&mut self.owed));
            self.write(disk, owed);
        }
    }
}
