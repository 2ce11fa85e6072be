//! Continuing another's text: the end that is to be repeated, whether the repeat fits, and where it is cut. Pure.
//!
//! A model that is asked to go on is told to repeat the last characters of what stands: only a repeat that fits, white space apart, proves that
//! it goes on from there.

/// How many characters a continuation is asked to repeat.
pub const ANCHOR_CHARS: usize = 40;

/// Where a repeat ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What was said up to here repeats the anchor; the rest goes on.
    At(usize),
    /// It fits so far, and is not whole yet.
    TooShort,
    /// It does not fit.
    Misfit,
}

/// The end of `shown` that a continuation is to repeat.
pub fn anchor(shown: &str) -> &str {
    let shown = shown.trim_end();
    let start = shown
        .char_indices()
        .rev()
        .take(ANCHOR_CHARS)
        .last()
        .map_or(0, |(at, _)| at);
    shown.get(start..).unwrap_or_default()
}

/// Whether `said` repeats the anchor of `shown`, white space apart, and where the repeat ends.
pub fn cut(shown: &str, said: &str) -> Cut {
    let mut wanted = anchor(shown)
        .chars()
        .filter(|c| !c.is_whitespace())
        .peekable();
    for (at, c) in said.char_indices() {
        match wanted.peek() {
            None => return Cut::At(at),
            Some(_) if c.is_whitespace() => {}
            Some(want) if *want == c => drop(wanted.next()),
            Some(_) => return Cut::Misfit,
        }
    }
    if wanted.peek().is_none() {
        Cut::At(said.len())
    } else {
        Cut::TooShort
    }
}

/// A continuation without the white space that `shown` ends with already: as much of it as both have, and no more, as what follows may be
/// indented.
pub fn joined<'a>(shown: &str, more: &'a str) -> &'a str {
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
    fn the_anchor_is_the_last_forty_characters() {
        let shown = format!("{}é{} ", "a".repeat(50), "b".repeat(39));
        assert_eq!(anchor(&shown), format!("é{}", "b".repeat(39)));
        assert_eq!(anchor("short"), "short");
        assert_eq!(anchor(""), "");
    }

    #[test]
    fn a_repeat_is_cut_whatever_its_white_space() {
        for said in [
            "one two three four",
            "one  two\nthree four",
            " onetwothree four",
        ] {
            let Cut::At(at) = cut("one two three", said) else {
                panic!("{said}")
            };
            assert_eq!(&said[at..], " four");
        }
        assert_eq!(cut("one two", "one"), Cut::TooShort);
        assert_eq!(cut("one two", ""), Cut::TooShort);
        assert_eq!(cut("one two", "one two"), Cut::At(7));
        assert_eq!(cut("one two", "Sure! one two"), Cut::Misfit);
        assert_eq!(cut("one two", "one too"), Cut::Misfit);
    }

    #[test]
    fn white_space_is_not_doubled() {
        assert_eq!(joined("one ", " two"), "two");
        assert_eq!(joined("one", " two"), " two");
        assert_eq!(joined("def f():\n", "\n    return 1"), "    return 1");
        assert_eq!(joined("def f():\n", "    return 1"), "    return 1");
    }
}
