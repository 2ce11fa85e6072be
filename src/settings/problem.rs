//! What is wrong with a configuration, said so that it can be put right: where, which key, and what would be right.

use std::fmt;

/// One thing wrong, or (as a warning) one thing worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file as it was named, or `environment`.
    pub file: String,
    /// The line, counted from 1; none when the file as a whole or the environment is meant.
    pub line: Option<usize>,
    /// The dotted key, `providers[0].breaker.open_for`; empty when no key is meant.
    pub key: String,
    /// What is wrong and what would be right. Never holds a secret.
    pub what: String,
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
        write!(f, ": {}", self.what)
    }
}

/// All that is wrong with a configuration, in the order of the file; one a line when displayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Problems(pub Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// `a, b or c`.
pub(super) fn either(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A value as it may be repeated to the operator: in quotes, escaped, and cut so that a pasted text stays one line.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() > LONGEST {
        let cut: String = text.chars().take(LONGEST).collect();
        return format!("{cut:?}…");
    }
    format!("{text:?}")
}

/// The name that `typed` was most likely meant to be, if one is near enough to be worth suggesting.
pub(super) fn nearest<'n>(typed: &str, names: &[&'n str]) -> Option<&'n str> {
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    names
        .iter()
        .map(|name| (distance(typed, name), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance, by the usual two rows; long texts count as far from everything.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let b: Vec<char> = b.chars().collect();
    if b.len() > LONGEST || a.chars().count() > LONGEST {
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
    fn display_names_only_what_is_known() {
        let mut problem = Problem {
            file: "failsoft.toml".to_owned(),
            line: Some(12),
            key: "server.drain".to_owned(),
            what: "wrong".to_owned(),
        };
        assert_eq!(problem.to_string(), "failsoft.toml:12: server.drain: wrong");
        problem.key.clear();
        assert_eq!(problem.to_string(), "failsoft.toml:12: wrong");
        problem.line = None;
        assert_eq!(problem.to_string(), "failsoft.toml: wrong");
        assert_eq!(
            Problems(vec![problem.clone(), problem]).to_string(),
            "failsoft.toml: wrong\nfailsoft.toml: wrong"
        );
    }

    #[test]
    fn suggests_the_near_and_only_the_near() {
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
    fn lists_in_english() {
        assert_eq!(either(&["a", "b", "c"]), "a, b or c");
        assert_eq!(either(&["a"]), "a");
        assert_eq!(either(&[]), "");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert!(quoted(&"x".repeat(1000)).chars().count() < 70);
    }
}
