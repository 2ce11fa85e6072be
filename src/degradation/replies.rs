//! The template replies: which prepared text answers which question.
//!
//! Pure. Says nothing of where a file lies and never reads one.

mod file;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::degradation::case;
use crate::settings::Problems;

/// How much of a question is looked at, in bytes; the rest is passed over.
const EXAMINED_BYTES: usize = 16 * 1024;

/// How many words are asked for when the replies are looked after: it is to take no time to speak of.
const ASKED_OF_ITSELF: usize = 20;

/// The replies that come with the program.
const BUILT_IN: &str = include_str!("../../templates/replies.toml");

/// A word: letters, digits, the marks on them. All else, the underscore too, parts words (the classes are those of UTS 18,
/// annex C, less connecting punctuation).
static WORD: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| Regex::new(r"[\w--\p{Pc}]+"));

/// A replies file, read and checked.
///
/// The first reply in file order that matches wins. A reply matches if one of its words stands in the question, or if its
/// pattern is found there:
/// - Words are compared whole and in any case; punctuation counts as space on both sides, so `e-mail` is found in "E mail"
///   and `opening hours` in "Opening-hours?". A language written without spaces needs a pattern. Composed and decomposed
///   accents are different.
/// - Patterns are those of the `regex` crate, which takes linear time for every pattern and every question.
///
/// Of a question the first 16 KiB are looked at.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    texts: Vec<Arc<str>>,
    /// Folded words with one space between, each with the first reply that it belongs to.
    words: HashMap<String, usize>,
    /// The most words that an entry of `words` has.
    longest: usize,
    /// In file order.
    patterns: Vec<(usize, Regex)>,
    fallback: Option<Arc<str>>,
}

impl Replies {
    /// Reads the text of a replies file:
    ///
    /// ```toml
    /// fallback = "..."                  # optional: what is said when nothing matches
    /// [[reply]]
    /// match = ["pricing", "price"]      # any of these words (or one alone), whole, any case, or:
    /// pattern = "(?i)opening hours"     # a regular expression
    /// text = "Our services start at $999. See /pricing."
    /// ```
    ///
    /// At most 1,000 replies, 100 entries of `match` with up to 8 words each, 16 KiB a text, 512 KiB a compiled pattern.
    ///
    /// # Errors
    ///
    /// Every problem, in the order of the file, which they call `file_name`.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Problems> {
        file::read(file_name, text)
    }

    /// The replies that come with the program: true of any site, with no fallback of their own.
    pub fn built_in() -> Self {
        // That they parse is a test's business; were they ever broken, the fixed text would still answer.
        Self::parse("built-in replies", BUILT_IN).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The file's own fallback text; never blank.
    pub fn fallback(&self) -> Option<&Arc<str>> {
        self.fallback.as_ref()
    }

    /// The text of the first reply that matches; never blank.
    pub fn find(&self, question: &str) -> Option<&Arc<str>> {
        let (question, _) = question.split_at(question.floor_char_boundary(EXAMINED_BYTES));
        let by_word = self.by_word(question);
        let before = by_word.unwrap_or(usize::MAX);
        let by_pattern = self
            .patterns
            .iter()
            .take_while(|(reply, _)| *reply < before)
            .find(|(_, pattern)| pattern.is_match(question))
            .map(|(reply, _)| *reply);
        self.texts.get(by_pattern.or(by_word)?)
    }

    /// Whether the words that call for a reply, asked for, find one: always, unless the replies are broken.
    pub fn find_themselves(&self) -> bool {
        self.words
            .keys()
            .take(ASKED_OF_ITSELF)
            .all(|words| self.find(words).is_some())
    }

    /// The first reply that one of the question's words, or runs of words, belongs to.
    fn by_word(&self, question: &str) -> Option<usize> {
        if self.words.is_empty() {
            return None;
        }
        let (folded, places) = fold(question);
        let runs = places.iter().enumerate().flat_map(|(n, first)| {
            let lasts = places.iter().skip(n).take(self.longest);
            lasts.filter_map(|last| folded.get(first.start..last.end))
        });
        runs.filter_map(|run| self.words.get(run)).min().copied()
    }

    /// Adds a word or run of words for a reply; an earlier reply keeps what it has.
    fn add_words(&mut self, folded: String, words: usize, reply: usize) {
        self.longest = self.longest.max(words);
        self.words.entry(folded).or_insert(reply);
    }
}

/// The words of a text with one space between and in one case, and where each of them stands in that.
fn fold(text: &str) -> (String, Vec<Range<usize>>) {
    let mut folded = String::with_capacity(text.len());
    let mut places = Vec::new();
    for word in WORD.iter().flat_map(|word| word.find_iter(text)) {
        if !folded.is_empty() {
            folded.push(' ');
        }
        let start = folded.len();
        folded.extend(case::folded(word.as_str()));
        places.push(start..folded.len());
    }
    (folded, places)
}

#[cfg(test)]
mod tests;
