//! The operator's rules as the settings name them, and the reading of their file.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::ladder::Ladder;
use super::replies::{Problem, Replies};

/// The largest replies file, in bytes.
const FILE_BYTES: usize = 1024 * 1024;

/// What the ladder is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The replies file; none for the built-in replies.
    pub replies: Option<PathBuf>,
    /// The fixed text, where the replies file has none of its own; blank for [`super::ladder::FALLBACK`].
    pub fallback: String,
}

impl Rules {
    /// Builds the ladder. Blocks while it reads the file.
    ///
    /// # Errors
    ///
    /// Every problem of the file, which must be a regular one of at most 1 MiB. They call it by its name, without its folder,
    /// since they are shown to more than the operator.
    pub fn read(&self) -> Result<Ladder, Vec<Problem>> {
        let replies = match &self.replies {
            None => Replies::built_in(),
            Some(path) => {
                let text = text_of(path).map_err(|what| vec![self.problem(what)])?;
                Replies::parse(&self.file_name(), &text)?
            }
        };
        Ok(Ladder::new(replies, &self.fallback))
    }

    /// A problem of the file as a whole.
    pub(super) fn problem(&self, what: String) -> Problem {
        Problem { file: self.file_name().into(), line: None, what }
    }

    fn file_name(&self) -> String {
        let name = self.replies.as_deref().and_then(Path::file_name);
        name.map_or_else(|| "replies".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // Asked before it is opened: to open a pipe is to wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES).map_or(u64::MAX, |bytes| bytes + 1);
    let file = File::open(path).map_err(unreadable)?;
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_BYTES {
        return Err(format!("is larger than {FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problem(path: &Path) -> String {
        let rules = Rules { replies: Some(path.to_owned()), ..Rules::default() };
        let problems = rules.read().unwrap_err();
        problems.first().unwrap().to_string()
    }

    #[test]
    fn a_file_that_will_not_do_is_named_without_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        assert!(problem(&file).starts_with("mine.toml: cannot be read: "), "{}", problem(&file));
        fs::write(&file, "fallback = 1").unwrap();
        assert!(problem(&file).starts_with("mine.toml:1: `fallback`"));
        fs::write(&file, b"# \xff").unwrap();
        assert_eq!(problem(&file), "mine.toml: is not UTF-8 text");
        fs::write(&file, "#".repeat(FILE_BYTES + 1)).unwrap();
        assert_eq!(problem(&file), "mine.toml: is larger than 1048576 bytes");
        let name = folder.path().file_name().unwrap().to_string_lossy();
        assert_eq!(problem(folder.path()), format!("{name}: is not a regular file"));
    }

    #[test]
    fn a_file_as_large_as_allowed_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "#".repeat(FILE_BYTES)).unwrap();
        let rules = Rules { replies: Some(file.path().to_owned()), fallback: "Later.".to_owned() };
        assert_eq!(&*rules.read().unwrap().answer("x").text, "Later.");
    }
}
