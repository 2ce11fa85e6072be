//! One form for questions that are asked alike.

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::degradation::case::folded;

/// What ends a sentence and may be left out: of several scripts, after compatibility composition.
const FINAL: &[char] = &[
    '.', '?', '!', ',', ';', ':', '。', '、', '؟', '؛', '۔', '।', '…', '·',
];

/// The question without what makes no difference: compatibility forms (NFKC: wide digits, ligatures, composed accents), case, the amount of
/// white space, and final punctuation. None where nothing is left.
///
/// Some differences that make one are lost with them (`2⁵` and `25`, `US` and `us`): the price of hearing one question in `ＨＥＬＬＯ` and `hello`.
pub fn normal(question: &str) -> Option<String> {
    // Folding can undo the composition, so it is composed again (Unicode standard, 3.13, D147).
    let folded = compose(&folded(&compose(question)).collect::<String>());
    let spaced = folded
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    let mut normal = spaced.collect::<Vec<_>>().join(" ");
    normal.truncate(
        normal
            .trim_end_matches(|c: char| c == ' ' || FINAL.contains(&c))
            .len(),
    );
    (!normal.is_empty()).then_some(normal)
}

/// The text in Unicode's form NFKC.
pub(super) fn compose(text: &str) -> String {
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
    fn what_is_asked_alike_has_one_form() {
        for (one, other) in [
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
            assert_eq!(normal(one), normal(other), "{one} and {other}");
        }
    }

    #[test]
    fn what_differs_stays_different() {
        for (one, other) in [
            ("What is C?", "What is C++?"),
            ("What is C?", "What is C#?"),
            ("Is it 1.5?", "Is it 15?"),
            ("resume", "résumé"),
            ("one two", "onetwo"),
            ("Is 5 > 3?", "Is 5 < 3?"),
            ("Price?", "Price in $?"),
        ] {
            assert_ne!(normal(one), normal(other), "{one} and {other}");
        }
        assert_eq!(
            [normal(""), normal(" \n\u{0}"), normal("?!… ")],
            [None, None, None]
        );
    }

    #[test]
    fn a_normal_form_of_any_character_is_its_own() {
        // No script with case, and no form of compatibility, stands behind these.
        for c in '\0'..='\u{2FFFF}' {
            if let Some(normal_form) = normal(&format!("a{c}b")) {
                assert_eq!(normal(&normal_form).unwrap(), normal_form, "{c}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(question in any::<String>()) {
            if let Some(normal_form) = normal(&question) {
                prop_assert_eq!(normal(&normal_form), Some(normal_form));
            }
        }
    }
}
