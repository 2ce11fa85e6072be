//! Reads the knowledge folder, and reads it again when something in it has changed.
//!
//! A file that will not do is named and left out, and nothing else is. A folder that cannot be read changes nothing: what was read before
//! goes on answering. Blocks on the disk.

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

/// The knowledge folder, as it was when it was last looked at.
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

/// What came of a look at the folder in which something had changed.
#[derive(Debug)]
pub struct News {
    /// What answers from now on; none: what did before.
    pub index: Option<Arc<Index>>,
    /// All that is wrong with the folder. They name files as they are called within it.
    pub problems: Vec<Problem>,
}

impl Folder {
    /// A folder that was not looked at yet.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            limits: Limits::default(),
            seen: Seen::Nothing,
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Has the next look read everything, changed or not.
    pub fn forget(&mut self) {
        self.seen = Seen::Nothing;
    }

    /// Compares names, sizes, times and rights with what was there; reads all files where anything differs, else gives nothing.
    pub fn look(&mut self) -> Option<News> {
        match listing::list(&self.root, &self.limits) {
            Err(what) => {
                let lost = Seen::Lost(what.clone());
                let news = self.seen != lost;
                self.seen = lost;
                news.then(|| News {
                    index: None,
                    problems: vec![self.of_folder(what)],
                })
            }
            Ok(Listing { entries, problems }) => {
                if matches!(&self.seen, Seen::Files(seen) if *seen == entries) {
                    return None;
                }
                let news = self.read(&entries, problems);
                self.seen = Seen::Files(entries);
                Some(news)
            }
        }
    }

    fn read(&self, entries: &[Entry], problems: Vec<String>) -> News {
        let mut problems: Vec<_> = problems
            .into_iter()
            .map(|what| self.of_folder(what))
            .collect();
        let mut found: Vec<Passage> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let wrong = |what: String| Problem {
                file: entry.name.clone(),
                line: None,
                key: String::new(),
                what,
            };
            match text_of(entry, self.limits.file_bytes) {
                Err(what) => problems.push(wrong(what)),
                Ok(text) if bytes + text.len() > self.limits.bytes => {
                    let what = format!("the folder holds more than {} bytes", self.limits.bytes);
                    problems.push(wrong(what));
                }
                Ok(text) => {
                    bytes += text.len();
                    found.extend(passages::cut(&entry.name, &text));
                }
            }
        }
        let most = self.limits.passages;
        if let Some(first) = found.get(most) {
            let what = format!(
                "the folder holds more than {most} passages; those from {} on are left out",
                first.file
            );
            problems.push(self.of_folder(what));
            found.truncate(most);
        }
        if found.is_empty() {
            problems.push(self.of_folder("holds no text that could answer".to_owned()));
        }
        News {
            index: Some(Arc::new(Index::of(found))),
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
    let most = u64::try_from(limit).map_or(u64::MAX, |bytes| bytes + 1);
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
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
