//! Loads the replies file that the settings name, within limits.

use std::fs;
use std::path::Path;

use crate::config::{ConfigErrors, DegradationSettings};

use super::fallback_chain::FallbackChain;
use super::knowledge::folder::{file_problem, read_text_file};
use super::replies::Replies;

const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Builds the chain that the settings describe. Blocks while it reads the replies file, if any.
///
/// # Errors
///
/// Every problem of the file, which must be a regular file of at most 1 MiB. They name the file
/// without its folder, because visitors of the status page may see them.
pub fn load_chain(settings: &DegradationSettings) -> Result<FallbackChain, ConfigErrors> {
    let replies = match &settings.replies {
        None => Replies::built_in(),
        Some(path) => {
            let text = read_text(path).map_err(|what| rules_problem(settings, what))?;
            Replies::parse(&file_name(path), &text)?
        }
    };
    Ok(FallbackChain::new(replies, &settings.fallback))
}

/// A problem of the replies file as a whole.
pub(super) fn rules_problem(settings: &DegradationSettings, what: String) -> ConfigErrors {
    let name = settings.replies.as_deref().map(file_name);
    ConfigErrors(vec![file_problem(name.unwrap_or_default(), what)])
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn read_text(path: &Path) -> Result<String, String> {
    // Checked before it is opened: opening a named pipe waits for its writer.
    let metadata = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    read_text_file(path, MAX_FILE_BYTES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rules_problem(path: &Path) -> String {
        let settings = DegradationSettings {
            replies: Some(path.to_owned()),
            ..DegradationSettings::default()
        };
        load_chain(&settings).unwrap_err().to_string()
    }

    #[test]
    fn invalid_file_is_reported_without_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        assert!(
            rules_problem(&file).starts_with("mine.toml: cannot be read: "),
            "{}",
            rules_problem(&file)
        );
        fs::write(&file, "fallback = 1").unwrap();
        assert!(
            rules_problem(&file).starts_with("mine.toml:1: fallback: "),
            "{}",
            rules_problem(&file)
        );
        fs::write(&file, b"# \xff").unwrap();
        assert_eq!(rules_problem(&file), "mine.toml: not UTF-8 text");
        fs::write(&file, "#".repeat(MAX_FILE_BYTES + 1)).unwrap();
        assert_eq!(rules_problem(&file), "mine.toml: larger than 1048576 bytes");
        let name = folder.path().file_name().unwrap().to_string_lossy();
        assert_eq!(
            rules_problem(folder.path()),
            format!("{name}: not a regular file")
        );
    }

    #[test]
    fn file_of_the_maximum_size_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "#".repeat(MAX_FILE_BYTES)).unwrap();
        let settings = DegradationSettings {
            replies: Some(file.path().to_owned()),
            ..DegradationSettings::default()
        };
        assert!(load_chain(&settings).is_ok());
    }
}
