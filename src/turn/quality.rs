//! Judges how good an answer looks without understanding it. Pure.
//!
//! An answer that repeats one token up to the token limit is degenerate: the attempt has failed,
//! although the provider reported a normal end.
//!
//! The quality score, from 0 to 1, compares providers that get the same questions and shows when
//! one of them gets worse. It is the product of three factors:
//!
//! - length: the share of two hundred characters that the answer has, at most 1. Shorter answers
//!   are not wrong, but a provider that gives them more often than others, or than before, shows it
//!   here;
//! - repetition: the share of distinct sequences of four words (one minus `seq-rep-4` of Welleck et
//!   al., "Neural Text Generation with Unlikelihood Training"); 1 for shorter answers;
//! - keywords: 1 if the answer contains all of the operator's keywords as whole words, ignoring
//!   case, falling to 0.5 if it contains none. Without configured keywords it is 1.

use std::collections::{HashMap, HashSet};

use crate::domain::FinishReason;

/// An answer of this length gets the full length factor.
const FULL_LENGTH_CHARS: usize = 200;

const NGRAM_WORDS: usize = 4;

/// The longest repeated token to look for, in bytes. Common vocabularies have no longer ones, apart
/// from white space.
const MAX_TOKEN_BYTES: usize = 32;

/// The minimum number of repetitions in a row. Lines and tables contain dozens of dashes, but an
/// answer does not end in them.
const MIN_REPEATS: usize = 20;

/// Returns `true` if an answer was cut off at the token limit while it repeated one token.
pub fn is_degenerate(text: &str, finish: FinishReason) -> bool {
    finish == FinishReason::Length && ends_in_repetition(text)
}

/// Returns `true` if the second half of the text, or more, is one repeated token.
fn ends_in_repetition(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=MAX_TOKEN_BYTES).any(|token| {
        let Some(earlier) = bytes
            .len()
            .checked_sub(token)
            .and_then(|length| bytes.get(..length))
        else {
            return false;
        };
        // The text repeats a token of this length as far as each byte equals the one a token
        // earlier.
        let equal = bytes
            .iter()
            .rev()
            .zip(earlier.iter().rev())
            .take_while(|(byte, earlier)| byte == earlier);
        let run = token + equal.count();
        run / token >= MIN_REPEATS && run >= bytes.len().div_ceil(2)
    })
}

pub fn quality_score(text: &str, keywords: &[String]) -> f64 {
    let words: Vec<String> = words(text).collect();
    let length = ratio(
        text.trim().chars().count().min(FULL_LENGTH_CHARS),
        FULL_LENGTH_CHARS,
    );
    length * repetition_factor(&words) * keyword_factor(&words, keywords)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

fn repetition_factor(words: &[String]) -> f64 {
    // Words are replaced by numbers, so that each is hashed once and not in each sequence.
    let mut numbers = HashMap::with_capacity(words.len());
    let number = |word| {
        let next = numbers.len();
        *numbers.entry(word).or_insert(next)
    };
    let words: Vec<usize> = words.iter().map(number).collect();
    let ngrams = words.windows(NGRAM_WORDS);
    let total = ngrams.len();
    let mut distinct = HashSet::with_capacity(total);
    distinct.extend(ngrams);
    if total == 0 {
        1.0
    } else {
        ratio(distinct.len(), total)
    }
}

fn keyword_factor(text: &[String], keywords: &[String]) -> f64 {
    if keywords.is_empty() {
        return 1.0;
    }
    // A keyword of several words must occur as consecutive words.
    let is_in = |keyword: &&String| {
        let parts: Vec<String> = words(keyword).collect();
        !parts.is_empty() && text.windows(parts.len()).any(|run| run == parts)
    };
    (1.0 + ratio(keywords.iter().filter(is_in).count(), keywords.len())) / 2.0
}

#[allow(clippy::cast_precision_loss, reason = "no answer has 2^53 words")]
fn ratio(part: usize, total: usize) -> f64 {
    part as f64 / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repeated_token_at_the_limit_is_degenerate() {
        let sentence = "You can reset the password on the sign-in page, below the second field. ";
        for (text, expected) in [
            ("!".repeat(20), true),
            ("!".repeat(19), false),
            (" the".repeat(500), true),
            ("ない".repeat(300), true),
            (format!("{sentence}{}", "\n".repeat(100)), true),
            (format!("{}{}", sentence.repeat(3), "!".repeat(100)), false),
            (format!("{}done.", " the".repeat(500)), false),
            // The same sentence again and again is left to the score.
            (sentence.repeat(50), false),
            (
                format!(
                    "{}|---|---|---|---|---|---|---|---|---|---|",
                    sentence.repeat(2)
                ),
                false,
            ),
            ("".into(), false),
        ] {
            assert_eq!(
                is_degenerate(&text, FinishReason::Length),
                expected,
                "{text:?}"
            );
            assert!(
                !is_degenerate(&text, FinishReason::Stop),
                "not cut off at the limit: {text:?}"
            );
        }
    }

    #[test]
    fn good_answers_score_high_and_bad_ones_low() {
        let good = "You can reset the password on the sign-in page: choose the link below the second field, then open the mail \
                    that you get within a few minutes, and set a new one there. If none arrives, look into the spam folder.";
        let score = |text: &str| quality_score(text, &[]);
        assert_eq!(score(good), 1.0);
        assert_eq!(score(""), 0.0);
        assert_eq!(score(&good[..100]), 0.5, "half as long");
        assert!(
            (score(&good.repeat(4)) - 0.25).abs() < 0.02,
            "the same text four times"
        );
        assert!(score(&"no ".repeat(300)) < 0.01);
    }

    #[test]
    fn keywords_match_whole_words_ignoring_case() {
        let long = format!(
            "PLEASE call our sales-team, not the hotline. {}",
            "x".repeat(200)
        );
        let score = |keywords: &[&str]| {
            quality_score(
                &long,
                &keywords
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        for (keywords, expected) in [
            (&[][..], 1.0),
            (&["please"], 1.0),
            (&["plea"], 0.5),
            (&["please", "sorry"], 0.75),
            (&["Sales team"], 1.0),
            (&["team sales"], 0.5),
            (&["…"], 0.5),
        ] {
            assert_eq!(score(keywords), expected, "{keywords:?}");
        }
    }

    proptest! {
        #[test]
        fn score_is_between_0_and_1(text in "\\PC{0,80}", keywords in prop::collection::vec("\\PC{0,8}", 0..4)) {
            prop_assert!((0.0..=1.0).contains(&quality_score(&text, &keywords)));
        }

        /// Any token, and any prefix that is shorter than the repetition.
        #[test]
        fn any_repeated_token_is_degenerate(token in "\\PC{1,8}", prefix in "\\PC{0,20}", times in 100usize..300) {
            let text = prefix + &token.repeat(times);
            prop_assert!(is_degenerate(&text, FinishReason::Length), "{}", text);
        }
    }
}
