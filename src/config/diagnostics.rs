//! Problems in a configuration: the place, the key and what would be valid.

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
    let max_distance = (typed.chars().count() / 3).clamp(1, 3);
    names
        .iter()
        .map(|name| (edit_distance(typed, name), *name))
        .filter(|(distance, _)| *distance <= max_distance)
        .min()
        .map(|(_, name)| name)
}

/// The Levenshtein distance, computed with two rows. Texts over 64 characters count as unrelated.
fn edit_distance(a: &str, b: &str) -> usize {
    const MAX_CHARS: usize = 64;
    let b: Vec<char> = b.chars().collect();
    if b.len() > MAX_CHARS || a.chars().count() > MAX_CHARS {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((to, above), corner) in b.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push(
                (corner + usize::from(from != *to))
                    .min(above + 1)
                    .min(left + 1),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
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
