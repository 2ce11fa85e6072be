//! Who said which part of the text that stands. Pure.

use std::sync::Arc;

use crate::chat::Source;

/// Who says a part of a turn's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The attempt; 0 for what no provider says.
    pub attempt: u32,
    /// Its provider; none for what no provider says.
    pub provider: Option<Arc<str>>,
    /// Its model.
    pub model: Option<Arc<str>>,
    /// The kind of answer.
    pub source: Source,
}

/// The speakers of a text, each from the byte on where it took over.
#[derive(Debug, Default)]
pub struct Speakers(Vec<(usize, Speaker)>);

impl Speakers {
    /// From byte `at` on it is this one.
    pub fn take_over(&mut self, at: usize, speaker: Speaker) {
        self.0.retain(|(from, _)| *from < at);
        if self.0.last().is_none_or(|(_, last)| *last != speaker) {
            self.0.push((at, speaker));
        }
    }

    /// Who said byte `at`, and where the next one took over.
    pub fn at(&self, at: usize) -> Option<(&Speaker, Option<usize>)> {
        let next = self.0.iter().position(|(from, _)| *from > at).unwrap_or(self.0.len());
        let (_, speaker) = self.0.get(next.checked_sub(1)?)?;
        Some((speaker, self.0.get(next).map(|(from, _)| *from)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn speaker(attempt: u32) -> Speaker {
        Speaker { attempt, provider: None, model: None, source: Source::Ai }
    }

    #[test]
    fn each_byte_has_its_speaker() {
        let mut speakers = Speakers::default();
        assert_eq!(speakers.at(0), None);
        for (at, attempt) in [(0, 1), (4, 1), (7, 2), (9, 3)] {
            speakers.take_over(at, speaker(attempt));
        }
        for (at, attempt, next) in
            [(0, 1, Some(7)), (6, 1, Some(7)), (7, 2, Some(9)), (9, 3, None), (99, 3, None)]
        {
            assert_eq!(speakers.at(at), Some((&speaker(attempt), next)), "{at}");
        }
        // A text that is voided is nobody's.
        speakers.take_over(0, speaker(4));
        assert_eq!(speakers.at(8), Some((&speaker(4), None)));
    }
}
