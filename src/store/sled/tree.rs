//! Opening of the tree on disk in bounded time and without a panic, and its single records.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::{Db, Error};

use crate::store::StoreError;
use crate::store::codec::{decode, encode};

/// The result of an access to the tree.
pub(super) type Result<T = ()> = std::result::Result<T, StoreError>;

pub(in crate::store) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// sled's page cache, in bytes. sled's default is 1 GiB, but the system's page cache holds the file
/// anyway, and the process should stay small.
const PAGE_CACHE_BYTES: u64 = 8 << 20;

/// Interval at which sled flushes writes that nobody waits for. Together with the interval between
/// two checkpoints of a turn, it stays under the half second that a crash may cost.
const FLUSH_INTERVAL_MS: u64 = 100;

pub(in crate::store) type OpenResult<T> = std::result::Result<T, OpenError>;

#[derive(Debug, PartialEq)]
pub(in crate::store) enum OpenError {
    /// Another process holds it, or this one has not closed it yet.
    Locked,
    /// Its contents are not valid sled data.
    Damaged,
    /// An I/O error. The data on the disk may be intact.
    Io(io::ErrorKind),
    /// It did not open within the limit. The data on the disk may be intact.
    TimedOut,
}

/// Opens the tree in `folder`. Blocks without a time limit and panics if sled does;
/// [`open_on_thread`] guards against both.
pub(super) fn open_tree(folder: &Path) -> sled::Result<Db> {
    sled::Config::new()
        .path(folder)
        .cache_capacity(PAGE_CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_INTERVAL_MS))
        .open()
}

/// Opens the tree on its own thread, so that the service survives if sled panics or hangs.
pub(in crate::store) fn open_on_thread<T: Send + 'static>(
    folder: &Path,
    limit: Duration,
    then: impl FnOnce(Db) -> Result<T> + Send + 'static,
) -> OpenResult<T> {
    let folder = folder.to_owned();
    let (sender, receiver) = mpsc::sync_channel(1);
    let opening = move || {
        let result = catch_unwind(AssertUnwindSafe(|| try_open(&folder, then)));
        // After the timeout nobody receives, and the tree is dropped and thereby closed here.
        let _ = sender.send(result.unwrap_or(Err(OpenError::Damaged)));
    };
    thread::Builder::new()
        .name("store-open".into())
        .spawn(opening)?;
    receiver
        .recv_timeout(limit)
        .unwrap_or(Err(OpenError::TimedOut))
}

fn try_open<T>(folder: &Path, then: impl FnOnce(Db) -> Result<T>) -> OpenResult<T> {
    create_private_dir(folder)?;
    remove_partial_snapshots(folder)?;
    then(open_tree(folder)?).map_err(|error| match error {
        StoreError::Unavailable(_) => OpenError::Io(io::ErrorKind::Other),
        _ => OpenError::Damaged,
    })
}

/// Removes unfinished snapshots of a killed process.
///
/// sled would take one for complete and report the store as corrupt.
fn remove_partial_snapshots(folder: &Path) -> io::Result<()> {
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

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error.kind())
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(io) => match io.kind() {
                // sled has no error kind for a held lock: it creates one of kind `Other`, which no
                // system call returns.
                io::ErrorKind::Other => OpenError::Locked,
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => OpenError::Damaged,
                kind => OpenError::Io(kind),
            },
            _ => OpenError::Damaged,
        }
    }
}

/// Creates a folder that only the service's own user can enter: conversations are private.
pub(in crate::store) fn create_private_dir(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Maps an error of sled. Its message contains paths and is not passed on.
impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        match error {
            // sled keeps a large page in its own file, which may be missing or truncated.
            Error::Io(io) if !matches!(io.kind(), NotFound | InvalidData | UnexpectedEof) => {
                StoreError::Unavailable(format!("the disk refuses ({})", io.kind()))
            }
            _ => StoreError::Damaged("part of it cannot be read".into()),
        }
    }
}

/// Returns a decoded record. `None` also if it is unreadable.
pub(super) fn get<T: DeserializeOwned>(
    db: &Db,
    kind: &'static str,
    key: &str,
) -> Result<Option<T>> {
    Ok(db.get(key)?.and_then(|bytes| decode(kind, &bytes)))
}

pub(super) fn put(db: &Db, key: &str, value: &impl Serialize) -> Result {
    db.insert(key, encode(value)?)?;
    Ok(())
}

/// Writes an entry of an index, which is a key without a value.
pub(super) fn mark(db: &Db, key: &str) -> Result {
    db.insert(key, Vec::new())?;
    Ok(())
}

pub(super) fn remove(db: &Db, key: impl AsRef<[u8]>) -> Result {
    db.remove(key)?;
    Ok(())
}
