//! How good an answer looks, without understanding it. Pure.
//!
//! **One token repeated to the limit** is no answer, although it ended in good order: a failed attempt.
//!
//! **The score**, from 0 to 1, is for comparing providers that get the same questions, and for seeing one of them get worse. It is the product
//! of its parts, so that one that is nil spoils the whole:
//!
//! - length: the share of two hundred characters that it has, at most 1. Shorter answers are not wrong, but a provider that gives short ones
//!   more often than the others, or than it used to, shows it here;
//! - repetition: the share of different ones among its runs of four words (one minus `seq-rep-4` of Welleck and others, "Neural Text
//!   Generation with Unlikelihood Training"); 1 where it is shorter than that;
//! - keywords: 1 where all of the operator's keywords are in it, as whole words in any case, falling to a half where none is; left out where
//!   there are none.

use std::collections::{HashMap, HashSet};

use crate::chat::Finish;

/// From so many characters on an answer is long enough.
const ENOUGH: usize = 200;

/// Words in a run whose repetition counts.
const RUN: usize = 4;

/// The longest token that is looked for, in bytes: the longest of common vocabularies that are not mere white space.
const TOKEN_BYTES: usize = 32;

/// The least number of times that a token must come in a row before it is one token repeated: lines and tables have dozens of dashes, and
/// they are not what an answer ends in.
const TIMES: usize = 20;

/// Whether an answer was cut off at the token limit while it repeated one token.
pub fn is_one_token_to_the_limit(text: &str, finish: Finish) -> bool {
    finish == Finish::Length && repeats(text)
}

/// Whether one token makes up the second half of the text, or more of it, up to its end.
fn repeats(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=TOKEN_BYTES).any(|token| {
        let Some(earlier) = bytes
            .len()
            .checked_sub(token)
            .and_then(|length| bytes.get(..length))
        else {
            return false;
        };
        let alike = bytes
            .iter()
            .rev()
            .zip(earlier.iter().rev())
            .take_while(|(one, other)| one == other);
        let run = token + alike.count();
        run / token >= TIMES && run >= bytes.len().div_ceil(2)
    })
}

/// The score of an answer, 0 to 1.
pub fn score(text: &str, keywords: &[String]) -> f64 {
    let words: Vec<String> = words(text).collect();
    let length = share(text.trim().chars().count().min(ENOUGH), ENOUGH);
    length * different(&words) * expected(&words, keywords)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

fn different(words: &[String]) -> f64 {
    // By number: a run's words are hashed once each, not once in every run that they are in.
    let mut numbers = HashMap::with_capacity(words.len());
    let number = |word| {
        let next = numbers.len();
        *numbers.entry(word).or_insert(next)
    };
    let words: Vec<usize> = words.iter().map(number).collect();
    let runs = words.windows(RUN);
    let all = runs.len();
    let mut seen = HashSet::with_capacity(all);
    seen.extend(runs);
    if all == 0 {
        1.0
    } else {
        share(seen.len(), all)
    }
}

fn expected(text: &[String], keywords: &[String]) -> f64 {
    if keywords.is_empty() {
        return 1.0;
    }
    // A keyword of several words is in the text where they stand in a row.
    let is_in = |keyword: &&String| {
        let parts: Vec<String> = words(keyword).collect();
        !parts.is_empty() && text.windows(parts.len()).any(|run| run == parts)
    };
    (1.0 + share(keywords.iter().filter(is_in).count(), keywords.len())) / 2.0
}

#[allow(clippy::cast_precision_loss, reason = "no answer has 2^53 words")]
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_token_repeated_to_the_limit_is_found() {
        let sentence = "You can reset the password on the sign-in page, below the second field. ";
        for (text, poor) in [
            ("!".repeat(20), true),
            ("!".repeat(19), false),
            (" the".repeat(500), true),
            ("ない".repeat(300), true),
            (format!("{sentence}{}", "\n".repeat(100)), true),
            (format!("{}{}", sentence.repeat(3), "!".repeat(100)), false),
            (format!("{}done.", " the".repeat(500)), false),
            // Not one token, but the same sentence again and again: the score has that.
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
                is_one_token_to_the_limit(&text, Finish::Length),
                poor,
                "{text:?}"
            );
            assert!(
                !is_one_token_to_the_limit(&text, Finish::Stop),
                "it was not the limit that ended it: {text:?}"
            );
        }
    }

    #[test]
    fn a_good_answer_scores_high_and_a_bad_one_low() {
        let good = "You can reset the password on the sign-in page: choose the link below the second field, then open the mail \
                    that you get within a few minutes, and set a new one there. If none arrives, look into the spam folder.";
        let score = |text: &str| score(text, &[]);
        assert_eq!(score(good), 1.0);
        assert_eq!(score(""), 0.0);
        assert_eq!(score(&good[..100]), 0.5, "half as long");
        assert!(
            (score(&good.repeat(4)) - 0.25).abs() < 0.02,
            "four times the same"
        );
        assert!(score(&"no ".repeat(300)) < 0.01);
    }

    #[test]
    fn keywords_count_as_whole_words_in_any_case() {
        let long = format!(
            "PLEASE call our sales-team, not the hotline. {}",
            "x".repeat(200)
        );
        let score = |keywords: &[&str]| {
            score(
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
        fn the_score_is_between_nil_and_one(text in "\\PC{0,80}", keywords in prop::collection::vec("\\PC{0,8}", 0..4)) {
            prop_assert!((0.0..=1.0).contains(&score(&text, &keywords)));
        }

        /// Whatever the token is, and whatever comes before it, as long as it is less.
        #[test]
        fn any_token_repeated_is_found(token in "\\PC{1,8}", before in "\\PC{0,20}", times in 100usize..300) {
            let text = before + &token.repeat(times);
            prop_assert!(is_one_token_to_the_limit(&text, Finish::Length), "{}", text);
        }
    }
}
