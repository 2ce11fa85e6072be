//! The cache key: a hash of everything an answer depends on. Equal questions have equal keys. Pure.

use icu_normalizer::ComposingNormalizerBorrowed;
use sha2::{Digest, Sha256};

use crate::domain::ConversationId;
use crate::store::CacheKey;

/// Hashed into every key. Raise it when answers saved by earlier versions must not be found.
const KEY_FORMAT: &str = "failsoft saved answer 1";

/// Punctuation that is removed at the end of a question. Covers several scripts, after NFKC.
const FINAL_PUNCTUATION: &[char] = &[
    '.', '?', '!', ',', ';', ':', '。', '、', '؟', '؛', '۔', '।', '…', '·',
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    /// Every conversation that asks the same question, as far as `cache.share` allows.
    Shared,
    Conversation(ConversationId),
}

/// Returns the key of the answer to `question` under this system prompt, or `None` if the question
/// has no words.
///
/// The hash covers all parts completely, each with its length before it, so that no two different
/// lists of parts give the same input.
pub fn cache_key(scope: CacheScope, system_prompt: &str, question: &str) -> Option<CacheKey> {
    let question = normalize_question(question)?;
    let conversation = match scope {
        CacheScope::Shared => String::new(),
        CacheScope::Conversation(id) => id.to_string(),
    };
    let parts = [KEY_FORMAT, &conversation, system_prompt, &question];
    Some(hash_parts(&parts))
}

fn hash_parts(parts: &[&str]) -> CacheKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    CacheKey(hash.finalize().into())
}

/// Normalizes a question: NFKC (wide digits, ligatures, composed accents), case folding, single
/// spaces, no final punctuation. Returns `None` if nothing is left.
///
/// This also unifies some questions that differ, such as `2⁵` and `25`, or `US` and `us`. It is the
/// price of treating `ＨＥＬＬＯ` and `hello` as one.
pub fn normalize_question(question: &str) -> Option<String> {
    // Case folding can undo the composition, so compose again (Unicode standard, 3.13, D147).
    let folded = nfkc(&casefold(&nfkc(question)).collect::<String>());
    let words = folded
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    let spaced = words.collect::<Vec<_>>().join(" ");
    let normal = spaced.trim_end_matches(|c| c == ' ' || FINAL_PUNCTUATION.contains(&c));
    (!normal.is_empty()).then(|| normal.to_owned())
}

pub(super) fn nfkc(text: &str) -> String {
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    nfkc.normalize(text).into_owned()
}

/// Folds case by lowering, raising and lowering it again: the nearest to full Unicode case folding
/// in the standard library. It unifies ß, ẞ and SS as well as σ and ς, and is idempotent.
pub fn casefold(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folding_is_idempotent_for_every_character() {
        for c in '\0'..=char::MAX {
            let once: String = casefold(c.encode_utf8(&mut [0; 4])).collect();
            assert_eq!(casefold(&once).collect::<String>(), once, "{c}");
        }
    }

    #[test]
    fn texts_that_differ_only_in_case_fold_to_the_same() {
        for (left, right) in [
            ("Straße", "STRASSE"),
            ("STRAẞE", "Strasse"),
            ("ΟΔΟΣ", "οδος"),
            ("Οδος", "οδοσ"),
        ] {
            assert!(casefold(left).eq(casefold(right)), "{left} and {right}");
        }
    }

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

    fn own(n: u8) -> CacheScope {
        CacheScope::Conversation(ConversationId::from_random([n; 16]))
    }

    #[test]
    fn every_part_changes_the_key() {
        let mut keys = HashSet::new();
        for scope in [CacheScope::Shared, own(1), own(2)] {
            for system in ["", "Be kind.", "Be kind. "] {
                for question in ["a", "b", "ab"] {
                    assert!(keys.insert(cache_key(scope, system, question).unwrap()));
                }
            }
        }
        assert_eq!(
            cache_key(own(1), "s", "What is Rust?"),
            cache_key(own(1), "s", "what is rust")
        );
        assert_eq!(cache_key(own(1), "s", "?"), None);
    }

    #[test]
    fn parts_split_differently_have_different_keys() {
        let cuts = [["ab", "c"], ["a", "bc"], ["", "abc"], ["abc", ""]];
        let keys: HashSet<_> = cuts.iter().map(|parts| hash_parts(parts)).collect();
        assert_eq!(keys.len(), cuts.len());
        // Questions are not truncated: the last character of a long one counts.
        let long = "x".repeat(100_000);
        assert_ne!(
            cache_key(own(1), "", &format!("{long}a")),
            cache_key(own(1), "", &format!("{long}b"))
        );
    }

    #[test]
    fn key_is_stable_across_releases() {
        let known = cache_key(CacheScope::Shared, "Be kind.", "What is Rust?")
            .unwrap()
            .to_string();
        assert_eq!(known, KNOWN);
    }

    const KNOWN: &str = "599d2926f3241c710bbad5169747ee2144d7458b8c29f8286f9d5e0e233981ed";
}
