//! The guarantees of each turn under any faults. `Reader` checks more while it applies the frames:
//! their grammar, numbers without gaps, and that the shown text equals the text of `done`.

use std::collections::{BTreeMap, HashMap};

use super::super::*;
use super::visit::Visit;
use super::world::ServiceLimits;
use crate::config::MidStream;
use crate::domain::Done;
use crate::turn::attempt::CONTENT_FILTER_TEXT;

/// The time that store and actor timeouts may add to any other limit.
const SLACK: Duration = Duration::from_millis(1_500);

/// The texts that the providers can send.
#[derive(Default)]
pub struct ProviderTexts {
    /// By provider, each answer as it would be without a fault.
    pub full_texts: BTreeMap<&'static str, Vec<String>>,
    /// The complete answers, each with its ending, which no other answer has.
    pub endings: HashMap<String, String>,
}

/// Panics if the turn breaks a guarantee.
pub fn check_turn(terms: &ServiceLimits, said: &ProviderTexts, visit: &Visit) {
    let done = visit.reader.done();
    assert!(visit.log.is_finished());
    assert!(done.attempts <= terms.max_attempts, "{done:?}");
    for (number, attempt) in (1..).zip(&done.tried) {
        assert_eq!(attempt.attempt, number);
    }
    assert!(ms(done.total_ms) <= terms.turn_limit + SLACK, "{done:?}");
    let succeeded = done
        .tried
        .iter()
        .filter(|attempt| attempt.outcome.as_str() == "ok")
        .count();
    match (done.source, done.finish) {
        (AnswerSource::Ai, FinishReason::Stop | FinishReason::Length) => {
            assert_eq!(succeeded, 1, "one attempt produced it: {done:?}");
            assert!(
                is_complete(terms, said, done),
                "a partial answer is passed off as complete: {done:?}"
            );
        }
        (AnswerSource::Ai, FinishReason::ContentFilter) => assert_eq!(succeeded, 1, "{done:?}"),
        (AnswerSource::Ai, FinishReason::Stopped | FinishReason::Interrupted) => {
            assert!(
                visit.abandoned,
                "interrupted, but nobody left or stopped it: {done:?}"
            );
            assert_eq!(succeeded, 0, "{done:?}");
        }
        _ => {
            assert_fallback(&visit.reader);
            assert_eq!(succeeded, 0, "{done:?}");
        }
    }
    for draft in &done.drafts {
        assert!(
            is_prefix(terms, said, &draft.provider, &draft.text),
            "mixed text in a draft: {draft:?}"
        );
    }
}

fn is_complete(terms: &ServiceLimits, said: &ProviderTexts, done: &Done) -> bool {
    match terms.mid_stream {
        MidStream::Restart => said.endings.contains_key(&*done.text),
        // A continued answer ends as a complete one does.
        MidStream::Continue => said.endings.values().any(|tail| done.text.ends_with(tail)),
    }
}

fn is_prefix(terms: &ServiceLimits, said: &ProviderTexts, provider: &str, text: &str) -> bool {
    let own = text.trim_end_matches("again ");
    let begins = |texts: &Vec<String>| texts.iter().any(|text| text.starts_with(own));
    match terms.mid_stream {
        MidStream::Restart => {
            said.full_texts.get(provider).is_some_and(begins) || text == CONTENT_FILTER_TEXT
        }
        // The provider is the last one that wrote; the text may be from several.
        MidStream::Continue => !text.is_empty(),
    }
}
