//! Opening the store at the start, whatever state the disk is in: in bounded time, never with a panic, always with something that works.
//!
//! What is damaged is set aside, not removed. What cannot be used at all is replaced by memory. Only one thing is refused: a folder that
//! another process uses.

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

/// The longest that sled may take to open.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// How long a lock is waited for: a store that was just dropped closes its tree on a thread of its own.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The folder of the tree within the data folder.
const FOLDER: &str = "store";

/// A store that works, and what is to be said of it.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What went wrong, in sentences for the public status.
    pub problems: Vec<String>,
    /// Whether what an earlier process wrote is there.
    pub reopened: bool,
    /// Turns under which an earlier process went down, now interrupted; they wait for a late answer.
    pub interrupted: Vec<(ConversationId, TurnId)>,
    /// The store where it is on disk: only that can be shared.
    pub(super) sled: Option<Arc<SledStore>>,
}

impl Opened {
    fn in_memory(mut problems: Vec<String>, why: &str) -> Self {
        tracing::error!(why, "store not usable; conversations are kept in memory");
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

/// Why a tree did not open.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// Another process has it, or this one still.
    Locked,
    /// Its contents are not what sled wrote.
    Damaged,
    /// The disk refuses; what is on it may be good.
    Disk(io::ErrorKind),
    /// It did not open within the limit; what is on it may be good.
    Late,
}

/// What a tree has to tell when it opens.
struct Found {
    db: Db,
    reopened: bool,
    interrupted: Vec<(ConversationId, TurnId)>,
    /// Saved answers that this version does not read.
    unreadable: usize,
}

/// Opens the store of a data folder, making the folder where there is none. Blocks, at most about half a minute.
///
/// `now` names what is set aside.
///
/// # Errors
/// `Locked` where another process uses the folder; nothing else.
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
    if opened
        .as_ref()
        .is_err_and(|refusal| *refusal == Refusal::Damaged)
    {
        tracing::error!("store damaged; set aside, a new one is begun");
        let aside = data_dir.join(format!("{FOLDER}.damaged-{}", now.0));
        if std::fs::rename(&folder, aside).is_err() {
            return Ok(Opened::in_memory(
                problems,
                "the saved ones are damaged and cannot be set aside",
            ));
        }
        problems.push(
            "The saved conversations were damaged. They were set aside and new ones are begun."
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
        Err(Refusal::Late) => "the saved ones do not open in time",
    };
    Ok(Opened::in_memory(problems, why))
}

/// Opens a tree again that this process had open; turns that run go on running. None where it does not open.
pub(super) fn reopen(folder: &Path) -> Option<Db> {
    guarded(folder, OPEN_LIMIT, Ok).ok()
}

/// Ends the turns that an earlier process left running. Where their index cannot be read, the store counts as damaged.
fn first(db: Db) -> Result<Found, StoreError> {
    let interrupted = interrupt_running(&db)?;
    // A page of theirs that is damaged costs saved answers, not the conversations.
    let unreadable = unreadable(&db).unwrap_or_default();
    Ok(Found {
        reopened: db.was_recovered(),
        interrupted,
        unreadable,
        db,
    })
}

/// What is to be said of so many saved answers that do not read.
fn passed_over(count: usize) -> Option<String> {
    if count == 0 {
        return None;
    }
    tracing::warn!(
        count,
        "saved answers that this version does not read are passed over"
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

/// Makes the data folder and takes its lock. The lock is our own, so that it also covers setting a damaged tree aside.
fn lock(data_dir: &Path) -> Result<File, Refusal> {
    let disk = |error: io::Error| Refusal::Disk(error.kind());
    make_private(data_dir).map_err(disk)?;
    let lock = File::options()
        .create(true)
        .append(true)
        .open(data_dir.join("lock"))
        .map_err(disk)?;
    patiently(|| {
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Refusal::Locked,
            TryLockError::Error(error) => disk(error),
        })
    })?;
    Ok(lock)
}

/// Makes a folder that only the service's own user may enter: conversations are private.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut how = std::fs::DirBuilder::new();
    how.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut how, 0o700);
    how.create(folder)
}

/// Tries again while it is locked, for a little while.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match attempt() {
            Err(Refusal::Locked) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
            result => return result,
        }
    }
}

/// Opens the tree on a thread of its own, so that neither a panic of sled nor one that never comes back takes the service along.
fn guarded<T: Send + 'static>(
    folder: &Path,
    limit: Duration,
    then: impl FnOnce(Db) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let folder = folder.to_owned();
    let (tell, told) = mpsc::sync_channel(1);
    let opening = move || {
        let result = catch_unwind(AssertUnwindSafe(|| attempt(&folder, then)));
        // Too late, nobody listens: the tree is closed again here.
        let _ = tell.send(result.unwrap_or(Err(Refusal::Damaged)));
    };
    let thread = std::thread::Builder::new()
        .name("store-open".into())
        .spawn(opening);
    thread.map_err(|error| Refusal::Disk(error.kind()))?;
    told.recv_timeout(limit).unwrap_or(Err(Refusal::Late))
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

/// Removes snapshots that sled was writing when its process ended: it would take one for whole, and call the store corrupt.
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
        // sled has no error of its own for this: it words one, of the kind that no system call gives.
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
