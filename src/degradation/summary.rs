//! Extractive summaries: the key sentences of a text, quoted in their order.
//!
//! Pure. Sentences are selected, never written. They are ranked by common words: TextRank (Mihalcea
//! and Tarau, "TextRank: Bringing Order into Texts", 2004).

pub mod sentences;

use std::collections::{HashMap, HashSet};

use super::text::{self, Language};
use sentences::sentences;

/// Sentences that are compared; the rest of a longer text is ignored. Time grows with the square.
const MAX_COMPARED: usize = 150;

/// The most sentences of a summary, which also has at most a third of those of the text.
const MAX_SENTENCES: usize = 5;

/// A longer sentence is cut, in bytes.
const MAX_QUOTED_BYTES: usize = 500;

/// The damping factor of the paper.
const DAMPING: f32 = 0.85;

/// The scores converge within about twenty iterations.
const ITERATIONS: usize = 30;

/// Returns the key sentences of a text, one a line, under a heading in the language of the
/// instruction, or else of the text. `None` if the text has no sentence.
pub fn summarize(instruction: &str, text: &str) -> Option<String> {
    let mut seen = HashSet::new();
    let candidates: Vec<&str> = sentences(text)
        .filter(|sentence| seen.insert(*sentence))
        .take(MAX_COMPARED)
        .collect();
    let count = candidates.len().div_ceil(3).min(MAX_SENTENCES);
    let terms: Vec<Vec<String>> = candidates
        .iter()
        .map(|sentence| text::content_words(sentence))
        .collect();
    // Without common words the first sentences: a text mostly starts with what it is about.
    let best = top_sentences(&terms, count).unwrap_or_else(|| (0..count).collect());
    let chosen: Vec<String> = best
        .iter()
        .filter_map(|position| candidates.get(*position))
        .map(|sentence| list_item(sentence))
        .collect();
    (!chosen.is_empty()).then(|| format!("{}\n\n{}", heading(instruction, text), chosen.join("\n")))
}

fn heading(instruction: &str, text: &str) -> &'static str {
    match text::detect_language(instruction).or_else(|| text::detect_language(text)) {
        Some(Language::German) => "Schlüsselsätze Ihres Textes, ohne KI ausgewählt:",
        Some(Language::Spanish) => "Frases clave de su texto, elegidas sin IA:",
        Some(Language::French) => "Phrases clés de votre texte, choisies sans IA :",
        Some(Language::English) | None => "Key sentences of your text, chosen without AI:",
    }
}

/// Formats a sentence as one line of a list.
fn list_item(sentence: &str) -> String {
    let line = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= MAX_QUOTED_BYTES {
        return format!("- {line}");
    }
    let (head, _) = line.split_at(line.floor_char_boundary(MAX_QUOTED_BYTES));
    format!("- {head}…")
}

/// Returns the positions of the best sentences, in ascending order. `None` if no two sentences
/// share a word.
///
/// Takes time quadratic in the number of sentences.
fn top_sentences(sentences: &[Vec<String>], count: usize) -> Option<Vec<usize>> {
    let edges = build_graph(sentences);
    if edges.iter().all(Vec::is_empty) {
        return None;
    }
    let scores = pagerank(&edges);
    let mut positions: Vec<usize> = (0..scores.len()).collect();
    let score = |position: &usize| scores.get(*position).copied().unwrap_or_default();
    // The sort is stable: of equal scores the earlier sentence wins.
    positions.sort_by(|a, b| score(b).total_cmp(&score(a)));
    positions.truncate(count);
    positions.sort_unstable();
    Some(positions)
}

/// For each sentence, the other sentences with common words and their similarity.
fn build_graph(sentences: &[Vec<String>]) -> Vec<Vec<(usize, f32)>> {
    let mut word_ids = HashMap::new();
    let mut sets: Vec<Vec<usize>> = Vec::with_capacity(sentences.len());
    for words in sentences {
        let mut set = Vec::with_capacity(words.len());
        for word in words {
            let next = word_ids.len();
            set.push(*word_ids.entry(word.as_str()).or_insert(next));
        }
        set.sort_unstable();
        set.dedup();
        sets.push(set);
    }
    let mut edges = vec![Vec::new(); sets.len()];
    for (from, out) in edges.iter_mut().enumerate() {
        let Some(own) = sets.get(from) else {
            continue;
        };
        for (to, other) in sets.iter().enumerate().filter(|(to, _)| *to != from) {
            let shared = count_shared(own, other);
            if shared > 0 {
                out.push((to, similarity(shared, own.len(), other.len())));
            }
        }
    }
    edges
}

/// Counts the numbers that two ascending lists have in common.
fn count_shared(left: &[usize], right: &[usize]) -> usize {
    let mut right = right.iter().peekable();
    let mut count = 0;
    for number in left {
        while right.next_if(|next| *next < number).is_some() {}
        count += usize::from(right.next_if(|next| *next == number).is_some());
    }
    count
}

/// Common words over the sum of the logarithms of both lengths. Each length is increased by one:
/// with the formula of the paper, two sentences of one word would divide by zero.
#[allow(clippy::cast_precision_loss, reason = "a weight")]
fn similarity(shared: usize, left: usize, right: usize) -> f32 {
    shared as f32 / (((left + 1) as f32).ln() + ((right + 1) as f32).ln())
}

/// Weighted PageRank over the similarity graph.
fn pagerank(edges: &[Vec<(usize, f32)>]) -> Vec<f32> {
    let totals: Vec<f32> = edges
        .iter()
        .map(|out| out.iter().map(|(_, weight)| weight).sum())
        .collect();
    let mut scores = vec![1.0; edges.len()];
    for _ in 0..ITERATIONS {
        let mut next = vec![1.0 - DAMPING; edges.len()];
        for ((out, total), score) in edges.iter().zip(&totals).zip(&scores) {
            for (to, weight) in out {
                if let Some(next) = next.get_mut(*to) {
                    *next += DAMPING * weight / total * score;
                }
            }
        }
        scores = next;
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The harbour of Ghent was dug in 1827. Birds like it there. A canal links the harbour of Ghent with the sea. \
        Today the harbour handles steel, cars and grain. The canal is being widened, so that larger ships reach the harbour. \
        Somebody sells waffles.";

    #[test]
    fn sentences_that_share_most_words_are_quoted_in_their_order() {
        let summary = summarize("Summarise this:", TEXT).unwrap();
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
    fn first_sentences_are_quoted_if_none_share_a_word() {
        let summary = summarize(
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
    fn heading_is_in_the_language_of_the_instruction() {
        for (instruction, begins) in [
            ("Fass das bitte zusammen:", "Schlüssel"),
            ("Resume este texto:", "Frases"),
            ("Peux-tu résumer ce texte ?", "Phrases"),
            ("tl;dr", "Key"),
        ] {
            let summary = summarize(instruction, TEXT).unwrap();
            assert!(summary.starts_with(begins), "{summary}");
        }
        assert_eq!(summarize("Summarise:", " \n"), None);
    }

    #[test]
    fn summary_length_is_bounded() {
        let long = summarize("", &"word ".repeat(2_000)).unwrap();
        assert!(long.ends_with('…') && long.len() < 600);
        let many: String = (0..2_000)
            .map(|n| format!("Sentence {n} on ships. "))
            .collect();
        assert_eq!(
            summarize("", &many).unwrap().lines().count(),
            2 + MAX_SENTENCES
        );
        assert_eq!(
            summarize("", &"The same. ".repeat(50))
                .unwrap()
                .lines()
                .count(),
            3
        );
    }
}
