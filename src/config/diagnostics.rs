//! Problems in a configuration: the place, the key and what would be valid. [`Diagnostics`] collects
//! them while a document is read.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the configuration file as given, or `environment`.
    pub file: String,
    /// Counted from 1. `None` if the problem concerns the whole file or the environment.
    pub line: Option<usize>,
    /// The dotted key, such as `providers[0].breaker.open_for`. Empty if no key is concerned.
    pub key: String,
    /// What is wrong and what would be valid. Never contains a secret.
    pub message: String,
}

impl Problem {
    pub(super) fn new(
        file: &str,
        line: Option<usize>,
        key: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line,
            key: key.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All errors of a configuration, in the order of the file. Displayed one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", join_lines(.0))]
pub struct ConfigErrors(pub Vec<Problem>);

fn join_lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Joins names as in `a, b or c`.
pub(super) fn join_with_or(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => (*name).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Quotes and escapes a value for a message, on one line and truncated.
pub(super) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    if text.chars().count() > MAX_CHARS {
        let start: String = text.chars().take(MAX_CHARS).collect();
        return format!("{start:?}…");
    }
    format!("{text:?}")
}

/// The name most similar to `typed`, if any is similar enough to suggest.
pub(super) fn nearest<'n>(typed: &str, names: &[&'n str]) -> Option<&'n str> {
    /// Longer texts resemble no name.
    const MAX_BYTES: usize = 256;
    if typed.len() > MAX_BYTES {
        return None;
    }
    let max_distance = (typed.chars().count() / 3).clamp(1, 3);
    let distances = names
        .iter()
        .map(|name| (strsim::levenshtein(typed, name), *name));
    let (_, name) = distances
        .filter(|(distance, _)| *distance <= max_distance)
        .min()?;
    Some(name)
}

pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

pub(super) struct Diagnostics<'e> {
    file: String,
    pub(super) env: Environment<'e>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// The lines of the keys that were read, by dotted key with indices of arrays.
    pub(super) key_lines: BTreeMap<String, usize>,
    line_starts: Vec<usize>,
}

impl<'e> Diagnostics<'e> {
    pub(super) fn new(file: &str, text: &str, env: Environment<'e>) -> Self {
        let line_ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            env,
            problems: Vec::new(),
            warnings: Vec::new(),
            key_lines: BTreeMap::new(),
            line_starts: std::iter::once(0).chain(line_ends).collect(),
        }
    }

    /// The line of a byte offset, counted from 1.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The column of a byte offset in its line, in bytes from 1.
    pub(super) fn column_at(&self, offset: usize) -> usize {
        let line = self.line_at(offset);
        let start = self.line_starts.get(line - 1).copied().unwrap_or_default();
        offset - start + 1
    }

    /// The line of a dotted key. `None` if the file does not contain it.
    pub(super) fn line_of_key(&self, key: &str) -> Option<usize> {
        self.key_lines.get(key).copied()
    }

    pub(super) fn add_problem(&mut self, line: Option<usize>, key: &str, what: impl Into<String>) {
        self.problems
            .push(Problem::new(&self.file, line, key, what));
    }

    pub(super) fn add_warning(&mut self, line: Option<usize>, key: &str, what: impl Into<String>) {
        self.warnings
            .push(Problem::new(&self.file, line, key, what));
    }

    /// Adds a warning about a dotted key that the file contains.
    pub(super) fn warn_about(&mut self, key: &str, what: impl Into<String>) {
        self.add_warning(self.line_of_key(key), key, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_omits_missing_parts() {
        let mut problem = Problem {
            file: "failsoft.toml".to_owned(),
            line: Some(12),
            key: "server.drain".to_owned(),
            message: "wrong".to_owned(),
        };
        assert_eq!(problem.to_string(), "failsoft.toml:12: server.drain: wrong");
        problem.key.clear();
        assert_eq!(problem.to_string(), "failsoft.toml:12: wrong");
        problem.line = None;
        assert_eq!(problem.to_string(), "failsoft.toml: wrong");
        assert_eq!(
            ConfigErrors(vec![problem.clone(), problem]).to_string(),
            "failsoft.toml: wrong\nfailsoft.toml: wrong"
        );
    }

    #[test]
    fn nearest_suggests_only_similar_names() {
        let names = ["listen", "drain", "data_dir", "open_for", "open_max"];
        for (typed, expected) in [
            ("listn", Some("listen")),
            ("Drain", Some("drain")),
            ("datadir", Some("data_dir")),
            ("open-for", Some("open_for")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &names), expected, "{typed}");
        }
    }

    #[test]
    fn names_are_joined_with_or() {
        assert_eq!(join_with_or(&["a", "b", "c"]), "a, b or c");
        assert_eq!(join_with_or(&["a"]), "a");
        assert_eq!(join_with_or(&[]), "");
    }

    #[test]
    fn long_values_are_truncated() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert!(quoted(&"x".repeat(1000)).chars().count() < 70);
    }
}
