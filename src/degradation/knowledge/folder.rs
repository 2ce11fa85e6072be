//! Reads the knowledge folder, and reads it again when it has changed.
//!
//! An invalid file is reported and skipped. If the folder itself cannot be read, the passages of
//! the last scan remain. Blocks on the disk.

mod listing;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::Index;
use super::passages::{self, Passage};
use crate::settings::Problem;

pub use listing::Limits;
use listing::{Entry, Listing};

/// The knowledge folder and the result of its last scan.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    limits: Limits,
    seen: Seen,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Nothing,
    Lost(String),
    Files(Vec<Entry>),
}

/// The result of a scan that found a change.
#[derive(Debug)]
pub struct News {
    /// `None` if the folder cannot be read: the current index stays.
    pub index: Option<Arc<Index>>,
    /// All problems of the folder. Files are named relative to it.
    pub problems: Vec<Problem>,
}

impl Folder {
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            limits: Limits::default(),
            seen: Seen::Nothing,
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the next scan read all files, changed or not.
    pub fn forget(&mut self) {
        self.seen = Seen::Nothing;
    }

    /// Compares names, sizes, times and permissions with the last scan, and reads all files if any
    /// differs. `None` if nothing has changed.
    pub fn look(&mut self) -> Option<News> {
        match listing::list(&self.root, &self.limits) {
            Err(what) => {
                let lost = Seen::Lost(what.clone());
                let is_changed = self.seen != lost;
                self.seen = lost;
                is_changed.then(|| News {
                    index: None,
                    problems: vec![self.of_folder(what)],
                })
            }
            Ok(Listing { entries, problems }) => {
                if matches!(&self.seen, Seen::Files(seen) if *seen == entries) {
                    return None;
                }
                let change = self.read(&entries, problems);
                self.seen = Seen::Files(entries);
                Some(change)
            }
        }
    }

    fn read(&self, entries: &[Entry], problems: Vec<String>) -> News {
        let mut problems: Vec<_> = problems
            .into_iter()
            .map(|what| self.of_folder(what))
            .collect();
        let mut found_passages: Vec<Passage> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let file_problem = |what: String| Problem {
                file: entry.name.clone(),
                line: None,
                key: String::new(),
                what,
            };
            match text_of(entry, self.limits.file_bytes) {
                Err(what) => problems.push(file_problem(what)),
                Ok(text) if bytes + text.len() > self.limits.bytes => {
                    let what = format!("the folder holds more than {} bytes", self.limits.bytes);
                    problems.push(file_problem(what));
                }
                Ok(text) => {
                    bytes += text.len();
                    found_passages.extend(passages::cut(&entry.name, &text));
                }
            }
        }
        let max = self.limits.passages;
        if let Some(first) = found_passages.get(max) {
            let what = format!(
                "the folder holds more than {max} passages; those from {} on are left out",
                first.file
            );
            problems.push(self.of_folder(what));
            found_passages.truncate(max);
        }
        if found_passages.is_empty() {
            problems.push(self.of_folder("holds no text that could answer".to_owned()));
        }
        News {
            index: Some(Arc::new(Index::of(found_passages))),
            problems,
        }
    }

    fn of_folder(&self, what: String) -> Problem {
        let name = self.root.file_name().unwrap_or(self.root.as_os_str());
        Problem {
            file: listing::shown(name),
            line: None,
            key: String::new(),
            what,
        }
    }
}

fn text_of(entry: &Entry, limit: usize) -> Result<String, String> {
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
