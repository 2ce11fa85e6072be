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
use super::passages::{Passage, split_passages};
use crate::config::Problem;

use listing::Document;
pub use listing::FolderLimits;

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
        let listing = listing::list_documents(&self.root, &self.limits);
        let (state, problems) = match listing {
            Err(what) => (ScanState::Unreadable(what.clone()), vec![what]),
            Ok((documents, problems)) => (ScanState::Files(documents), problems),
        };
        if self.last_scan == state {
            return None;
        }
        self.last_scan = state;
        let mut problems = problems
            .into_iter()
            .map(|what| self.folder_problem(what))
            .collect();
        let index = match &self.last_scan {
            ScanState::Files(documents) => Some(self.read_documents(documents, &mut problems)),
            _ => None,
        };
        Some(FolderChange { index, problems })
    }

    fn read_documents(
        &self,
        documents: &[Document],
        problems: &mut Vec<Problem>,
    ) -> Arc<PassageIndex> {
        let limits = &self.limits;
        let mut passages: Vec<Passage> = Vec::new();
        let mut bytes = 0;
        for document in documents {
            let read = read_document(document, limits.max_file_bytes).and_then(|text| {
                if bytes + text.len() > limits.max_total_bytes {
                    let max = limits.max_total_bytes;
                    return Err(format!("the folder holds more than {max} bytes"));
                }
                Ok(text)
            });
            match read {
                Err(what) => problems.push(file_problem(document.name.clone(), what)),
                Ok(text) => {
                    bytes += text.len();
                    passages.extend(split_passages(&document.name, &text));
                }
            }
        }
        let max = limits.max_passages;
        if let Some(first) = passages.get(max) {
            let what = format!(
                "the folder holds more than {max} passages; those from {} on are left out",
                first.file
            );
            problems.push(self.folder_problem(what));
            passages.truncate(max);
        }
        if passages.is_empty() {
            problems.push(self.folder_problem("holds no text that could answer".to_owned()));
        }
        Arc::new(PassageIndex::build(passages))
    }

    fn folder_problem(&self, what: String) -> Problem {
        let name = self.root.file_name().unwrap_or(self.root.as_os_str());
        file_problem(listing::printable_name(name), what)
    }
}

/// A problem of a file as a whole.
pub(in crate::degradation) fn file_problem(file: String, message: String) -> Problem {
    Problem {
        file,
        line: None,
        key: String::new(),
        message,
    }
}

fn read_document(document: &Document, max_bytes: usize) -> Result<String, String> {
    let text = read_text_file(document.path.as_ref().map_err(Clone::clone)?, max_bytes)?;
    if text.contains('\0') {
        return Err("not UTF-8 text".to_owned());
    }
    Ok(text)
}

/// Reads a text of at most so many bytes. The error names no path.
pub(in crate::degradation) fn read_text_file(
    path: &Path,
    max_bytes: usize,
) -> Result<String, String> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too large.
    let limit = u64::try_from(max_bytes).map_or(u64::MAX, |bytes| bytes + 1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > max_bytes {
        return Err(format!("larger than {max_bytes} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
