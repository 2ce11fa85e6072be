//! The writer thread: takes all waiting writes, applies them, flushes once and acknowledges them.
//!
//! After its first failed write, sled refuses all others. The thread then closes the tree and
//! reopens it as soon as that works. Until then it fails every write at once, but keeps the
//! changes, within bounds, and applies them afterwards. Damage to a single page fails only the
//! changes that touch the page.

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

const HEAL_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// A longer flush is reported on the status page: visitors are no longer told that their message is
/// saved.
const SLOW: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) health: Health,
    pub(super) journals: AtomicBool,
    /// Flushes that a caller waited for.
    pub(super) flushes: AtomicU64,
    tree: RwLock<Option<Db>>,
}

impl Shared {
    /// # Errors
    /// `Unavailable` while no tree is open.
    pub(super) fn tree(&self) -> Result<Db, StoreError> {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.clone().ok_or_else(closed)
    }

    /// Replaces the tree and returns the old one. The caller must close that outside of the lock,
    /// which readers need.
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

/// Closes a tree. That writes to disk, may take long and may panic.
fn close<T>(tree: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(tree)));
}

#[derive(Default)]
pub(super) struct Health {
    broken: AtomicBool,
    is_damaged: AtomicBool,
    flushing: Mutex<Option<Instant>>,
}

impl Health {
    /// Reports that a record which should exist could not be read.
    pub(super) fn damaged(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// Sets when the running group of writes started, or `None` after it.
    pub(super) fn set_flushing(&self, since: Option<Instant>) {
        *self.flushing.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// The current problem as a sentence for the public status page.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let flushing = *self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.broken.load(Ordering::Relaxed) {
            Some("Conversations cannot be saved at the moment: the disk does not take them.")
        } else if flushing.is_some_and(|since| since.elapsed() > SLOW) {
            Some("Conversations are saved late: the disk is slow.")
        } else if self.is_damaged.load(Ordering::Relaxed) {
            Some("A part of the saved conversations cannot be read.")
        } else {
            None
        }
    }
}

/// Starts the thread on an open tree in `folder`.
///
/// The thread ends once the queue is closed and empty. It then closes the tree and releases the
/// lock.
///
/// # Errors
/// `Unavailable` if the thread cannot be started or the tree's file cannot be opened.
pub(super) fn start(
    state: Arc<Shared>,
    db: Db,
    folder: PathBuf,
    lock: File,
) -> Result<(), StoreError> {
    let mut writer = Writer {
        shared: state,
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

struct Disk {
    db: Db,
    /// sled waits for its writes to this file, but flushes neither the file length nor the drive's
    /// own cache.
    file: File,
}

impl Disk {
    /// Applies all writes and flushes once if a caller waits. Returns each write's own result, or
    /// the error that makes the whole tree unusable.
    ///
    /// After a panic, `at` is the index of the write that was being applied.
    fn commit(
        &self,
        batch: &[Pending],
        state: &Shared,
        at: &AtomicUsize,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut results = Vec::with_capacity(batch.len());
        let journal_enabled = state.journals.load(Ordering::Relaxed);
        for pending in batch {
            // The journal comes first: an entry too many costs one more replication, a missing one
            // loses the record for the other instances.
            let journaled = if journal_enabled {
                journal::mark(&self.db, &pending.op)
            } else {
                Ok(())
            };
            match journaled.and_then(|()| layout::apply(&self.db, &pending.op)) {
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
            state.flushes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(results)
    }
}

struct Writer {
    shared: Arc<Shared>,
    folder: PathBuf,
    disk: Option<Disk>,
    owed: VecDeque<Pending>,
    retry_at: Instant,
}

impl Writer {
    fn run(mut self) {
        loop {
            // Without a tree, wake up regularly to try to reopen it.
            let wait_limit = self.disk.is_none().then_some(HEAL_EVERY);
            let Some(batch) = self.shared.queue.take(wait_limit) else {
                break;
            };
            match self.disk.take() {
                Some(tree) => self.write(tree, batch),
                None => self.owe(batch, &closed()),
            }
            if self.disk.is_none() && Instant::now() >= self.retry_at {
                self.heal();
            }
        }
        close((self.disk.take(), self.shared.set_tree(None)));
    }

    fn resume(&mut self, db: Db) -> Result<(), StoreError> {
        let file = File::open(self.folder.join("db"));
        let file = file.map_err(|error| StoreError::Broken(error.kind().to_string()))?;
        close(self.shared.set_tree(Some(db.clone())));
        self.shared.health.broken.store(false, Ordering::Relaxed);
        self.disk = Some(Disk { db, file });
        Ok(())
    }

    fn write(&mut self, tree: Disk, mut batch: Vec<Pending>) {
        let at = AtomicUsize::new(0);
        self.shared.health.set_flushing(Some(Instant::now()));
        let result = catch_unwind(AssertUnwindSafe(|| tree.commit(&batch, &self.shared, &at)));
        self.shared.health.set_flushing(None);
        match result {
            Ok(Ok(results)) => {
                for (pending, result) in batch.iter_mut().zip(results) {
                    if result.is_err() {
                        self.shared.health.damaged();
                    }
                    pending.tell(result);
                }
                self.disk = Some(tree);
            }
            Ok(Err(error)) => self.fail(tree, batch, &error),
            Err(_) => {
                let error = StoreError::Broken("a fault of the database".into());
                let culprit = at.into_inner();
                if culprit < batch.len() {
                    // A retry would panic again.
                    batch.remove(culprit).tell(Err(error.clone()));
                }
                self.fail(tree, batch, &error);
            }
        }
    }

    fn fail(&mut self, tree: Disk, batch: Vec<Pending>, error: &StoreError) {
        tracing::error!(%error, "store failed: nothing is saved until it is reopened");
        self.shared.health.broken.store(true, Ordering::Relaxed);
        self.owe(batch, error);
        let old_db = self.shared.set_tree(None);
        // Closing an inconsistent tree may hang. It then cannot be reopened either, but this thread
        // keeps answering.
        let _ = std::thread::Builder::new()
            .name("store-close".into())
            .spawn(move || close((tree, old_db)));
        self.retry_at = Instant::now() + HEAL_EVERY;
    }

    /// Fails all writes and keeps those that are to be applied later.
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
            && let Some(tree) = self.disk.take()
        {
            tracing::info!(retained = self.owed.len(), "store reopened");
            let retained = Vec::from(std::mem::take(&mut self.owed));
            self.write(tree, retained);
        }
    }
}
