//! The ladder: the ways to answer without a provider, best first, the last of which always answers.
//!
//! Pure and immutable: a reload makes a new ladder beside the old one, so an answer under way keeps the one it began with.

use std::sync::Arc;

use crate::chat::Source;
use crate::settings::DegradationSettings;

use super::knowledge;
use super::knowledge::index::Index;
use super::replies::Replies;
use super::request::{self, Request};
use super::summary;

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
        Self {
            source,
            text: Arc::clone(text),
            age_s: None,
        }
    }
}

/// A rung: what an answer is made of. Below them all lies the fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// The template replies.
    Template,
    /// What can be quoted: a passage of the knowledge, the key sentences of a text that the message carries.
    Extractive,
}

impl Rung {
    /// All of them, best first. This is the one place where their order stands.
    pub const ALL: [Self; 2] = [Self::Template, Self::Extractive];
}

/// A message, and what it asks for.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'q> {
    question: &'q str,
    request: Request<'q>,
}

impl<'q> Heard<'q> {
    /// Reads a message, once for all rungs.
    pub fn of(question: &'q str) -> Self {
        Self {
            question,
            request: request::read(question),
        }
    }
}

/// All that can answer without a provider. Cannot fail, waits for nobody, takes time linear in the question and the knowledge.
#[derive(Clone, Debug)]
pub struct Ladder {
    replies: Replies,
    knowledge: Arc<Index>,
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
        Self {
            replies,
            knowledge: Arc::default(),
            fallback,
        }
    }

    /// The same with these passages in place of its own.
    pub fn with_knowledge(self, knowledge: Arc<Index>) -> Self {
        Self { knowledge, ..self }
    }

    /// The passages that answer.
    pub fn knowledge(&self) -> &Arc<Index> {
        &self.knowledge
    }

    /// The fixed text alone: needs no file and no settings.
    pub fn of_last_resort() -> Self {
        Self::new(Replies::default(), "")
    }

    /// The template replies.
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Answers, from the best rung that can.
    pub fn answer(&self, question: &str) -> Degraded {
        let heard = Heard::of(question);
        Rung::ALL
            .into_iter()
            .find_map(|rung| self.answer_from(rung, heard))
            .unwrap_or_else(|| self.fixed())
    }

    /// The answer of this rung alone; none where it has none.
    pub fn answer_from(&self, rung: Rung, heard: Heard<'_>) -> Option<Degraded> {
        match rung {
            Rung::Template => self.template(heard),
            Rung::Extractive => self.extract(heard),
        }
    }

    fn template(&self, Heard { question, request }: Heard<'_>) -> Option<Degraded> {
        // Of a message that carries a text the wish is the question: a reply about prices is no answer to a text that has one in it.
        let asked = if let Request::Summary { wish, .. } = request {
            wish
        } else {
            question
        };
        let text = self.replies.find(asked)?;
        Some(Degraded::of(Source::Template, text))
    }

    fn extract(&self, Heard { question, request }: Heard<'_>) -> Option<Degraded> {
        let text = match request {
            Request::Summary { wish, text } => summary::of(wish, text)?,
            Request::Question => knowledge::answer(&self.knowledge, question)?,
            Request::Work => return None,
        };
        Some(Degraded::of(Source::Extractive, &text.into()))
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
    use crate::degradation::knowledge::passages;

    fn ladder(file: &str, fallback: &str) -> Ladder {
        Ladder::new(Replies::parse("replies.toml", file).unwrap(), fallback)
    }

    #[test]
    fn a_template_goes_before_the_fixed_text() {
        let ladder = ladder(
            "[[reply]]\nmatch = ['price']\ntext = 'See /pricing.'",
            "Later.",
        );
        let answer = ladder.answer("What is the PRICE?");
        assert_eq!(
            (answer.source, &*answer.text),
            (Source::Template, "See /pricing.")
        );
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
        assert_eq!(
            &*Ladder::of_last_resort().answer("x").text,
            DegradationSettings::FALLBACK
        );
    }

    proptest! {
        #[test]
        fn every_question_gets_a_labelled_answer(question in any::<String>(), fallback in any::<String>()) {
            static BUILT_IN: LazyLock<Replies> = LazyLock::new(Replies::built_in);
            for replies in [Replies::default(), BUILT_IN.clone()] {
                let ladder = Ladder::new(replies, &fallback).with_knowledge(Arc::clone(knowing("").knowledge()));
                let answer = ladder.answer(&question);
                prop_assert!(!answer.text.trim().is_empty());
                prop_assert!(answer.source.degraded());
            }
        }
    }

    const RETURNS: &str = "# Returns\nSend unused items back within 30 days.\n# Care\nDust the shade with a dry cloth.";
    const HARBOUR: &str = "The harbour was dug in 1827. A canal links the harbour with the sea. The price of that was high.";

    fn knowing(file: &str) -> Ladder {
        ladder(file, "Later.")
            .with_knowledge(Arc::new(Index::of(passages::cut("shop/faq.md", RETURNS))))
    }

    #[test]
    fn a_passage_goes_before_the_fixed_text_and_names_its_source() {
        let answer = knowing("").answer("Within how many days can I send items back?");
        let expected = "Send unused items back within 30 days.\n\n— Returns (shop/faq.md)";
        assert_eq!(
            (answer.source, &*answer.text),
            (Source::Extractive, expected)
        );
        for question in [
            "Who is the president?",
            "Write a poem about unused items",
            "",
        ] {
            assert_eq!(
                knowing("").answer(question).source,
                Source::Fallback,
                "{question}"
            );
        }
        let templates = knowing("[[reply]]\nmatch = ['items']\ntext = 'See /items.'");
        assert_eq!(
            templates.answer("Can I send items back?").source,
            Source::Template
        );
    }

    #[test]
    fn a_text_is_summed_up_unless_a_template_is_for_the_wish() {
        let question = format!("Summarise this: {HARBOUR}");
        for file in ["", "[[reply]]\nmatch = ['price']\ntext = 'See /pricing.'"] {
            let answer = knowing(file).answer(&question);
            assert_eq!(answer.source, Source::Extractive);
            assert!(
                answer.text.ends_with("\n\n- The harbour was dug in 1827."),
                "{}",
                answer.text
            );
        }
        let wish = knowing("[[reply]]\nmatch = ['summarise']\ntext = 'Not now.'");
        assert_eq!(wish.answer(&question).source, Source::Template);
    }

    #[test]
    fn the_longest_message_is_answered_within_a_tenth_of_a_second() {
        let ladder = Ladder::new(Replies::built_in(), "")
            .with_knowledge(Arc::clone(knowing("").knowledge()));
        let text: String = (0..)
            .map(|n| format!("Ship {n} lies in harbour {} with steel. ", n % 9))
            .take(220)
            .collect();
        let text = text.get(..7_980).unwrap();
        for question in [
            text.to_owned(),
            format!("Summarise this: {text}"),
            "a. ".repeat(2_666),
            "\u{e4}b ".repeat(2_666),
        ] {
            // The best of some: others may be at work on the same machine.
            let time = || {
                let started = std::time::Instant::now();
                ladder.answer(&question);
                started.elapsed()
            };
            let best = (0..5).map(|_| time()).min().unwrap();
            println!("8,000 characters: {best:?}");
            assert!(best < std::time::Duration::from_millis(100), "{best:?}");
        }
    }

    #[test]
    fn ten_thousand_answers_from_two_hundred_rules() {
        let mut file = String::new();
        for n in 0..100 {
            file +=
                &format!("[[reply]]\nmatch = ['topic{n}', 'two words {n}']\ntext = 'word {n}'\n");
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
