//! Ranks sentences by how much they have in common: TextRank (Mihalcea and Tarau, "TextRank: Bringing Order into Texts", 2004).

use std::collections::HashMap;

/// The damping of the paper.
const DAMPING: f32 = 0.85;

/// It settles within some twenty rounds.
const ROUNDS: usize = 30;

/// The places of the best sentences, in ascending order; none where no two have a word in common. Takes time by the square of the number of
/// sentences.
pub(super) fn best(sentences: &[Vec<String>], count: usize) -> Option<Vec<usize>> {
    let edges = edges(sentences);
    if edges.iter().all(Vec::is_empty) {
        return None;
    }
    let scores = scores(&edges);
    let mut places: Vec<usize> = (0..scores.len()).collect();
    let score = |at: &usize| scores.get(*at).copied().unwrap_or_default();
    // Of equals the first.
    places.sort_by(|a, b| score(b).total_cmp(&score(a)));
    places.truncate(count);
    places.sort_unstable();
    Some(places)
}

/// To each sentence the others that it shares words with, and how much.
fn edges(sentences: &[Vec<String>]) -> Vec<Vec<(usize, f32)>> {
    let mut numbers = HashMap::new();
    let mut sets: Vec<Vec<usize>> = Vec::with_capacity(sentences.len());
    for words in sentences {
        let mut set = Vec::with_capacity(words.len());
        for word in words {
            let next = numbers.len();
            set.push(*numbers.entry(word.as_str()).or_insert(next));
        }
        set.sort_unstable();
        set.dedup();
        sets.push(set);
    }
    let mut edges = vec![Vec::new(); sets.len()];
    for (from, out) in edges.iter_mut().enumerate() {
        let Some(one) = sets.get(from) else {
            continue;
        };
        for (to, other) in sets.iter().enumerate().filter(|(to, _)| *to != from) {
            let shared = shared(one, other);
            if shared > 0 {
                out.push((to, similarity(shared, one.len(), other.len())));
            }
        }
    }
    edges
}

/// How many numbers two ascending lists share.
fn shared(one: &[usize], other: &[usize]) -> usize {
    let mut other = other.iter().peekable();
    let mut count = 0;
    for number in one {
        while other.next_if(|next| *next < number).is_some() {}
        count += usize::from(other.next_if(|next| *next == number).is_some());
    }
    count
}

/// Shared words over the logarithms of both lengths, each one longer than in the paper, where two sentences of one word would divide by nothing.
#[allow(clippy::cast_precision_loss, reason = "a weight")]
fn similarity(shared: usize, one: usize, other: usize) -> f32 {
    shared as f32 / (((one + 1) as f32).ln() + ((other + 1) as f32).ln())
}

/// PageRank with weights.
fn scores(edges: &[Vec<(usize, f32)>]) -> Vec<f32> {
    let totals: Vec<f32> = edges
        .iter()
        .map(|out| out.iter().map(|(_, weight)| weight).sum())
        .collect();
    let mut scores = vec![1.0; edges.len()];
    for _ in 0..ROUNDS {
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
