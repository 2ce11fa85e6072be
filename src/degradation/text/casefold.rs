//! Case folding for text that is compared. Pure.

/// Folds case by lowering, raising and lowering it again: the nearest to full Unicode case folding
/// in the standard library. It unifies ß, ẞ and SS as well as σ and ς, and is idempotent.
pub fn casefold(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
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
}
