//! Opening the store at startup, whatever state the disk is in: in bounded time, without a panic,
//! and always with a store that works.
//!
//! A damaged tree is set aside, not deleted. If the disk cannot be used, the store is in memory.
//! The only error is a data folder that another process uses.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sled::Db;

use super::memory::MemoryStore;
use super::sled::tree::{OPEN_TIMEOUT, OpenError, OpenResult, create_private_dir, open_on_thread};
use super::sled::{SledStore, count_unreadable, interrupt_running};
use super::{Store, StoreError};
use crate::domain::{ConversationId, Timestamp, TurnId};

/// Time to wait for a lock: a store that was just dropped closes its tree in the background.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

const UNWRITABLE: &str = "the data folder cannot be written";

const TREE_FOLDER: &str = "store";

/// The result of opening: a store that works, and what to report about it.
pub struct OpenedStore {
    pub store: Arc<dyn Store>,
    /// Sentences for the public status page.
    pub problems: Vec<String>,
    pub has_earlier_data: bool,
    /// Turns that an earlier process left running, now interrupted and waiting for a follow-up.
    pub interrupted_turns: Vec<(ConversationId, TurnId)>,
    /// The same store if it is on disk. Only then can it be replicated.
    pub(super) sled: Option<Arc<SledStore>>,
}

impl OpenedStore {
    fn in_memory(mut problems: Vec<String>, why: &str) -> Self {
        tracing::error!(why, "store unusable: keeping conversations in memory only");
        problems.push(format!(
            "Conversations are kept in memory only and end with a restart: {why}."
        ));
        Self {
            store: Arc::new(MemoryStore::default()),
            problems,
            has_earlier_data: false,
            interrupted_turns: Vec::new(),
            sled: None,
        }
    }
}

struct OpenedTree {
    db: Db,
    has_earlier_data: bool,
    interrupted_turns: Vec<(ConversationId, TurnId)>,
    unreadable_answers: usize,
}

/// Opens the store of a data folder, creating the folder if needed. Blocks for up to half a minute.
///
/// `now` goes into the name of a damaged tree that is set aside.
///
/// # Errors
/// `Locked` if another process uses the folder. There is no other error.
pub fn open(data_dir: &Path, now: Timestamp) -> Result<OpenedStore, StoreError> {
    let mut problems = Vec::new();
    let lock = match lock_folder(data_dir) {
        Ok(lock) => lock,
        Err(OpenError::Locked) => return Err(StoreError::Locked),
        Err(_) => return Ok(OpenedStore::in_memory(problems, UNWRITABLE)),
    };
    let folder = data_dir.join(TREE_FOLDER);
    let mut opened = retry_while_locked(|| open_on_thread(&folder, OPEN_TIMEOUT, recover));
    if matches!(opened, Err(OpenError::Damaged)) {
        tracing::error!("store damaged: set aside, starting with a new one");
        let aside = data_dir.join(format!("{TREE_FOLDER}.damaged-{}", now.0));
        if std::fs::rename(&folder, aside).is_err() {
            return Ok(OpenedStore::in_memory(
                problems,
                "the saved conversations are damaged and cannot be set aside",
            ));
        }
        problems.push(
            "The saved conversations were damaged. They were set aside and new ones are started."
                .into(),
        );
        opened = open_on_thread(&folder, OPEN_TIMEOUT, recover);
    }
    let why = match opened {
        Ok(found) => match SledStore::start(found.db, folder, lock) {
            Ok(store) => {
                let store = Arc::new(store);
                problems.extend(unreadable_notice(found.unreadable_answers));
                return Ok(OpenedStore {
                    store: Arc::clone(&store) as _,
                    problems,
                    has_earlier_data: found.has_earlier_data,
                    interrupted_turns: found.interrupted_turns,
                    sled: Some(store),
                });
            }
            Err(_) => "the data folder cannot be used",
        },
        Err(OpenError::Locked) => return Err(StoreError::Locked),
        Err(OpenError::Damaged) => "a new store is damaged at once",
        Err(OpenError::Io(io::ErrorKind::StorageFull)) => "the disk is full",
        Err(OpenError::Io(_)) => UNWRITABLE,
        Err(OpenError::TimedOut) => "the saved conversations do not open in time",
    };
    Ok(OpenedStore::in_memory(problems, why))
}

/// Interrupts the turns that an earlier process left running.
///
/// If their index cannot be read, the store counts as damaged.
fn recover(db: Db) -> Result<OpenedTree, StoreError> {
    let interrupted = interrupt_running(&db)?;
    // A damaged page of cached answers must not cost the conversations.
    let unreadable = count_unreadable(&db).unwrap_or_default();
    Ok(OpenedTree {
        has_earlier_data: db.was_recovered(),
        interrupted_turns: interrupted,
        unreadable_answers: unreadable,
        db,
    })
}

fn unreadable_notice(count: usize) -> Option<String> {
    if count == 0 {
        return None;
    }
    tracing::warn!(
        count,
        "skipped saved answers that this version does not read"
    );
    let (answers, are) = if count == 1 {
        ("saved answer", "is")
    } else {
        ("saved answers", "are")
    };
    Some(format!(
        "{count} {answers} cannot be read (damaged, or of another version) and {are} passed over."
    ))
}

/// Creates the data folder and takes its lock.
///
/// sled's own lock is inside the tree and would not cover setting a damaged tree aside.
fn lock_folder(data_dir: &Path) -> OpenResult<File> {
    create_private_dir(data_dir)?;
    let lock = File::options()
        .create(true)
        .append(true)
        .open(data_dir.join("lock"))?;
    retry_while_locked(|| {
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked,
            TryLockError::Error(error) => error.into(),
        })
    })?;
    Ok(lock)
}

/// Retries for [`LOCK_TIMEOUT`] while the result is `Locked`.
fn retry_while_locked<T>(mut attempt: impl FnMut() -> OpenResult<T>) -> OpenResult<T> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match attempt() {
            Err(OpenError::Locked) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY_INTERVAL)
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
