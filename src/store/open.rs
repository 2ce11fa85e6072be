//! Opening the store at startup, whatever state the disk is in: in bounded time, without a panic,
//! and always with a store that works.
//!
//! A damaged tree is set aside, not deleted. If the disk cannot be used, the store is in memory.
//! The only error is a data folder that another process uses.

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sled::Db;

use super::memory::MemoryStore;
use super::sled::{SledStore, interrupt_running, open_tree, unreadable};
use super::{Store, StoreError};
use crate::chat::{At, ConversationId, TurnId};

const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Time to wait for a lock: a store that was just dropped closes its tree in the background.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

const LOCK_RETRY: Duration = Duration::from_millis(20);

const FOLDER: &str = "store";

/// The result of opening: a store that works, and what to report about it.
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// Sentences for the public status page.
    pub problems: Vec<String>,
    pub reopened: bool,
    /// Turns that an earlier process left running, now interrupted and waiting for a follow-up.
    pub interrupted: Vec<(ConversationId, TurnId)>,
    /// The same store if it is on disk. Only then can it be replicated.
    pub(super) sled: Option<Arc<SledStore>>,
}

impl Opened {
    fn in_memory(mut problems: Vec<String>, why: &str) -> Self {
        tracing::error!(why, "store unusable: keeping conversations in memory only");
        problems.push(format!(
            "Conversations are kept in memory only and end with a restart: {why}."
        ));
        Self {
            store: Arc::new(MemoryStore::default()),
            problems,
            reopened: false,
            interrupted: Vec::new(),
            sled: None,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    /// Another process holds it, or this one has not closed it yet.
    Locked,
    /// Its contents are not valid sled data.
    Damaged,
    /// An I/O error. The data on the disk may be intact.
    Disk(io::ErrorKind),
    /// It did not open within the limit. The data on the disk may be intact.
    Late,
}

struct Found {
    db: Db,
    reopened: bool,
    interrupted: Vec<(ConversationId, TurnId)>,
    unreadable: usize,
}

/// Opens the store of a data folder, creating the folder if needed. Blocks for up to half a minute.
///
/// `now` goes into the name of a damaged tree that is set aside.
///
/// # Errors
/// `Locked` if another process uses the folder. There is no other error.
pub fn open(data_dir: &Path, now: At) -> Result<Opened, StoreError> {
    let mut problems = Vec::new();
    let lock = match lock(data_dir) {
        Ok(lock) => lock,
        Err(Refusal::Locked) => return Err(StoreError::Locked),
        Err(_) => {
            return Ok(Opened::in_memory(
                problems,
                "the data folder cannot be written",
            ));
        }
    };
    let folder = data_dir.join(FOLDER);
    let mut opened = patiently(|| guarded(&folder, OPEN_LIMIT, first));
    if matches!(opened, Err(Refusal::Damaged)) {
        tracing::error!("store damaged: set aside, starting with a new one");
        let aside = data_dir.join(format!("{FOLDER}.damaged-{}", now.0));
        if std::fs::rename(&folder, aside).is_err() {
            return Ok(Opened::in_memory(
                problems,
                "the saved conversations are damaged and cannot be set aside",
            ));
        }
        problems.push(
            "The saved conversations were damaged. They were set aside and new ones are started."
                .into(),
        );
        opened = guarded(&folder, OPEN_LIMIT, first);
    }
    let why = match opened {
        Ok(found) => match SledStore::start(found.db, folder, lock) {
            Ok(store) => {
                let store = Arc::new(store);
                problems.extend(passed_over(found.unreadable));
                return Ok(Opened {
                    store: Arc::clone(&store) as _,
                    problems,
                    reopened: found.reopened,
                    interrupted: found.interrupted,
                    sled: Some(store),
                });
            }
            Err(_) => "the data folder cannot be used",
        },
        Err(Refusal::Locked) => return Err(StoreError::Locked),
        Err(Refusal::Damaged) => "a new store is damaged at once",
        Err(Refusal::Disk(io::ErrorKind::StorageFull)) => "the disk is full",
        Err(Refusal::Disk(_)) => "the data folder cannot be written",
        Err(Refusal::Late) => "the saved conversations do not open in time",
    };
    Ok(Opened::in_memory(problems, why))
}

/// Reopens a tree that this process had open before. Turns that are running stay so.
///
/// Returns `None` if it does not open.
pub(super) fn reopen(folder: &Path) -> Option<Db> {
    guarded(folder, OPEN_LIMIT, Ok).ok()
}

/// Interrupts the turns that an earlier process left running.
///
/// If their index cannot be read, the store counts as damaged.
fn first(db: Db) -> Result<Found, StoreError> {
    let interrupted = interrupt_running(&db)?;
    // A damaged page of cached answers must not cost the conversations.
    let unreadable = unreadable(&db).unwrap_or_default();
    Ok(Found {
        reopened: db.was_recovered(),
        interrupted,
        unreadable,
        db,
    })
}

fn passed_over(count: usize) -> Option<String> {
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
fn lock(data_dir: &Path) -> Result<File, Refusal> {
    let io_error = |error: io::Error| Refusal::Disk(error.kind());
    make_private(data_dir).map_err(io_error)?;
    let lock = File::options()
        .create(true)
        .append(true)
        .open(data_dir.join("lock"))
        .map_err(io_error)?;
    patiently(|| {
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Refusal::Locked,
            TryLockError::Error(error) => io_error(error),
        })
    })?;
    Ok(lock)
}

/// Creates a folder that only the service's own user can enter: conversations are private.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Retries for [`LOCK_TIMEOUT`] while the result is `Locked`.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match attempt() {
            Err(Refusal::Locked) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            result => return result,
        }
    }
}

/// Opens the tree on its own thread, so that the service survives if sled panics or hangs.
fn guarded<T: Send + 'static>(
    folder: &Path,
    limit: Duration,
    then: impl FnOnce(Db) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let folder = folder.to_owned();
    let (sender, receiver) = mpsc::sync_channel(1);
    let opening = move || {
        let result = catch_unwind(AssertUnwindSafe(|| attempt(&folder, then)));
        // After the timeout nobody receives, and the tree is dropped and thereby closed here.
        let _ = sender.send(result.unwrap_or(Err(Refusal::Damaged)));
    };
    let thread = std::thread::Builder::new()
        .name("store-open".into())
        .spawn(opening);
    thread.map_err(|error| Refusal::Disk(error.kind()))?;
    receiver.recv_timeout(limit).unwrap_or(Err(Refusal::Late))
}

fn attempt<T>(folder: &Path, then: impl FnOnce(Db) -> Result<T, StoreError>) -> Result<T, Refusal> {
    make_private(folder)
        .and_then(|()| remove_unfinished(folder))
        .map_err(|error| Refusal::Disk(error.kind()))?;
    let db = open_tree(folder).map_err(|error| refusal(&error))?;
    then(db).map_err(|error| match error {
        StoreError::Broken(_) => Refusal::Disk(io::ErrorKind::Other),
        _ => Refusal::Damaged,
    })
}

/// Removes unfinished snapshots of a killed process.
///
/// sled would take one for complete and report the store as corrupt.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn refusal(error: &sled::Error) -> Refusal {
    match error {
        // sled has no error kind for a held lock: it creates one of kind `Other`, which no system
        // call returns.
        sled::Error::Io(io) if io.kind() == io::ErrorKind::Other => Refusal::Locked,
        sled::Error::Io(io) => match io.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Refusal::Damaged,
            kind => Refusal::Disk(kind),
        },
        _ => Refusal::Damaged,
    }
}

#[cfg(test)]
mod tests;
