//! Template replies: selects a prepared text for a question.
//!
//! Pure: reads no file and knows no path.

mod file;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::answer_cache::key::casefold;
use crate::config::ConfigErrors;

/// Longer questions are only examined up to this length, in bytes.
const MAX_QUESTION_BYTES: usize = 16 * 1024;

/// Phrases that the self-test looks up; few, so that it takes next to no time.
const MAX_SELF_TEST_PHRASES: usize = 20;

/// The replies file compiled into the program.
const BUILT_IN_FILE: &str = include_str!("../../templates/replies.toml");

/// A word: letters, digits and their marks. Everything else, including the underscore, separates
/// words. The classes are those of UTS 18, annex C, without connecting punctuation.
static WORD_PATTERN: LazyLock<Result<Regex, regex::Error>> =
    LazyLock::new(|| Regex::new(r"[\w--\p{Pc}]+"));

/// A parsed and checked replies file.
///
/// The first matching reply in file order wins. A reply matches if the question contains one of its
/// words or matches its pattern:
/// - Words are compared as a whole and ignoring case. Punctuation counts as a space on both sides,
///   so `e-mail` matches "E mail", and `opening hours` matches "Opening-hours?". A language written
///   without spaces needs a pattern. Composed and decomposed accents are different.
/// - Patterns are those of the `regex` crate, which takes linear time for every pattern and every
///   question.
///
/// Only the first 16 KiB of a question are examined.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    texts: Vec<Arc<str>>,
    /// Normalised words or phrases, with one space between words, and the first reply of each.
    phrases: HashMap<String, usize>,
    /// The number of words of the longest phrase.
    max_phrase_words: usize,
    /// Reply number and pattern, in file order.
    patterns: Vec<(usize, Regex)>,
    fallback: Option<Arc<str>>,
}

impl Replies {
    /// Parses the text of a replies file:
    ///
    /// ```toml
    /// fallback = "..."                  # optional: the answer if nothing matches
    /// [[reply]]
    /// match = ["pricing", "price"]      # any of these words (or one alone), whole, any case, or:
    /// pattern = "(?i)opening hours"     # a regular expression
    /// text = "Our services start at $999. See /pricing."
    /// ```
    ///
    /// At most 1,000 replies, 100 entries of `match` with up to 8 words each, 16 KiB a text,
    /// 512 KiB a compiled pattern.
    ///
    /// # Errors
    ///
    /// Every problem, in file order, under `file_name`.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        file::parse_file(file_name, text)
    }

    /// The built-in replies, which suit any site and have no fallback.
    pub fn built_in() -> Self {
        // A test ensures that they parse. If they did not, the fixed text would still answer.
        Self::parse("built-in replies", BUILT_IN_FILE).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The fallback text of the file, never blank.
    pub fn fallback(&self) -> Option<&Arc<str>> {
        self.fallback.as_ref()
    }

    /// The text of the first matching reply, never blank.
    pub fn find(&self, question: &str) -> Option<&Arc<str>> {
        let (question, _) = question.split_at(question.floor_char_boundary(MAX_QUESTION_BYTES));
        let by_word = self.match_phrase(question);
        let limit = by_word.unwrap_or(usize::MAX);
        let by_pattern = self
            .patterns
            .iter()
            .take_while(|(reply, _)| *reply < limit)
            .find(|(_, pattern)| pattern.is_match(question))
            .map(|(reply, _)| *reply);
        self.texts.get(by_pattern.or(by_word)?)
    }

    /// Returns `true` if the replies find some of their own words, as they do unless broken.
    pub fn self_test(&self) -> bool {
        self.phrases
            .keys()
            .take(MAX_SELF_TEST_PHRASES)
            .all(|phrase| self.find(phrase).is_some())
    }

    /// The first reply that a word or a sequence of words of the question belongs to.
    fn match_phrase(&self, question: &str) -> Option<usize> {
        if self.phrases.is_empty() {
            return None;
        }
        let (normalized, positions) = normalize(question);
        let runs = positions.iter().enumerate().flat_map(|(n, first)| {
            let lasts = positions.iter().skip(n).take(self.max_phrase_words);
            lasts.filter_map(|last| normalized.get(first.start..last.end))
        });
        runs.filter_map(|run| self.phrases.get(run)).min().copied()
    }

    /// Adds a phrase of `words` words. A phrase of an earlier reply stays with that reply.
    fn insert_phrase(&mut self, normalized: String, words: usize, reply: usize) {
        self.max_phrase_words = self.max_phrase_words.max(words);
        self.phrases.entry(normalized).or_insert(reply);
    }
}

/// Returns the case-folded words of a text, joined by one space, and their byte ranges in that.
fn normalize(text: &str) -> (String, Vec<Range<usize>>) {
    let mut normalized = String::with_capacity(text.len());
    let mut positions = Vec::new();
    for word in WORD_PATTERN.iter().flat_map(|word| word.find_iter(text)) {
        if !normalized.is_empty() {
            normalized.push(' ');
        }
        let start = normalized.len();
        normalized.extend(casefold(word.as_str()));
        positions.push(start..normalized.len());
    }
    (normalized, positions)
}

#[cfg(test)]
mod tests;
