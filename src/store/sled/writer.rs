//! The writer thread: takes all waiting writes, applies them, flushes once and acknowledges them.
//!
//! After its first failed write, sled refuses all others. The thread then closes the tree and
//! reopens it as soon as that works. Until then it fails every write at once, but keeps the
//! changes, within bounds, and applies them afterwards. Damage to a single page fails only the
//! changes that touch the page.

use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sled::Db;

use super::journal;
use super::queue::{MAX_PENDING_BYTES, PendingWrite, WriteQueue};
use super::tree::{OPEN_TIMEOUT, open_on_thread};
use crate::store::StoreError;

const REOPEN_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// A longer flush is reported on the status page: visitors are no longer told that their message is
/// saved.
const SLOW_FLUSH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct WriterState {
    pub(super) queue: WriteQueue,
    pub(super) health: StoreHealth,
    pub(super) is_journal_enabled: AtomicBool,
    /// Flushes that a caller waited for.
    pub(super) flush_count: AtomicU64,
    tree: RwLock<Option<Db>>,
}

impl WriterState {
    /// # Errors
    /// `Unavailable` while no tree is open.
    pub(super) fn tree(&self) -> Result<Db, StoreError> {
        let tree = self.tree.read();
        tree.clone().ok_or_else(tree_unavailable)
    }

    /// Replaces the tree and returns the old one. The caller must close that outside of the lock,
    /// which readers need.
    fn replace_tree(&self, tree: Option<Db>) -> Option<Db> {
        std::mem::replace(&mut *self.tree.write(), tree)
    }
}

fn tree_unavailable() -> StoreError {
    StoreError::Unavailable("the disk does not take it".into())
}

fn file_error(error: &io::Error) -> StoreError {
    StoreError::Unavailable(error.kind().to_string())
}

/// Closes a tree. That writes to disk, may take long and may panic.
fn close_tree<T>(tree: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(tree)));
}

#[derive(Default)]
pub(super) struct StoreHealth {
    is_failed: AtomicBool,
    is_damaged: AtomicBool,
    flush_started: Mutex<Option<Instant>>,
}

impl StoreHealth {
    /// Reports that a record which should exist could not be read.
    pub(super) fn mark_damaged(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// Sets when the running group of writes started, or `None` after it.
    pub(super) fn set_flush_started(&self, since: Option<Instant>) {
        *self.flush_started.lock() = since;
    }

    /// The current problem as a sentence for the public status page.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let flushing = *self.flush_started.lock();
        if self.is_failed.load(Ordering::Relaxed) {
            Some("Conversations cannot be saved at the moment: the disk does not take them.")
        } else if flushing.is_some_and(|since| since.elapsed() > SLOW_FLUSH) {
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
    state: Arc<WriterState>,
    db: Db,
    folder: PathBuf,
    lock: File,
) -> Result<(), StoreError> {
    let mut writer = Writer {
        state,
        folder,
        tree: None,
        retained: VecDeque::new(),
        retry_at: Instant::now(),
    };
    writer.resume_with(db)?;
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            writer.run();
            drop(lock);
        })
        .map(drop)
        .map_err(|_| StoreError::Unavailable("no thread to write with".into()))
}

struct OpenTree {
    db: Db,
    /// sled waits for its writes to this file, but flushes neither the file length nor the drive's
    /// own cache.
    file: File,
}

impl OpenTree {
    /// Applies all writes and flushes once if a caller waits. Returns each write's own result, or
    /// the error that makes the whole tree unusable.
    ///
    /// After a panic, `at` is the index of the write that was being applied.
    fn commit(
        &self,
        batch: &[PendingWrite],
        state: &WriterState,
        at: &AtomicUsize,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut results = Vec::with_capacity(batch.len());
        let journal_enabled = state.is_journal_enabled.load(Ordering::Relaxed);
        for pending in batch {
            // The journal comes first: an entry too many costs one more replication, a missing one
            // loses the record for the other instances.
            let journaled = if journal_enabled {
                let mut changed = pending.op.changed_records().into_iter();
                changed.try_for_each(|record| journal::record_change(&self.db, &record))
            } else {
                Ok(())
            };
            match journaled.and_then(|()| pending.op.apply(&self.db)) {
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                result => results.push(result),
            }
            at.fetch_add(1, Ordering::Relaxed);
        }
        if !batch.iter().all(|pending| pending.op.is_best_effort()) {
            self.db.flush()?;
            self.file.sync_data().map_err(|error| file_error(&error))?;
            state.flush_count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(results)
    }
}

struct Writer {
    state: Arc<WriterState>,
    folder: PathBuf,
    tree: Option<OpenTree>,
    retained: VecDeque<PendingWrite>,
    retry_at: Instant,
}

impl Writer {
    fn run(mut self) {
        loop {
            // Without a tree, wake up regularly to try to reopen it.
            let wait_limit = self.tree.is_none().then_some(REOPEN_INTERVAL);
            let Some(batch) = self.state.queue.drain(wait_limit) else {
                break;
            };
            match self.tree.take() {
                Some(tree) => self.write(tree, batch),
                None => self.keep_for_retry(batch, &tree_unavailable()),
            }
            if self.tree.is_none() && Instant::now() >= self.retry_at {
                self.try_reopen();
            }
        }
        close_tree((self.tree.take(), self.state.replace_tree(None)));
    }

    fn resume_with(&mut self, db: Db) -> Result<(), StoreError> {
        let file = File::open(self.folder.join("db")).map_err(|error| file_error(&error))?;
        close_tree(self.state.replace_tree(Some(db.clone())));
        self.state.health.is_failed.store(false, Ordering::Relaxed);
        self.tree = Some(OpenTree { db, file });
        Ok(())
    }

    fn write(&mut self, tree: OpenTree, mut batch: Vec<PendingWrite>) {
        let at = AtomicUsize::new(0);
        self.state.health.set_flush_started(Some(Instant::now()));
        let result = catch_unwind(AssertUnwindSafe(|| tree.commit(&batch, &self.state, &at)));
        self.state.health.set_flush_started(None);
        match result {
            Ok(Ok(results)) => {
                for (pending, result) in batch.iter_mut().zip(results) {
                    if result.is_err() {
                        self.state.health.mark_damaged();
                    }
                    pending.complete(result);
                }
                self.tree = Some(tree);
            }
            Ok(Err(error)) => self.mark_failed(tree, batch, &error),
            Err(_) => {
                let error = StoreError::Unavailable("a fault of the database".into());
                let culprit = at.into_inner();
                if culprit < batch.len() {
                    // A retry would panic again.
                    batch.remove(culprit).complete(Err(error.clone()));
                }
                self.mark_failed(tree, batch, &error);
            }
        }
    }

    fn mark_failed(&mut self, tree: OpenTree, batch: Vec<PendingWrite>, error: &StoreError) {
        tracing::error!(%error, "store failed: nothing is saved until it is reopened");
        self.state.health.is_failed.store(true, Ordering::Relaxed);
        self.keep_for_retry(batch, error);
        let old_db = self.state.replace_tree(None);
        // Closing an inconsistent tree may hang. It then cannot be reopened either, but this thread
        // keeps answering.
        let _ = std::thread::Builder::new()
            .name("store-close".into())
            .spawn(move || close_tree((tree, old_db)));
        self.retry_at = Instant::now() + REOPEN_INTERVAL;
    }

    /// Fails all writes and keeps those that are to be applied later.
    fn keep_for_retry(&mut self, batch: Vec<PendingWrite>, error: &StoreError) {
        for mut pending in batch {
            pending.complete(Err(error.clone()));
            if !pending.op.is_best_effort() {
                self.retained.push_back(pending);
            }
        }
        let sizes = self
            .retained
            .iter()
            .map(|pending| pending.op.memory_bytes());
        let mut bytes: usize = sizes.sum();
        while bytes > MAX_PENDING_BYTES
            && let Some(oldest) = self.retained.pop_front()
        {
            bytes -= oldest.op.memory_bytes();
        }
    }

    fn try_reopen(&mut self) {
        self.retry_at = Instant::now() + REOPEN_INTERVAL;
        // Turns that are running stay so.
        let opened = open_on_thread(&self.folder, OPEN_TIMEOUT, Ok);
        if let Ok(db) = opened
            && self.resume_with(db).is_ok()
            && let Some(tree) = self.tree.take()
        {
            tracing::info!(retained = self.retained.len(), "store reopened");
            let retained = Vec::from(std::mem::take(&mut self.retained));
            self.write(tree, retained);
        }
    }
}
