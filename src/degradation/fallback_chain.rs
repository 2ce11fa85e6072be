//! The fallback chain: the ways to answer without a provider, best first. The last one always
//! answers.
//!
//! Pure and immutable: a reload builds a new chain, and a running answer keeps the old one.

use std::sync::Arc;

use crate::config::DegradationSettings;
use crate::domain::AnswerSource;

use super::intent::{Intent, detect_intent};
use super::knowledge;
use super::knowledge::index::PassageIndex;
use super::replies::Replies;
use super::summary;

/// An answer given without a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackAnswer {
    /// The step that gave it; [`AnswerSource::is_degraded`] is `true` for it.
    pub source: AnswerSource,
    /// Never blank.
    pub text: Arc<str>,
    /// The age of a cached answer, in seconds. `None` if it does not come from the cache.
    pub age_s: Option<u64>,
}

impl FallbackAnswer {
    fn new(source: AnswerSource, text: Arc<str>) -> Self {
        Self {
            source,
            text,
            age_s: None,
        }
    }
}

/// The ways to answer without a provider.
///
/// Answering cannot fail, waits for nothing and takes time linear in the question and the
/// knowledge.
#[derive(Clone, Debug)]
pub struct FallbackChain {
    replies: Replies,
    knowledge: Arc<PassageIndex>,
    fallback: Arc<str>,
}

impl FallbackChain {
    /// Creates a chain without knowledge.
    ///
    /// The fixed text is the first that is not blank: the fallback of `replies`, `fallback`,
    /// [`DegradationSettings::DEFAULT_FALLBACK_TEXT`].
    pub fn new(replies: Replies, fallback: &str) -> Self {
        let default = match fallback.trim() {
            "" => DegradationSettings::DEFAULT_FALLBACK_TEXT,
            configured => configured,
        };
        let own = replies.fallback.clone();
        Self {
            fallback: own.unwrap_or_else(|| default.into()),
            replies,
            knowledge: Arc::default(),
        }
    }

    pub fn with_knowledge(self, knowledge: Arc<PassageIndex>) -> Self {
        Self { knowledge, ..self }
    }

    pub fn knowledge(&self) -> &Arc<PassageIndex> {
        &self.knowledge
    }

    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Answers with the first step that can.
    pub fn answer(&self, question: &str) -> FallbackAnswer {
        let intent = detect_intent(question);
        self.template_reply(question, intent)
            .or_else(|| self.extract(question, intent))
            .unwrap_or_else(|| {
                FallbackAnswer::new(AnswerSource::Fallback, Arc::clone(&self.fallback))
            })
    }

    /// Answers with a text of the replies file.
    pub(super) fn template_reply(
        &self,
        question: &str,
        intent: Intent<'_>,
    ) -> Option<FallbackAnswer> {
        // Beside a text to summarise, only the instruction is matched: a price somewhere in the
        // text does not make it a question about prices.
        let asked = match intent {
            Intent::Summarize { instruction, .. } => instruction,
            _ => question,
        };
        let text = self.replies.find(asked)?;
        Some(FallbackAnswer::new(
            AnswerSource::Template,
            Arc::clone(text),
        ))
    }

    /// Quotes a passage of the knowledge, or the key sentences of a text in the message.
    pub(super) fn extract(&self, question: &str, intent: Intent<'_>) -> Option<FallbackAnswer> {
        let text = match intent {
            Intent::Summarize { instruction, text } => summary::summarize(instruction, text)?,
            Intent::Question => knowledge::answer(&self.knowledge, question)?,
            Intent::Generate => return None,
        };
        Some(FallbackAnswer::new(AnswerSource::Extractive, text.into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::degradation::knowledge::passages;

    fn ladder(file: &str, fallback: &str) -> FallbackChain {
        FallbackChain::new(Replies::parse("replies.toml", file).unwrap(), fallback)
    }

    #[test]
    fn template_is_preferred_to_the_fixed_text() {
        let chain = ladder(
            "[[reply]]\nmatch = ['price']\ntext = 'See /pricing.'",
            "Later.",
        );
        let answer = chain.answer("What is the PRICE?");
        assert_eq!(
            (answer.source, &*answer.text),
            (AnswerSource::Template, "See /pricing.")
        );
        let answer = chain.answer("Who are you?");
        assert_eq!(
            (answer.source, &*answer.text),
            (AnswerSource::Fallback, "Later.")
        );
        assert_eq!(answer.age_s, None);
    }

    #[test]
    fn first_fallback_that_is_not_blank_is_used() {
        let fallback = |file, settings| ladder(file, settings).answer("x").text.to_string();
        assert_eq!(fallback("fallback = 'file'", "settings"), "file");
        assert_eq!(fallback("", "settings"), "settings");
        assert_eq!(
            fallback("", " \n"),
            DegradationSettings::DEFAULT_FALLBACK_TEXT
        );
        assert_eq!(
            &*FallbackChain::new(Replies::default(), "").answer("x").text,
            DegradationSettings::DEFAULT_FALLBACK_TEXT
        );
    }

    proptest! {
        #[test]
        fn every_question_gets_an_answer_with_a_degraded_source(question in any::<String>(), fallback in any::<String>()) {
            static BUILT_IN: LazyLock<Replies> = LazyLock::new(Replies::built_in);
            for replies in [Replies::default(), BUILT_IN.clone()] {
                let chain = FallbackChain::new(replies, &fallback).with_knowledge(Arc::clone(ladder_with_knowledge("").knowledge()));
                let answer = chain.answer(&question);
                prop_assert!(!answer.text.trim().is_empty());
                prop_assert!(answer.source.is_degraded());
            }
        }
    }

    const RETURNS: &str = "# Returns\nSend unused items back within 30 days.\n# Care\nDust the shade with a dry cloth.";
    const HARBOUR: &str = "The harbour was dug in 1827. A canal links the harbour with the sea. The price of that was high.";

    fn ladder_with_knowledge(file: &str) -> FallbackChain {
        ladder(file, "Later.").with_knowledge(Arc::new(PassageIndex::build(
            passages::split_passages("shop/faq.md", RETURNS),
        )))
    }

    #[test]
    fn passage_is_preferred_to_the_fixed_text_and_names_its_source() {
        let answer =
            ladder_with_knowledge("").answer("Within how many days can I send items back?");
        let expected = "Send unused items back within 30 days.\n\n— Returns (shop/faq.md)";
        assert_eq!(
            (answer.source, &*answer.text),
            (AnswerSource::Extractive, expected)
        );
        for question in [
            "Who is the president?",
            "Write a poem about unused items",
            "",
        ] {
            assert_eq!(
                ladder_with_knowledge("").answer(question).source,
                AnswerSource::Fallback,
                "{question}"
            );
        }
        let templates = ladder_with_knowledge("[[reply]]\nmatch = ['items']\ntext = 'See /items.'");
        assert_eq!(
            templates.answer("Can I send items back?").source,
            AnswerSource::Template
        );
    }

    #[test]
    fn text_is_summarised_unless_a_template_matches_the_instruction() {
        let question = format!("Summarise this: {HARBOUR}");
        for file in ["", "[[reply]]\nmatch = ['price']\ntext = 'See /pricing.'"] {
            let answer = ladder_with_knowledge(file).answer(&question);
            assert_eq!(answer.source, AnswerSource::Extractive);
            assert!(
                answer.text.ends_with("\n\n- The harbour was dug in 1827."),
                "{}",
                answer.text
            );
        }
        let instruction =
            ladder_with_knowledge("[[reply]]\nmatch = ['summarise']\ntext = 'Not now.'");
        assert_eq!(instruction.answer(&question).source, AnswerSource::Template);
    }

    #[test]
    fn longest_message_is_answered_within_100_ms() {
        let chain = FallbackChain::new(Replies::built_in(), "")
            .with_knowledge(Arc::clone(ladder_with_knowledge("").knowledge()));
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
            // The best of several runs: the machine may be busy.
            let time = || {
                let started = std::time::Instant::now();
                chain.answer(&question);
                started.elapsed()
            };
            let best = (0..5).map(|_| time()).min().unwrap();
            println!("8,000 characters: {best:?}");
            assert!(best < std::time::Duration::from_millis(100), "{best:?}");
        }
    }

    #[test]
    fn ten_thousand_questions_are_answered_from_two_hundred_rules() {
        let mut file = String::new();
        for n in 0..100 {
            file +=
                &format!("[[reply]]\nmatch = ['topic{n}', 'two words {n}']\ntext = 'word {n}'\n");
            file += &format!(
                "[[reply]]\npattern = '(?i)order\\s+(no|number)\\.?\\s*{n}\\b'\ntext = 'pattern {n}'\n"
            );
        }
        let chain = ladder(&file, "Later.");
        let filler = "I would like to know more about this, please.";
        let questions = [
            format!("{filler} topic99?"),
            format!("{filler} Order No. 99!"),
            format!("{filler} nothing of it"),
        ];
        let started = std::time::Instant::now();
        let hits = (0..10_000)
            .zip(questions.iter().cycle())
            .filter(|(_, question)| chain.answer(question).source == AnswerSource::Template)
            .count();
        println!("10,000 answers from 200 rules: {:?}", started.elapsed());
        assert_eq!(hits, 6_667);
    }
}
