//! Lists the documents of a folder with sizes and times, within limits. Opens no file.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata, Permissions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Limits on a knowledge folder. Whatever exceeds them is skipped and reported.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Documents, in the order of their names.
    pub files: usize,
    pub file_bytes: usize,
    /// Text of all documents together.
    pub bytes: usize,
    pub passages: usize,
    /// Directory entries of any kind that are visited.
    pub names: usize,
    /// Levels of nested folders.
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

/// A document and the metadata that is known without opening it.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// Relative to the folder, with `/` as separator and safe to display.
    pub(super) name: String,
    /// The resolved path, or the reason why the file is not read.
    pub(super) path: Result<PathBuf, String>,
    len: u64,
    modified: Option<SystemTime>,
    rights: Option<Permissions>,
}

#[derive(Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Problems of the folder as a whole.
    pub(super) problems: Vec<String>,
}

/// Lists the `.md` and `.txt` files of a folder and its subfolders in the order of their names.
/// Names that begin with a dot are skipped.
///
/// # Errors
/// The reason why the folder cannot be read, without its path.
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
        let remaining = self.limits.names.saturating_sub(self.names);
        let mut children = fs::read_dir(path)?
            .take(remaining + 1)
            .collect::<Result<Vec<_>, _>>()?;
        if children.len() > remaining {
            self.say(format!(
                "holds more than {} names; some were not looked at",
                self.limits.names
            ));
            children.truncate(remaining);
        }
        self.names += children.len();
        children.sort_by_key(DirEntry::file_name);
        for child in children {
            let name = child.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let shown = format!("{within}{}", shown(&name));
            match child.file_type() {
                Ok(kind) if kind.is_dir() => self.folder_within(&child.path(), &shown, depth + 1),
                _ if !is_document(&name) => {}
                Ok(kind) if kind.is_file() => {
                    self.add(shown, Ok(child.path()), child.metadata().ok())
                }
                Ok(kind) if kind.is_symlink() => self.link(shown, &child.path()),
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

    /// Follows links to files within the folder (clusters mount files this way), never out of it
    /// and never to folders.
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
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| {
        extension.eq_ignore_ascii_case("md") || extension.eq_ignore_ascii_case("txt")
    })
}

/// Replaces control characters, so that a name is safe in the log, the status and answers.
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
