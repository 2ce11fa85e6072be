//! Template replies: selects a prepared text for a question.
//!
//! Pure: reads no file and knows no path. Parsing reports every problem at once, with line, key and
//! what is expected.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use regex::{Regex, RegexBuilder};
use toml::de::DeValue;

use crate::answer_cache::key::casefold;
use crate::config::{ConfigErrors, TableReader, read_toml, type_mismatch};

/// Longer questions are only examined up to this length, in bytes.
const MAX_QUESTION_BYTES: usize = 16 * 1024;

/// Phrases that the self-test looks up; few, so that it takes next to no time.
const MAX_SELF_TEST_PHRASES: usize = 20;

const MAX_REPLIES: usize = 1_000;
/// The longest text, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The most entries of a `match`.
const MAX_ENTRIES: usize = 100;
const MAX_ENTRY_WORDS: usize = 8;
/// The largest compiled pattern, in bytes: fits several Unicode classes, but not `\w{1,1000}`.
const MAX_PATTERN_BYTES: usize = 512 * 1024;
/// The largest lazy DFA cache of a pattern, in bytes. Beyond it the regex crate uses a slower
/// engine, which is still linear.
const MAX_DFA_CACHE_BYTES: usize = 128 * 1024;

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
    /// The fallback text of the file, never blank.
    pub(super) fallback: Option<Arc<str>>,
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
        read_toml(file_name, text, |root| {
            let mut replies = Self::default();
            root.read("fallback", &mut replies.fallback, |value| {
                parse_text(value).map(Some)
            });
            let mut count = 0;
            root.read_tables("reply", |table| {
                parse_reply(table, &mut replies);
                count += 1;
            });
            if count > MAX_REPLIES {
                root.add_problem(
                    "reply",
                    format!("{count} of them; at most {MAX_REPLIES} may stand here"),
                );
            }
            replies
        })
    }

    /// The built-in replies, which suit any site and have no fallback.
    pub fn built_in() -> Self {
        // A test ensures that they parse. If they did not, the fixed text would still answer.
        Self::parse("built-in replies", BUILT_IN_FILE).unwrap_or_default()
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

/// Parses one reply and adds it. A text is pushed even if it is invalid, to keep the numbers right.
fn parse_reply(table: &mut TableReader<'_, '_, '_>, replies: &mut Replies) {
    let number = replies.texts.len();
    let mut entries = Vec::new();
    table.read_one_or_many("match", &mut entries, parse_entry);
    if let Some(value) = table.lookup("pattern") {
        match compile_pattern(value) {
            Ok(pattern) => replies.patterns.push((number, pattern)),
            Err(what) => table.add_problem("pattern", what),
        }
    }
    if !table.contains("pattern") {
        table.require(
            "match",
            "list the words that call for this reply, or give a pattern",
        );
    }
    if entries.len() > MAX_ENTRIES {
        let what = format!(
            "{} entries; at most {MAX_ENTRIES} may stand here",
            entries.len()
        );
        table.add_problem("match", what);
    }
    table.require("text", "say what the visitor reads");
    let mut text = Arc::default();
    table.read("text", &mut text, parse_text);
    replies.texts.push(text);
    for (phrase, words) in entries {
        replies.max_phrase_words = replies.max_phrase_words.max(words);
        // A phrase of an earlier reply stays with that reply.
        replies.phrases.entry(phrase).or_insert(number);
    }
}

/// Parses a text for visitors.
fn parse_text(value: &DeValue<'_>) -> Result<Arc<str>, String> {
    match value.as_str().map(str::trim) {
        None => Err(type_mismatch(value, "text in quotes")),
        Some("") => Err("empty; say what the visitor reads".to_owned()),
        Some(text) if text.len() > MAX_TEXT_BYTES => Err(format!(
            "{} bytes; a text may have at most {MAX_TEXT_BYTES}",
            text.len()
        )),
        Some(text) => Ok(text.into()),
    }
}

/// Parses an entry of `match`: the normalised phrase and its number of words.
fn parse_entry(value: &DeValue<'_>) -> Result<(String, usize), String> {
    let text = value.as_str();
    let text = text.ok_or_else(|| type_mismatch(value, "text in quotes"))?;
    let (phrase, positions) = normalize(text);
    match positions.len() {
        0 => Err("no letter and no digit in it; name a word, or use pattern".to_owned()),
        words @ 1..=MAX_ENTRY_WORDS => Ok((phrase, words)),
        words => Err(format!(
            "{words} words; it may have at most {MAX_ENTRY_WORDS}, or use pattern"
        )),
    }
}

fn compile_pattern(value: &DeValue<'_>) -> Result<Regex, String> {
    let Some(text) = value.as_str() else {
        return Err(type_mismatch(value, "a regular expression in quotes"));
    };
    let mut builder = RegexBuilder::new(text);
    builder
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_DFA_CACHE_BYTES);
    match builder.build() {
        Ok(pattern) if pattern.is_match("") => {
            Err("matches every question; make it ask for something, or use fallback".to_owned())
        }
        Ok(pattern) => Ok(pattern),
        Err(regex::Error::CompiledTooBig(_)) => Err(format!(
            "more than {MAX_PATTERN_BYTES} bytes when compiled; shorten its repetitions"
        )),
        Err(error) => {
            // The lines above the last one draw the pattern.
            let report = error.to_string();
            let last = report.lines().last().unwrap_or_default().trim();
            let reason = last.trim_start_matches("error: ");
            Err(format!("no regular expression: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests;
