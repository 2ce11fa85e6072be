//! Reading a replies file: every problem at once, each with its line and what would be right.

use std::ops::Range;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Problem, Replies, fold};

/// The most replies of a file.
const REPLIES: usize = 1_000;
/// The longest text, in bytes: an answer, not a document.
const TEXT_BYTES: usize = 16 * 1024;
/// The most entries of one `match`.
const ENTRIES: usize = 100;
/// The most words of one entry of `match`.
const ENTRY_WORDS: usize = 8;
/// The largest compiled pattern, in bytes: room for several Unicode classes, none for `\w{1,1000}`.
const PATTERN_BYTES: usize = 512 * 1024;
/// The largest cache of one pattern in one thread, in bytes. Past it the regex crate goes on without, slower, still linear.
const PATTERN_CACHE_BYTES: usize = 128 * 1024;

const KNOWN: &str = "known are `match`, `pattern` and `text`";

/// Reads and checks; see [`Replies::parse`].
pub(super) fn read(file_name: &str, text: &str) -> Result<Replies, Vec<Problem>> {
    let (table, faults) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        file: file_name.into(),
        line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
        size: text.len(),
        problems: Vec::new(),
        replies: Replies::default(),
    };
    let sound = reader.syntax(&faults);
    reader.top(table.get_ref(), sound);
    reader.end()
}

struct Reader {
    file: Arc<str>,
    line_ends: Vec<usize>,
    size: usize,
    problems: Vec<(usize, String)>,
    replies: Replies,
}

impl Reader {
    /// The line of a place, from 1.
    fn line(&self, at: usize) -> usize {
        self.line_ends.partition_point(|end| *end < at) + 1
    }

    fn problem(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.problems.push((span.start, what.into()));
    }

    /// Notes the faults of syntax, one a line (further ones are echoes), and returns where the first one lies: what comes
    /// after it is the parser's guess.
    fn syntax(&mut self, faults: &[toml::de::Error]) -> usize {
        let mut last = None;
        let mut faults: Vec<_> =
            faults.iter().map(|fault| (fault.span().map_or(0, |span| span.start), fault.message())).collect();
        faults.sort_by_key(|(at, _)| *at);
        for (at, message) in &faults {
            let line = self.line(*at);
            if last.replace(line) != Some(line) {
                self.problem(*at..*at, format!("not TOML: {}", one_line(message)));
            }
        }
        faults.first().map_or(usize::MAX, |(at, _)| *at)
    }

    fn top(&mut self, table: &DeTable<'_>, sound: usize) {
        for (key, value) in table {
            if value.span().end >= sound {
                continue;
            }
            match key.get_ref().as_ref() {
                "fallback" => self.replies.fallback = self.text_of("fallback", value),
                "reply" => self.list(key, value, sound),
                other => self.problem(
                    key.span(),
                    format!("unknown key `{}`: known are `fallback` and `[[reply]]`", short(other)),
                ),
            }
        }
    }

    fn list(&mut self, key: &Spanned<impl Sized>, value: &Spanned<DeValue<'_>>, sound: usize) {
        let Some(list) = value.get_ref().as_array() else {
            self.problem(key.span(), "`reply` must be a list: head each reply with `[[reply]]`");
            return;
        };
        if let Some(first) = list.get(REPLIES) {
            self.problem(first.span(), format!("too many replies: {}, at most {REPLIES}", list.len()));
        }
        let ends = list.iter().skip(1).map(|next| next.span().start);
        let ends = ends.chain([self.size]);
        for (item, end) in list.iter().zip(ends).take(REPLIES) {
            if end >= sound {
                break;
            }
            match item.get_ref().as_table() {
                Some(reply) => self.reply(item.span(), reply),
                None => self.problem(item.span(), format!("a reply must be a table: {KNOWN}")),
            }
        }
    }

    fn reply(&mut self, head: Range<usize>, reply: &DeTable<'_>) {
        for key in reply.keys() {
            let what = match key.get_ref().as_ref() {
                "match" | "pattern" | "text" => continue,
                "fallback" => "`fallback` must stand above the first `[[reply]]`".to_owned(),
                other => format!("unknown key `{}`: {KNOWN}", short(other)),
            };
            self.problem(key.span(), what);
        }
        let number = self.replies.texts.len();
        match reply.get("text") {
            Some(text) => {
                let text = self.text_of("text", text);
                self.replies.texts.extend(text);
            }
            None => self.problem(head.clone(), "`text` is missing: say what the visitor reads"),
        }
        if let Some(entries) = reply.get("match") {
            self.entries(entries, number);
        }
        if let Some(pattern) = reply.get("pattern")
            && let Some(pattern) = self.pattern(pattern)
        {
            self.replies.patterns.push((number, pattern));
        }
        if !reply.contains_key("match") && !reply.contains_key("pattern") {
            self.problem(
                head,
                "this reply matches nothing: give it `match = [\"word\"]` or `pattern = \"...\"`",
            );
        }
    }

    fn text_of(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Arc<str>> {
        let text = match value.get_ref().as_str().map(str::trim) {
            None => Err(format!("`{key}` must be a text in quotes")),
            Some("") => Err(format!("`{key}` is empty: say what the visitor reads")),
            Some(text) if text.len() > TEXT_BYTES => {
                Err(format!("`{key}` is too long: {} bytes, at most {TEXT_BYTES}", text.len()))
            }
            Some(text) => Ok(text.into()),
        };
        text.map_err(|what| self.problem(value.span(), what)).ok()
    }

    fn entries(&mut self, value: &Spanned<DeValue<'_>>, reply: usize) {
        let Some(entries) = value.get_ref().as_array() else {
            let what = "`match` must be a list of words: match = [\"price\", \"pricing\"]";
            return self.problem(value.span(), what);
        };
        if entries.is_empty() {
            self.problem(value.span(), "`match` is empty: list the words that call for this reply");
        }
        if entries.len() > ENTRIES {
            let what = format!("`match` is too long: {} entries, at most {ENTRIES}", entries.len());
            return self.problem(value.span(), what);
        }
        for entry in entries {
            let Some(text) = entry.get_ref().as_str() else {
                self.problem(entry.span(), "`match` must list texts in quotes");
                continue;
            };
            let (folded, places) = fold(text);
            match places.len() {
                0 => self.problem(
                    entry.span(),
                    "this entry of `match` has no letter and no digit: name a word, or use `pattern`",
                ),
                1..=ENTRY_WORDS => self.replies.add_words(folded, places.len(), reply),
                more => self.problem(
                    entry.span(),
                    format!("this entry of `match` has {more} words, at most {ENTRY_WORDS}: use `pattern`"),
                ),
            }
        }
    }

    fn pattern(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Regex> {
        let pattern = match value.get_ref().as_str().map(compile) {
            None => Err("`pattern` must be a regular expression in quotes".to_owned()),
            Some(Err(what)) => Err(what),
            Some(Ok(pattern)) if pattern.is_match("") => {
                Err("`pattern` matches every question: make it ask for something, or use `fallback`"
                    .to_owned())
            }
            Some(Ok(pattern)) => Ok(pattern),
        };
        pattern.map_err(|what| self.problem(value.span(), what)).ok()
    }

    fn end(mut self) -> Result<Replies, Vec<Problem>> {
        if self.problems.is_empty() {
            return Ok(self.replies);
        }
        self.problems.sort();
        let problems = self.problems.iter().map(|(at, what)| Problem {
            file: Arc::clone(&self.file),
            line: Some(self.line(*at)),
            what: what.clone(),
        });
        Err(problems.collect())
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let built =
        RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_CACHE_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!(
            "`pattern` is too large: more than {PATTERN_BYTES} bytes when compiled; shorten its repetitions"
        ),
        other => format!("`pattern` is no regular expression: {}", reason(&other.to_string())),
    })
}

/// The last line of the regex crate's report; those above it draw the pattern.
fn reason(report: &str) -> &str {
    let last = report.lines().last().unwrap_or(report);
    last.trim().trim_start_matches("error: ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An unknown key as it is repeated to the operator: a slip of the pen, not a page.
fn short(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(40).collect()
}
