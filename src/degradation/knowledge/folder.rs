//! Reads the knowledge folder, and reads it again when it has changed.
//!
//! An invalid file is reported and skipped. If the folder itself cannot be read, the passages of
//! the last scan remain. Blocks on the disk.

mod listing;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::PassageIndex;
use super::passages::{self, Passage};
use crate::config::Problem;

pub use listing::FolderLimits;
use listing::{Document, FolderListing};

/// The knowledge folder and the result of its last scan.
#[derive(Debug)]
pub struct KnowledgeFolder {
    root: PathBuf,
    limits: FolderLimits,
    last_scan: ScanState,
}

#[derive(Debug, PartialEq)]
enum ScanState {
    NotScanned,
    Unreadable(String),
    Files(Vec<Document>),
}

/// The result of a scan that found a change.
#[derive(Debug)]
pub struct FolderChange {
    /// `None` if the folder cannot be read: the current index stays.
    pub index: Option<Arc<PassageIndex>>,
    /// All problems of the folder. Files are named relative to it.
    pub problems: Vec<Problem>,
}

impl KnowledgeFolder {
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            limits: FolderLimits::default(),
            last_scan: ScanState::NotScanned,
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the next scan read all files, changed or not.
    pub fn force_rescan(&mut self) {
        self.last_scan = ScanState::NotScanned;
    }

    /// Compares names, sizes, times and permissions with the last scan, and reads all files if any
    /// differs. `None` if nothing has changed.
    pub fn scan(&mut self) -> Option<FolderChange> {
        match listing::list_documents(&self.root, &self.limits) {
            Err(what) => {
                let lost = ScanState::Unreadable(what.clone());
                let is_changed = self.last_scan != lost;
                self.last_scan = lost;
                is_changed.then(|| FolderChange {
                    index: None,
                    problems: vec![self.folder_problem(what)],
                })
            }
            Ok(FolderListing {
                documents: entries,
                problems,
            }) => {
                if matches!(&self.last_scan, ScanState::Files(seen) if *seen == entries) {
                    return None;
                }
                let change = self.read_documents(&entries, problems);
                self.last_scan = ScanState::Files(entries);
                Some(change)
            }
        }
    }

    fn read_documents(&self, entries: &[Document], problems: Vec<String>) -> FolderChange {
        let mut problems: Vec<_> = problems
            .into_iter()
            .map(|what| self.folder_problem(what))
            .collect();
        let mut found_passages: Vec<Passage> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let file_problem = |what: String| Problem {
                file: entry.name.clone(),
                line: None,
                key: String::new(),
                message: what,
            };
            match read_document(entry, self.limits.max_file_bytes) {
                Err(what) => problems.push(file_problem(what)),
                Ok(text) if bytes + text.len() > self.limits.max_total_bytes => {
                    let what = format!(
                        "the folder holds more than {} bytes",
                        self.limits.max_total_bytes
                    );
                    problems.push(file_problem(what));
                }
                Ok(text) => {
                    bytes += text.len();
                    found_passages.extend(passages::split_passages(&entry.name, &text));
                }
            }
        }
        let max = self.limits.max_passages;
        if let Some(first) = found_passages.get(max) {
            let what = format!(
                "the folder holds more than {max} passages; those from {} on are left out",
                first.file
            );
            problems.push(self.folder_problem(what));
            found_passages.truncate(max);
        }
        if found_passages.is_empty() {
            problems.push(self.folder_problem("holds no text that could answer".to_owned()));
        }
        FolderChange {
            index: Some(Arc::new(PassageIndex::build(found_passages))),
            problems,
        }
    }

    fn folder_problem(&self, what: String) -> Problem {
        let name = self.root.file_name().unwrap_or(self.root.as_os_str());
        Problem {
            file: listing::printable_name(name),
            line: None,
            key: String::new(),
            message: what,
        }
    }
}

fn read_document(entry: &Document, limit: usize) -> Result<String, String> {
    let path = entry.path.as_ref().map_err(Clone::clone)?;
    let unreadable = |error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too large.
    let read_limit = u64::try_from(limit).map_or(u64::MAX, |bytes| bytes + 1);
    File::open(path)
        .and_then(|file| file.take(read_limit).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() > limit {
        return Err(format!("larger than {limit} bytes"));
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("not UTF-8 text".to_owned()),
    }
}

#[cfg(test)]
mod tests;
