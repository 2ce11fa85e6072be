//! Matches a continuation against the end of the text that it continues. Pure.
//!
//! A model that cannot be given a partial answer is asked to repeat its last characters and to go
//! on from there. Only a repetition that matches, ignoring white space, proves that it does so.

/// The number of characters that a continuation is asked to repeat.
pub const OVERLAP_CHARS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapMatch {
    /// The text up to this byte repeats the overlap; the rest is new.
    EndsAt(usize),
    /// The text matches so far but does not contain the whole overlap yet.
    Incomplete,
    Mismatch,
}

/// The end of `shown` that a continuation has to repeat.
pub fn overlap_tail(shown: &str) -> &str {
    let shown = shown.trim_end();
    let start = shown
        .char_indices()
        .rev()
        .take(OVERLAP_CHARS)
        .last()
        .map_or(0, |(at, _)| at);
    shown.get(start..).unwrap_or_default()
}

/// Matches the start of `text` against the overlap of `shown`, ignoring white space.
pub fn match_overlap(shown: &str, text: &str) -> OverlapMatch {
    let mut expected = overlap_tail(shown)
        .chars()
        .filter(|c| !c.is_whitespace())
        .peekable();
    for (at, c) in text.char_indices() {
        match expected.peek() {
            None => return OverlapMatch::EndsAt(at),
            Some(_) if c.is_whitespace() => {}
            Some(next) if *next == c => drop(expected.next()),
            Some(_) => return OverlapMatch::Mismatch,
        }
    }
    if expected.peek().is_none() {
        OverlapMatch::EndsAt(text.len())
    } else {
        OverlapMatch::Incomplete
    }
}

/// Removes white space from the start of `more` that `shown` already ends with.
///
/// Only the common part is removed, because the continuation may be indented.
pub fn strip_common_whitespace<'a>(shown: &str, more: &'a str) -> &'a str {
    let end = shown.get(shown.trim_end().len()..).unwrap_or_default();
    let common = end
        .chars()
        .zip(more.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum();
    more.get(common..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_the_last_forty_characters() {
        let shown = format!("{}é{} ", "a".repeat(50), "b".repeat(39));
        assert_eq!(overlap_tail(&shown), format!("é{}", "b".repeat(39)));
        assert_eq!(overlap_tail("short"), "short");
        assert_eq!(overlap_tail(""), "");
    }

    #[test]
    fn overlap_matches_regardless_of_white_space() {
        for text in [
            "one two three four",
            "one  two\nthree four",
            " onetwothree four",
        ] {
            let OverlapMatch::EndsAt(at) = match_overlap("one two three", text) else {
                panic!("{text}")
            };
            assert_eq!(&text[at..], " four");
        }
        assert_eq!(match_overlap("one two", "one"), OverlapMatch::Incomplete);
        assert_eq!(match_overlap("one two", ""), OverlapMatch::Incomplete);
        assert_eq!(match_overlap("one two", "one two"), OverlapMatch::EndsAt(7));
        assert_eq!(
            match_overlap("one two", "Sure! one two"),
            OverlapMatch::Mismatch
        );
        assert_eq!(match_overlap("one two", "one too"), OverlapMatch::Mismatch);
    }

    #[test]
    fn common_white_space_is_removed_once() {
        assert_eq!(strip_common_whitespace("one ", " two"), "two");
        assert_eq!(strip_common_whitespace("one", " two"), " two");
        assert_eq!(
            strip_common_whitespace("def f():\n", "\n    return 1"),
            "    return 1"
        );
        assert_eq!(
            strip_common_whitespace("def f():\n", "    return 1"),
            "    return 1"
        );
    }
}
