//! Normalization of questions, so that equal questions have equal keys.

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::degradation::text::casefold::casefold;

/// Punctuation that is removed at the end of a question. Covers several scripts, after NFKC.
const FINAL_PUNCTUATION: &[char] = &[
    '.', '?', '!', ',', ';', ':', '。', '、', '؟', '؛', '۔', '।', '…', '·',
];

/// Normalizes a question: NFKC (wide digits, ligatures, composed accents), case folding, single
/// spaces, no final punctuation. Returns `None` if nothing is left.
///
/// This also unifies some questions that differ, such as `2⁵` and `25`, or `US` and `us`. It is the
/// price of treating `ＨＥＬＬＯ` and `hello` as one.
pub fn normalize_question(question: &str) -> Option<String> {
    // Case folding can undo the composition, so compose again (Unicode standard, 3.13, D147).
    let folded = nfkc(&casefold(&nfkc(question)).collect::<String>());
    let spaced = folded
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    let mut normal = spaced.collect::<Vec<_>>().join(" ");
    normal.truncate(
        normal
            .trim_end_matches(|c: char| c == ' ' || FINAL_PUNCTUATION.contains(&c))
            .len(),
    );
    (!normal.is_empty()).then_some(normal)
}

pub(crate) fn nfkc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc()
        .normalize(text)
        .into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_questions_have_one_form() {
        for (left, right) in [
            ("What is Rust?", "  what   IS\trust "),
            ("What is Rust?", "What is Rust?!"),
            ("What is Rust", "What is Rust ..."),
            ("What is Rust?", "Ｗｈａｔ ｉｓ Ｒｕｓｔ？"),
            ("Où est le café ?", "où est le cafe\u{301}"),
            ("Wie heißt die Straße?", "WIE HEISST DIE STRASSE?"),
            ("Wie heißt die Straße?", "WIE HEIẞT DIE STRAẞE?"),
            ("ΟΔΟΣ", "οδός".replace('ό', "ο").as_str()),
            ("ﬁnd it", "find it"),
            ("它是什么？", "它是什么"),
            ("line\r\none", "line one"),
        ] {
            assert_eq!(
                normalize_question(left),
                normalize_question(right),
                "{left} and {right}"
            );
        }
    }

    #[test]
    fn different_questions_have_different_forms() {
        for (left, right) in [
            ("What is C?", "What is C++?"),
            ("What is C?", "What is C#?"),
            ("Is it 1.5?", "Is it 15?"),
            ("resume", "résumé"),
            ("one two", "onetwo"),
            ("Is 5 > 3?", "Is 5 < 3?"),
            ("Price?", "Price in $?"),
        ] {
            assert_ne!(
                normalize_question(left),
                normalize_question(right),
                "{left} and {right}"
            );
        }
        assert_eq!(
            [
                normalize_question(""),
                normalize_question(" \n\u{0}"),
                normalize_question("?!… ")
            ],
            [None, None, None]
        );
    }

    #[test]
    fn normalizing_any_character_twice_changes_nothing() {
        // Planes 3 and above have no cased scripts and no compatibility forms.
        for c in '\0'..='\u{2FFFF}' {
            if let Some(normal_form) = normalize_question(&format!("a{c}b")) {
                assert_eq!(
                    normalize_question(&normal_form).unwrap(),
                    normal_form,
                    "{c}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(question in any::<String>()) {
            if let Some(normal_form) = normalize_question(&question) {
                prop_assert_eq!(normalize_question(&normal_form), Some(normal_form));
            }
        }
    }
}
