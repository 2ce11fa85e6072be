//! Ranks sentences by common words: TextRank (Mihalcea and Tarau, "TextRank: Bringing Order into
//! Texts", 2004).

use std::collections::HashMap;

/// The damping factor of the paper.
const DAMPING: f32 = 0.85;

/// The scores converge within about twenty iterations.
const ITERATIONS: usize = 30;

/// Returns the positions of the best sentences, in ascending order. `None` if no two sentences
/// share a word.
///
/// Takes time quadratic in the number of sentences.
pub(super) fn top_sentences(sentences: &[Vec<String>], count: usize) -> Option<Vec<usize>> {
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
