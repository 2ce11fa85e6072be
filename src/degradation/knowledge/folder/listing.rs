//! Lists the documents of a folder with sizes and times, within limits. Opens no file.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, Metadata, Permissions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Limits on a knowledge folder. Whatever exceeds them is skipped and reported.
#[derive(Clone, Debug)]
pub struct FolderLimits {
    /// Documents, in the order of their names.
    pub max_files: usize,
    pub max_file_bytes: usize,
    /// Text of all documents together.
    pub max_total_bytes: usize,
    pub max_passages: usize,
    /// Directory entries of any kind that are visited.
    pub max_names: usize,
    /// Levels of nested folders.
    pub max_depth: usize,
}

impl Default for FolderLimits {
    fn default() -> Self {
        let mib = 1024 * 1024;
        Self {
            max_files: 2_000,
            max_file_bytes: mib,
            max_total_bytes: 16 * mib,
            max_passages: 20_000,
            max_names: 20_000,
            max_depth: 8,
        }
    }
}

/// A document and the metadata that is known without opening it.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    /// Relative to the folder, with `/` as separator and safe to display.
    pub(super) name: String,
    /// The resolved path, or the reason why the file is not read.
    pub(super) path: Result<PathBuf, String>,
    len: u64,
    modified: Option<SystemTime>,
    permissions: Option<Permissions>,
}

/// Lists the `.md` and `.txt` files of a folder and its subfolders in the order of their names, and
/// the problems of the folder as a whole. Names that begin with a dot are skipped.
///
/// # Errors
/// The reason why the folder cannot be read, without its path.
pub(super) fn list_documents(
    root: &Path,
    limits: &FolderLimits,
) -> Result<(Vec<Document>, Vec<String>), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let root = fs::canonicalize(root).map_err(unreadable)?;
    let mut walk = FolderWalk {
        root: &root,
        limits,
        names_seen: 0,
        documents: Vec::new(),
        problems: Vec::new(),
    };
    walk.visit_folder(&root, "", 0).map_err(unreadable)?;
    Ok((walk.documents, walk.problems))
}

struct FolderWalk<'a> {
    root: &'a Path,
    limits: &'a FolderLimits,
    names_seen: usize,
    documents: Vec<Document>,
    problems: Vec<String>,
}

impl FolderWalk<'_> {
    fn visit_folder(&mut self, path: &Path, within: &str, depth: usize) -> std::io::Result<()> {
        let remaining = self.limits.max_names.saturating_sub(self.names_seen);
        let mut children = fs::read_dir(path)?
            .take(remaining + 1)
            .collect::<Result<Vec<_>, _>>()?;
        if children.len() > remaining {
            self.add_problem(format!(
                "holds more than {} names; some were not looked at",
                self.limits.max_names
            ));
            children.truncate(remaining);
        }
        self.names_seen += children.len();
        children.sort_by_key(DirEntry::file_name);
        for child in children {
            let name = child.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let shown = format!("{within}{}", printable_name(&name));
            match child.file_type() {
                Ok(kind) if kind.is_dir() => self.visit_subfolder(&child.path(), &shown, depth + 1),
                _ if !is_document(&name) => {}
                Ok(kind) if kind.is_file() => {
                    self.add_document(shown, Ok(child.path()), child.metadata().ok())
                }
                Ok(kind) if kind.is_symlink() => self.add_link(shown, &child.path()),
                _ => self.add_document(shown, Err("not a regular file".to_owned()), None),
            }
        }
        Ok(())
    }

    fn visit_subfolder(&mut self, path: &Path, name: &str, depth: usize) {
        if depth > self.limits.max_depth {
            self.add_problem(format!(
                "holds folders that lie deeper than {}; they are left out",
                self.limits.max_depth
            ));
        } else if let Err(error) = self.visit_folder(path, &format!("{name}/"), depth) {
            self.add_problem(format!("{name} cannot be read: {error}"));
        }
    }

    /// Follows links to files within the folder (clusters mount files this way), never out of it
    /// and never to folders.
    fn add_link(&mut self, name: String, path: &Path) {
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
        self.add_document(name, path, metadata);
    }

    fn add_document(
        &mut self,
        name: String,
        path: Result<PathBuf, String>,
        metadata: Option<Metadata>,
    ) {
        if self.documents.len() == self.limits.max_files {
            self.add_problem(format!(
                "holds more than {} documents; the last by name are left out",
                self.limits.max_files
            ));
            return;
        }
        self.documents.push(Document {
            name,
            path,
            len: metadata.as_ref().map_or(0, Metadata::len),
            modified: metadata.as_ref().and_then(|known| known.modified().ok()),
            permissions: metadata.map(|known| known.permissions()),
        });
    }

    fn add_problem(&mut self, what: String) {
        if !self.problems.contains(&what) {
            self.problems.push(what);
        }
    }
}

fn is_document(name: &OsStr) -> bool {
    let extension = Path::new(name).extension();
    ["md", "txt"]
        .iter()
        .any(|known| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(known)))
}

/// Replaces control characters, so that a name is safe in the log, the status and answers.
pub(super) fn printable_name(name: &OsStr) -> String {
    name.to_string_lossy().replace(char::is_control, "\u{fffd}")
}
