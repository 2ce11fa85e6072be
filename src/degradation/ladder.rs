//! The ladder: the ways to answer without a provider, best first, the last of which always answers.
//!
//! Pure and immutable: a reload makes a new ladder beside the old one, so an answer under way keeps the one it began with.

use std::sync::Arc;

use crate::chat::Source;
use crate::settings::DegradationSettings;

use super::replies::Replies;

/// An answer that no provider gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// Which rung it stands on; [`Source::degraded`] holds for it.
    pub source: Source,
    /// The answer, whole; never blank.
    pub text: Arc<str>,
    /// The age of a saved answer, in seconds; none for what was never saved.
    pub age_s: Option<u64>,
}

impl Degraded {
    fn of(source: Source, text: &Arc<str>) -> Self {
        Self { source, text: Arc::clone(text), age_s: None }
    }
}

/// All that can answer without a provider. Cannot fail, waits for nobody, takes time linear in the question.
#[derive(Clone, Debug)]
pub struct Ladder {
    replies: Replies,
    fallback: Arc<str>,
}

impl Ladder {
    /// A ladder of these replies. The replies' own fallback goes before `fallback`, and that, unless it is blank, before
    /// [`DegradationSettings::FALLBACK`].
    pub fn new(replies: Replies, fallback: &str) -> Self {
        let said = Some(fallback.trim()).filter(|text| !text.is_empty());
        let fallback = replies
            .fallback()
            .cloned()
            .unwrap_or_else(|| said.unwrap_or(DegradationSettings::FALLBACK).into());
        Self { replies, fallback }
    }

    /// The fixed text alone: needs no file and no settings.
    pub fn of_last_resort() -> Self {
        Self::new(Replies::default(), "")
    }

    /// Answers, from the best rung that can. This chain is the one place where the order of the rungs stands.
    pub fn answer(&self, question: &str) -> Degraded {
        self.template(question).unwrap_or_else(|| self.fixed())
    }

    fn template(&self, question: &str) -> Option<Degraded> {
        let text = self.replies.find(question)?;
        Some(Degraded::of(Source::Template, text))
    }

    fn fixed(&self) -> Degraded {
        Degraded::of(Source::Fallback, &self.fallback)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn ladder(file: &str, fallback: &str) -> Ladder {
        Ladder::new(Replies::parse("replies.toml", file).unwrap(), fallback)
    }

    #[test]
    fn a_template_goes_before_the_fixed_text() {
        let ladder = ladder("[[reply]]\nmatch = ['price']\ntext = 'See /pricing.'", "Later.");
        let answer = ladder.answer("What is the PRICE?");
        assert_eq!((answer.source, &*answer.text), (Source::Template, "See /pricing."));
        let answer = ladder.answer("Who are you?");
        assert_eq!((answer.source, &*answer.text), (Source::Fallback, "Later."));
        assert_eq!(answer.age_s, None);
    }

    #[test]
    fn the_nearest_fallback_that_says_something_is_said() {
        let said = |file, settings| ladder(file, settings).answer("x").text.to_string();
        assert_eq!(said("fallback = 'file'", "settings"), "file");
        assert_eq!(said("", "settings"), "settings");
        assert_eq!(said("", " \n"), DegradationSettings::FALLBACK);
        assert_eq!(&*Ladder::of_last_resort().answer("x").text, DegradationSettings::FALLBACK);
    }

    proptest! {
        #[test]
        fn every_question_gets_a_labelled_answer(question in any::<String>(), fallback in any::<String>()) {
            static BUILT_IN: LazyLock<Replies> = LazyLock::new(Replies::built_in);
            for replies in [Replies::default(), BUILT_IN.clone()] {
                let answer = Ladder::new(replies, &fallback).answer(&question);
                prop_assert!(!answer.text.trim().is_empty());
                prop_assert!(answer.source.degraded());
            }
        }
    }

    #[test]
    fn ten_thousand_answers_from_two_hundred_rules() {
        let mut file = String::new();
        for n in 0..100 {
            file += &format!("[[reply]]\nmatch = ['topic{n}', 'two words {n}']\ntext = 'word {n}'\n");
            file += &format!(
                "[[reply]]\npattern = '(?i)order\\s+(no|number)\\.?\\s*{n}\\b'\ntext = 'pattern {n}'\n"
            );
        }
        let ladder = ladder(&file, "Later.");
        let filler = "I would like to know more about this, please.";
        let questions = [
            format!("{filler} topic99?"),
            format!("{filler} Order No. 99!"),
            format!("{filler} nothing of it"),
        ];
        let started = std::time::Instant::now();
        let hits = (0..10_000)
            .zip(questions.iter().cycle())
            .filter(|(_, question)| ladder.answer(question).source == Source::Template)
            .count();
        println!("10,000 answers from 200 rules: {:?}", started.elapsed());
        assert_eq!(hits, 6_667);
    }
}
