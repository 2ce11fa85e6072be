//! One case for all text that is compared. Pure.

/// The text in one case: down, up, down is the nearest to full case folding that the standard library has. It makes one of ß, ẞ and SS, of σ
/// and ς, and is its own.
pub fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_folded_is_its_own() {
        for c in '\0'..=char::MAX {
            let once: String = folded(c.encode_utf8(&mut [0; 4])).collect();
            assert_eq!(folded(&once).collect::<String>(), once, "{c}");
        }
    }

    #[test]
    fn what_differs_in_case_alone_is_one() {
        for (one, other) in [
            ("Straße", "STRASSE"),
            ("STRAẞE", "Strasse"),
            ("ΟΔΟΣ", "οδος"),
            ("Οδος", "οδοσ"),
        ] {
            assert!(folded(one).eq(folded(other)), "{one} and {other}");
        }
    }
}
