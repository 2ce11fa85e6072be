//! Splits running text and lists into sentences.
//!
//! Pure. It goes by punctuation, not by grammar: an unknown abbreviation ends a sentence.

/// The sentences of a text, trimmed, in order. The end of a paragraph and the start of a list item
/// end a sentence too.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let parts = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (sentence, after) = rest.split_at(first_sentence_end(rest));
        rest = after;
        Some(sentence)
    });
    let has_word = |part: &'_ str| -> bool { part.chars().any(char::is_alphanumeric) };
    parts
        .map(|part| part.trim().trim_start_matches(['-', '*', '•']).trim_start())
        .filter(move |part| has_word(part))
}

/// The byte offset just after the first sentence.
fn first_sentence_end(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut started = false;
    while let Some((at, c)) = chars.next() {
        let after = at + c.len_utf8();
        started |= c.is_alphanumeric();
        match c {
            '。' | '！' | '？' => return after,
            '\n' if started && starts_block(text.get(after..).unwrap_or_default()) => return after,
            '.' | '!' | '?' | '…' => {
                // Further marks and closing quotes belong to the sentence.
                let mut end = after;
                while let Some((at, c)) = chars.next_if(|(_, c)| {
                    matches!(
                        c,
                        '.' | '!' | '?' | '…' | '"' | '”' | '“' | '»' | ')' | '\''
                    )
                }) {
                    end = at + c.len_utf8();
                }
                let goes_on = chars.peek().is_some_and(|(_, c)| !c.is_whitespace());
                let one_mark = c == '.' && end == after;
                if started
                    && !goes_on
                    && !(one_mark && is_abbreviation(text.get(..at).unwrap_or_default()))
                {
                    return end;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Returns `true` if the text after a line break starts with a blank line or a list item.
fn starts_block(next: &str) -> bool {
    let line = next.split('\n').next().unwrap_or_default().trim_start();
    line.is_empty() || ["- ", "* ", "• "].iter().any(|mark| line.starts_with(mark))
}

/// Returns `true` if a full stop after this text belongs to its last word: an initial, a day or
/// ordinal, a title.
fn is_abbreviation(before: &str) -> bool {
    const KNOWN: [&str; 30] = [
        "mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "no", "nr", "ca", "bzw", "usw", "vgl",
        "evtl", "inkl", "ggf", "str", "sr", "sra", "srta", "dra", "ud", "uds", "mme", "mlle",
        "approx", "inc", "e.g", "i.e",
    ];
    let word = before
        .rsplit(|c: char| c.is_whitespace() || c == '(')
        .next()
        .unwrap_or_default();
    let last = word.rsplit('.').next().unwrap_or_default();
    let short = last.chars().count() == 1 && last.chars().all(char::is_alphabetic);
    let day = (1..=2).contains(&last.len())
        && last.bytes().all(|byte| byte.is_ascii_digit())
        && last == word;
    short || day || KNOWN.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect(text: &str) -> Vec<&str> {
        sentences(text).collect()
    }

    #[test]
    fn punctuation_ends_a_sentence_and_abbreviations_do_not() {
        for (text, expected) in [
            (
                "One. Two! Three? Four",
                &["One.", "Two!", "Three?", "Four"][..],
            ),
            (
                "Dr. Who met Mr. J. Smith. They left.",
                &["Dr. Who met Mr. J. Smith.", "They left."],
            ),
            (
                "Das gilt z. B. am 3. Mai. Gut so.",
                &["Das gilt z. B. am 3. Mai.", "Gut so."],
            ),
            ("It was 2019. It rained.", &["It was 2019.", "It rained."]),
            (
                "It costs 4.90 at a.b.example today. Yes.",
                &["It costs 4.90 at a.b.example today.", "Yes."],
            ),
            (
                "He said: \"No.\" Then he left...",
                &["He said: \"No.\"", "Then he left..."],
            ),
            (
                "A wrapped\nline. A title\n\nText.",
                &["A wrapped\nline.", "A title", "Text."],
            ),
            ("List:\n- one\n- two", &["List:", "one", "two"]),
            ("今日は。元気？", &["今日は。", "元気？"]),
            (" ... \n\n !", &[]),
        ] {
            assert_eq!(collect(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn splitting_loses_no_word(text in any::<String>()) {
            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
            prop_assert_eq!(collect(&text).into_iter().map(letters).sum::<usize>(), letters(&text));
        }
    }
}
