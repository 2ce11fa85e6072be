//! What lies in a folder: names, sizes, times, within limits. Opens no file.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata, Permissions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How much of a folder is read. What is beyond is left out, and said.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most files, in the order of their names.
    pub files: usize,
    /// The largest file, in bytes.
    pub file_bytes: usize,
    /// The most text in all, in bytes.
    pub bytes: usize,
    /// The most passages.
    pub passages: usize,
    /// The most names that are looked at, of whatever kind.
    pub names: usize,
    /// How deep folders may lie within each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let mib = 1024 * 1024;
        Self {
            files: 2_000,
            file_bytes: mib,
            bytes: 16 * mib,
            passages: 20_000,
            names: 20_000,
            depth: 8,
        }
    }
}

/// A document, by what can be known without opening it.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// Relative to the folder, with `/`, fit to be shown.
    pub(super) name: String,
    /// Where it really is, or why it is not read.
    pub(super) path: Result<PathBuf, String>,
    len: u64,
    modified: Option<SystemTime>,
    rights: Option<Permissions>,
}

#[derive(Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// What is wrong with the folder as a whole.
    pub(super) problems: Vec<String>,
}

/// Lists the `.md` and `.txt` files of a folder and of those within it, in the order of their names; not what begins with a dot.
///
/// # Errors
/// The folder cannot be read, in words without its path.
pub(super) fn list(root: &Path, limits: &Limits) -> Result<Listing, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let root = fs::canonicalize(root).map_err(unreadable)?;
    let mut walk = Walk {
        root: &root,
        limits,
        names: 0,
        found: Listing::default(),
    };
    walk.folder(&root, "", 0).map_err(unreadable)?;
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    limits: &'a Limits,
    names: usize,
    found: Listing,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, within: &str, depth: usize) -> std::io::Result<()> {
        let room = self.limits.names.saturating_sub(self.names);
        let mut inside = fs::read_dir(path)?
            .take(room + 1)
            .collect::<Result<Vec<_>, _>>()?;
        if inside.len() > room {
            self.say(format!(
                "holds more than {} names; some were not looked at",
                self.limits.names
            ));
            inside.truncate(room);
        }
        self.names += inside.len();
        inside.sort_by_key(DirEntry::file_name);
        for entry in inside {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let shown = format!("{within}{}", shown(&name));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.folder_within(&entry.path(), &shown, depth + 1),
                _ if !is_document(&name) => {}
                Ok(kind) if kind.is_file() => {
                    self.add(shown, Ok(entry.path()), entry.metadata().ok())
                }
                Ok(kind) if kind.is_symlink() => self.link(shown, &entry.path()),
                _ => self.add(shown, Err("not a regular file".to_owned()), None),
            }
        }
        Ok(())
    }

    fn folder_within(&mut self, path: &Path, name: &str, depth: usize) {
        if depth > self.limits.depth {
            self.say(format!(
                "holds folders that lie deeper than {}; they are left out",
                self.limits.depth
            ));
        } else if let Err(error) = self.folder(path, &format!("{name}/"), depth) {
            self.say(format!("{name} cannot be read: {error}"));
        }
    }

    /// Links are followed within the folder (as clusters mount their files), never out of it, and never to folders.
    fn link(&mut self, name: String, path: &Path) {
        let (path, metadata) = match fs::canonicalize(path) {
            Err(error) => (Err(format!("cannot be read: {error}")), None),
            Ok(target) if !target.starts_with(self.root) => {
                (Err("a link that leads out of the folder".to_owned()), None)
            }
            Ok(target) => match fs::metadata(&target) {
                Ok(metadata) if metadata.is_file() => (Ok(target), Some(metadata)),
                _ => (Err("not a regular file".to_owned()), None),
            },
        };
        self.add(name, path, metadata);
    }

    fn add(&mut self, name: String, path: Result<PathBuf, String>, metadata: Option<Metadata>) {
        if self.found.entries.len() == self.limits.files {
            self.say(format!(
                "holds more than {} documents; the last by name are left out",
                self.limits.files
            ));
            return;
        }
        self.found.entries.push(Entry {
            name,
            path,
            len: metadata.as_ref().map_or(0, Metadata::len),
            modified: metadata
                .as_ref()
                .and_then(|metadata| metadata.modified().ok()),
            rights: metadata.map(|metadata| metadata.permissions()),
        });
    }

    fn say(&mut self, what: String) {
        if !self.found.problems.contains(&what) {
            self.found.problems.push(what);
        }
    }
}

fn is_document(name: &OsStr) -> bool {
    let ending = Path::new(name).extension();
    ending.is_some_and(|ending| {
        ending.eq_ignore_ascii_case("md") || ending.eq_ignore_ascii_case("txt")
    })
}

/// A name as it may be shown: in the log, the status, an answer.
pub(super) fn shown(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    name.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}
