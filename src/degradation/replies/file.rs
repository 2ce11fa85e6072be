//! Parses a replies file and reports every problem at once, with line, key and what is expected.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use toml::de::DeValue;

use crate::config::{ConfigErrors, TableReader, read_toml, type_mismatch};

use super::{Replies, normalize};

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

pub(super) fn parse_file(file_name: &str, text: &str) -> Result<Replies, ConfigErrors> {
    read_toml(file_name, text, |root| {
        let mut replies = Replies::default();
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
        replies.insert_phrase(phrase, words, number);
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
    let built = RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_DFA_CACHE_BYTES)
        .build();
    match built {
        Ok(pattern) if pattern.is_match("") => {
            Err("matches every question; make it ask for something, or use fallback".to_owned())
        }
        Ok(pattern) => Ok(pattern),
        Err(regex::Error::CompiledTooBig(_)) => Err(format!(
            "more than {MAX_PATTERN_BYTES} bytes when compiled; shorten its repetitions"
        )),
        Err(error) => Err(format!(
            "no regular expression: {}",
            regex_error_reason(&error.to_string())
        )),
    }
}

/// The last line of the regex crate's report. The lines above it draw the pattern.
fn regex_error_reason(report: &str) -> &str {
    let last = report.lines().last().unwrap_or(report);
    last.trim().trim_start_matches("error: ")
}
