//! Finds the passage that answers a question, if one does.
//!
//! Pure. Passages are ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance
//! Framework: BM25 and Beyond", 2009), with the term weights of the `bm25` crate. A ranking always
//! has a first place, so the best passage only counts if it covers enough of the question: no
//! answer is better than one beside the point.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use bm25::{Embedder, EmbedderBuilder, Tokenizer};

use super::passages::Passage;
use crate::degradation::text::{self, Language};

/// Words of a title count as this many occurrences in the text.
const TITLE_WEIGHT: usize = 2;

/// Questions with more content words find no passage, since none would cover enough of them.
const MAX_QUERY_TERMS: usize = 32;

/// Longer questions are only examined up to this length, in bytes.
const MAX_QUESTION_BYTES: usize = 16 * 1024;

/// The share of a question's words that a passage must contain, weighted by their IDF in the
/// folder. A word that occurs nowhere in the folder weighs most. Tuned on the labelled questions.
const MIN_COVERAGE: f32 = 0.65;

/// Factor on the score of a passage in another language than the question.
const OTHER_LANGUAGE_FACTOR: f32 = 0.5;

/// A tokenizer for text that consists of terms separated by spaces.
#[derive(Default)]
struct PreTokenized;

impl Tokenizer for PreTokenized {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// An occurrence of a term in a passage.
struct Posting {
    passage: u32,
    weight: f32,
}

/// An inverted index of passages.
///
/// Takes about three times the memory of the text. A query takes time linear in the number of
/// postings of its terms.
pub struct PassageIndex {
    passages: Vec<Passage>,
    /// The detected language of each passage.
    languages: Vec<Option<Language>>,
    /// By the hash of the term. A collision of two terms at worst spoils a rank.
    postings: HashMap<u32, Vec<Posting>>,
    embedder: Embedder<u32, PreTokenized>,
}

impl Default for PassageIndex {
    fn default() -> Self {
        Self::build(Vec::new())
    }
}

impl fmt::Debug for PassageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassageIndex")
            .field("passages", &self.passages.len())
            .finish_non_exhaustive()
    }
}

impl PassageIndex {
    /// Indexes these passages; those beyond `u32::MAX` are ignored.
    pub fn build(passages: Vec<Passage>) -> Self {
        let texts: Vec<String> = passages.iter().map(indexed_text).collect();
        let words: usize = texts.iter().map(|text| text.split(' ').count()).sum();
        #[allow(clippy::cast_precision_loss, reason = "a mean")]
        let mean = words as f32 / passages.len().max(1) as f32;
        let embedder = EmbedderBuilder::<u32, PreTokenized>::with_avgdl(mean).build();
        let mut postings: HashMap<u32, Vec<Posting>> = HashMap::new();
        for (passage, text) in (0_u32..).zip(&texts) {
            for word in embedder.embed(text).0 {
                let postings = postings.entry(word.index).or_default();
                // The embedder repeats a term for each occurrence, each time with the full weight.
                if postings.last().is_none_or(|last| last.passage != passage) {
                    postings.push(Posting {
                        passage,
                        weight: word.value,
                    });
                }
            }
        }
        postings.values_mut().for_each(Vec::shrink_to_fit);
        let languages = passages
            .iter()
            .map(|passage| text::detect_language(&passage.text))
            .collect();
        Self {
            passages,
            languages,
            postings,
            embedder,
        }
    }

    /// In the order of the documents.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// The passage that answers best. `None` if none covers enough of the question.
    pub fn find(&self, question: &str) -> Option<&Passage> {
        let (question, _) = question.split_at(question.floor_char_boundary(MAX_QUESTION_BYTES));
        let terms = self.query_terms(question)?;
        let total_idf: f32 = terms.iter().map(|(_, idf)| idf).sum();
        let mut scores = vec![PassageScore::default(); self.passages.len()];
        for (term, idf) in &terms {
            for posting in self.postings.get(term).into_iter().flatten() {
                if let Some(score) = usize::try_from(posting.passage)
                    .ok()
                    .and_then(|at| scores.get_mut(at))
                {
                    score.bm25 += idf * posting.weight;
                    score.coverage += idf;
                }
            }
        }
        let language = text::detect_language(question);
        for (score, passage_language) in scores.iter_mut().zip(&self.languages) {
            if language.is_some() && passage_language.is_some() && language != *passage_language {
                score.bm25 *= OTHER_LANGUAGE_FACTOR;
            }
        }
        let best = scores
            .iter()
            .zip(&self.passages)
            .filter(|(score, _)| score.coverage >= MIN_COVERAGE * total_idf);
        // Reversed, because `max_by` returns the last maximum: the earliest passage wins a tie.
        best.rev()
            .max_by(|(a, _), (b, _)| a.rank().total_cmp(&b.rank()))
            .map(|(_, passage)| passage)
    }

    /// Returns `true` if a passage finds an answer to its own beginning, as it does unless broken.
    pub fn self_test(&self) -> bool {
        let mut questions = self.passages.iter().map(|passage| {
            passage
                .text
                .split_whitespace()
                .take(MAX_QUERY_TERMS / 2)
                .collect::<Vec<_>>()
                .join(" ")
        });
        questions
            .find(|question| self.query_terms(question).is_some())
            .is_none_or(|question| self.find(&question).is_some())
    }

    /// The distinct terms of a question with their IDF. `None` if there are none or too many.
    fn query_terms(&self, question: &str) -> Option<Vec<(u32, f32)>> {
        let words = text::content_words(question).join(" ");
        let embedding = self.embedder.embed(&words).0;
        let terms: BTreeSet<u32> = embedding.into_iter().map(|word| word.index).collect();
        let is_valid = !self.passages.is_empty() && (1..=MAX_QUERY_TERMS).contains(&terms.len());
        let with_idf = terms.into_iter().map(|term| (term, self.idf(term)));
        is_valid.then(|| with_idf.collect())
    }

    /// The inverse document frequency of BM25.
    #[allow(clippy::cast_precision_loss, reason = "a weight")]
    fn idf(&self, term: u32) -> f32 {
        let total = self.passages.len() as f32;
        let with = self.postings.get(&term).map_or(0, Vec::len) as f32;
        (1.0 + (total - with + 0.5) / (with + 0.5)).ln()
    }
}

#[derive(Clone, Default)]
struct PassageScore {
    bm25: f32,
    /// The summed IDF of the question's terms that occur in the passage.
    coverage: f32,
}

impl PassageScore {
    /// Favours coverage: BM25 alone prefers a short passage with one term to a long one with all.
    fn rank(&self) -> f32 {
        self.bm25 * self.coverage
    }
}

fn indexed_text(passage: &Passage) -> String {
    let mut words = text::content_words(&passage.text);
    let title = text::content_words(&passage.title);
    for _ in 0..TITLE_WEIGHT {
        words.extend_from_slice(&title);
    }
    words.join(" ")
}

#[cfg(test)]
impl PassageIndex {
    /// The memory used, in bytes, without the allocator's overhead.
    pub(super) fn memory_bytes(&self) -> usize {
        let postings: usize = self
            .postings
            .values()
            .map(|postings| postings.capacity() * size_of::<Posting>())
            .sum();
        let entries = self.postings.capacity() * (size_of::<(u32, Vec<Posting>)>() + 1);
        let texts: usize = self
            .passages
            .iter()
            .map(|passage| passage.text.len() + size_of::<Passage>())
            .sum();
        postings + entries + texts
    }
}
