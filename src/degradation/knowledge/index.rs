//! Finds the passage that answers a question, if one does.
//!
//! Pure. Passages are ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009), whose
//! term weights are those of the `bm25` crate. Rank alone always finds something, so the best is given only where it holds enough of
//! what the question is about: to say nothing is better than to answer beside the point.

use std::collections::HashMap;
use std::fmt;

use bm25::{Embedder, EmbedderBuilder, Tokenizer};

use super::passages::Passage;
use crate::degradation::words::{self, Language};

/// Words of a title count as if they stood so often in the text.
const TITLE_WEIGHT: usize = 2;

/// Questions about more things than this are not answered by a passage: no passage holds enough of them.
const TERMS: usize = 32;

/// How much of a question is looked at, in bytes; the rest is passed over.
const EXAMINED_BYTES: usize = 16 * 1024;

/// How much of a question a passage must hold: the share of its words, weighted by how rare they are in the folder. A word that
/// stands nowhere in the folder weighs most. Set where the labelled questions of the tests part.
const FLOOR: f32 = 0.65;

/// What the rank of a passage in another language than the question's is multiplied with.
const FOREIGN: f32 = 0.5;

/// Words that were parted already.
#[derive(Default)]
struct Parted;

impl Tokenizer for Parted {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// Where a word stands, and how much it weighs there.
struct Place {
    passage: u32,
    weight: f32,
}

/// Passages and their words. Takes about three times the text's size in memory; a query takes time linear in the number of places
/// of its words.
pub struct Index {
    passages: Vec<Passage>,
    /// As many as passages.
    languages: Vec<Option<Language>>,
    /// By the word's hash: a clash of two words costs a wrong rank at worst.
    places: HashMap<u32, Vec<Place>>,
    embedder: Embedder<u32, Parted>,
}

impl Default for Index {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("passages", &self.passages.len())
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Reads the passages once. Of more than `u32::MAX` the rest is left out.
    pub fn of(passages: Vec<Passage>) -> Self {
        let parted: Vec<String> = passages.iter().map(parted).collect();
        let words: usize = parted.iter().map(|text| text.split(' ').count()).sum();
        #[allow(clippy::cast_precision_loss, reason = "a mean")]
        let mean = words as f32 / passages.len().max(1) as f32;
        let embedder = EmbedderBuilder::<u32, Parted>::with_avgdl(mean).build();
        let mut places: HashMap<u32, Vec<Place>> = HashMap::new();
        for (passage, text) in (0_u32..).zip(&parted) {
            for word in embedder.embed(text).0 {
                let places = places.entry(word.index).or_default();
                // A word comes as often as it stands there, each time with its whole weight.
                if places.last().is_none_or(|last| last.passage != passage) {
                    places.push(Place {
                        passage,
                        weight: word.value,
                    });
                }
            }
        }
        places.values_mut().for_each(Vec::shrink_to_fit);
        let languages = passages
            .iter()
            .map(|passage| words::language(&passage.text))
            .collect();
        Self {
            passages,
            languages,
            places,
            embedder,
        }
    }

    /// How many passages there are.
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    /// The passages, in the order of the documents.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// The passage that answers best; none where none holds enough of the question.
    pub fn find(&self, question: &str) -> Option<&Passage> {
        let (question, _) = question.split_at(question.floor_char_boundary(EXAMINED_BYTES));
        let terms = self.terms(question)?;
        let asked: f32 = terms.iter().map(|(_, rarity)| rarity).sum();
        let mut found = vec![Found::default(); self.passages.len()];
        for (term, rarity) in &terms {
            for place in self.places.get(term).into_iter().flatten() {
                if let Some(found) = usize::try_from(place.passage)
                    .ok()
                    .and_then(|at| found.get_mut(at))
                {
                    found.score += rarity * place.weight;
                    found.held += rarity;
                }
            }
        }
        let language = words::language(question);
        for (found, theirs) in found.iter_mut().zip(&self.languages) {
            if language.is_some() && theirs.is_some() && language != *theirs {
                found.score *= FOREIGN;
            }
        }
        let best = found
            .iter()
            .zip(&self.passages)
            .filter(|(found, _)| found.held >= FLOOR * asked);
        // Of equals the first, so that the same question has the same answer.
        best.rev()
            .max_by(|(a, _), (b, _)| a.rank().total_cmp(&b.rank()))
            .map(|(_, passage)| passage)
    }

    /// Whether the beginning of a passage, asked for, finds a passage: always, unless the index is broken.
    pub fn finds_itself(&self) -> bool {
        let mut asked = self.passages.iter().map(|passage| {
            passage
                .text
                .split_whitespace()
                .take(TERMS / 2)
                .collect::<Vec<_>>()
                .join(" ")
        });
        asked
            .find(|question| self.terms(question).is_some())
            .is_none_or(|question| self.find(&question).is_some())
    }

    /// What a question is about, each word once, with how rare it is here (the idf of BM25); none where it is nothing or too much.
    fn terms(&self, question: &str) -> Option<Vec<(u32, f32)>> {
        let words = words::telling(question);
        let mut terms: Vec<u32> = self
            .embedder
            .embed(&words.join(" "))
            .0
            .into_iter()
            .map(|word| word.index)
            .collect();
        terms.sort_unstable();
        terms.dedup();
        let few = !self.is_empty() && (1..=TERMS).contains(&terms.len());
        few.then(|| {
            terms
                .into_iter()
                .map(|term| (term, self.rarity(term)))
                .collect()
        })
    }

    #[allow(clippy::cast_precision_loss, reason = "a weight")]
    fn rarity(&self, term: u32) -> f32 {
        let all = self.passages.len() as f32;
        let with = self.places.get(&term).map_or(0, Vec::len) as f32;
        (1.0 + (all - with + 0.5) / (with + 0.5)).ln()
    }
}

#[derive(Clone, Default)]
struct Found {
    score: f32,
    /// Of the question's weight, how much stands here.
    held: f32,
}

impl Found {
    /// BM25 prefers a short passage that says one word to a long one that says all; what a question asks for is all.
    fn rank(&self) -> f32 {
        self.score * self.held
    }
}

fn parted(passage: &Passage) -> String {
    let mut words = words::telling(&passage.text);
    let title = words::telling(&passage.title);
    for _ in 0..TITLE_WEIGHT {
        words.extend_from_slice(&title);
    }
    words.join(" ")
}

#[cfg(test)]
impl Index {
    /// What it takes in memory, in bytes, counted without the allocator's own.
    pub(super) fn bytes(&self) -> usize {
        let places: usize = self
            .places
            .values()
            .map(|places| places.capacity() * size_of::<Place>())
            .sum();
        let entries = self.places.capacity() * (size_of::<(u32, Vec<Place>)>() + 1);
        let texts: usize = self
            .passages
            .iter()
            .map(|one| one.text.len() + size_of::<Passage>())
            .sum();
        places + entries + texts
    }
}
