//! The key sentences of a text: what can be said of it without understanding it.
//!
//! Pure. Nothing is written, sentences are chosen and quoted in their order.

mod rank;
pub mod sentences;

use std::collections::HashSet;

use super::words::{self, Language};
use sentences::sentences;

/// How many sentences are compared with each other; of a longer text the first. The time goes with the square of it.
const COMPARED: usize = 150;

/// The most sentences of a summary, which takes a third of the text at most.
const KEPT: usize = 5;

/// The longest sentence that is quoted whole, in bytes.
const QUOTED: usize = 500;

/// The key sentences of a text, one a line under a line that says what they are, in the language of the wish, else the text's. None for a
/// text without a sentence.
pub fn of(wish: &str, text: &str) -> Option<String> {
    let mut seen = HashSet::new();
    let all: Vec<&str> = sentences(text)
        .filter(|one| seen.insert(*one))
        .take(COMPARED)
        .collect();
    let count = all.len().div_ceil(3).min(KEPT);
    let told: Vec<Vec<String>> = all.iter().map(|one| words::telling(one)).collect();
    // Where no sentence has to do with another, the first ones: a text mostly begins with what it is about.
    let best = rank::best(&told, count).unwrap_or_else(|| (0..count).collect());
    let chosen: Vec<String> = best
        .iter()
        .filter_map(|at| all.get(*at))
        .map(|one| quoted(one))
        .collect();
    (!chosen.is_empty()).then(|| format!("{}\n\n{}", heading(wish, text), chosen.join("\n")))
}

fn heading(wish: &str, text: &str) -> &'static str {
    match words::language(wish).or_else(|| words::language(text)) {
        Some(Language::German) => "Schlüsselsätze Ihres Textes, ohne KI ausgewählt:",
        Some(Language::Spanish) => "Frases clave de su texto, elegidas sin IA:",
        Some(Language::French) => "Phrases clés de votre texte, choisies sans IA :",
        Some(Language::English) | None => "Key sentences of your text, chosen without AI:",
    }
}

/// A sentence on one line of a list.
fn quoted(sentence: &str) -> String {
    let line = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= QUOTED {
        return format!("- {line}");
    }
    let (head, _) = line.split_at(line.floor_char_boundary(QUOTED));
    format!("- {head}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The harbour of Ghent was dug in 1827. Birds like it there. A canal links the harbour of Ghent with the sea. \
        Today the harbour handles steel, cars and grain. The canal is being widened, so that larger ships reach the harbour. \
        Somebody sells waffles.";

    #[test]
    fn the_sentences_that_share_most_with_the_others_are_quoted_in_their_order() {
        let summary = of("Summarise this:", TEXT).unwrap();
        let lines: Vec<_> = summary.lines().collect();
        assert_eq!(
            lines,
            [
                "Key sentences of your text, chosen without AI:",
                "",
                "- The harbour of Ghent was dug in 1827.",
                "- A canal links the harbour of Ghent with the sea."
            ]
        );
    }

    #[test]
    fn without_anything_in_common_the_first_sentences_are_quoted() {
        let summary = of(
            "TL;DR",
            "Cats purr. Rivers flow. Clocks tick. Bread smells.",
        )
        .unwrap();
        assert!(
            summary.ends_with("AI:\n\n- Cats purr.\n- Rivers flow."),
            "{summary}"
        );
    }

    #[test]
    fn the_heading_is_in_the_language_of_the_wish() {
        for (wish, begins) in [
            ("Fass das bitte zusammen:", "Schlüssel"),
            ("Resume este texto:", "Frases"),
            ("Peux-tu résumer ce texte ?", "Phrases"),
            ("tl;dr", "Key"),
        ] {
            let summary = of(wish, TEXT).unwrap();
            assert!(summary.starts_with(begins), "{summary}");
        }
        assert_eq!(of("Summarise:", " \n"), None);
    }

    #[test]
    fn every_text_has_a_bounded_summary() {
        let long = of("", &"word ".repeat(2_000)).unwrap();
        assert!(long.ends_with('…') && long.len() < 600);
        let many: String = (0..2_000)
            .map(|n| format!("Sentence {n} on ships. "))
            .collect();
        assert_eq!(of("", &many).unwrap().lines().count(), 2 + KEPT);
        assert_eq!(of("", &"The same. ".repeat(50)).unwrap().lines().count(), 3);
    }
}
