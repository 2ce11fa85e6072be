//! What must be true of each turn, whatever befell it. That frames keep to the grammar, count up without a gap and show the text of `done`
//! is held by the reader as it applies them.

use std::collections::{BTreeMap, HashMap};

use super::super::*;
use super::visit::Visit;
use super::world::Terms;
use crate::chat::Done;
use crate::settings::MidStream;
use crate::turn::attempt::REFUSAL;

/// What the limits of stores and actors may add to any other.
const SLACK: Duration = Duration::from_millis(1_500);

/// What the providers can say.
#[derive(Default)]
pub struct Said {
    /// By provider, each answer as it would be without a fault.
    pub all: BTreeMap<&'static str, Vec<String>>,
    /// Answers that are proven whole, and what each of them ends with and no other.
    pub whole: HashMap<String, String>,
}

/// Panics where a promise is broken.
pub fn turn(terms: &Terms, said: &Said, visit: &Visit) {
    let done = visit.reader.done();
    assert!(visit.log.ended());
    assert!(done.attempts <= terms.max_attempts, "{done:?}");
    for (number, one) in (1..).zip(&done.tried) {
        assert_eq!(one.attempt, number);
    }
    assert!(ms(done.total_ms) <= terms.turn_limit + SLACK, "{done:?}");
    let whole = done
        .tried
        .iter()
        .filter(|one| one.outcome.as_str() == "ok")
        .count();
    match (done.source, done.finish) {
        (Source::Ai, Finish::Stop | Finish::Length) => {
            assert_eq!(whole, 1, "one attempt gave it: {done:?}");
            assert!(
                is_whole(terms, said, done),
                "a torn answer is passed off as whole: {done:?}"
            );
        }
        (Source::Ai, Finish::ContentFilter) => assert_eq!(whole, 1, "{done:?}"),
        (Source::Ai, Finish::Stopped | Finish::Interrupted) => {
            assert!(
                visit.abandoned,
                "cut, and nobody left or stopped it: {done:?}"
            );
            assert_eq!(whole, 0, "{done:?}");
        }
        _ => {
            assert_fallback(&visit.reader);
            assert_eq!(whole, 0, "{done:?}");
        }
    }
    for draft in &done.drafts {
        assert!(
            is_beginning(terms, said, &draft.provider, &draft.text),
            "mixed text in a draft: {draft:?}"
        );
    }
}

fn is_whole(terms: &Terms, said: &Said, done: &Done) -> bool {
    match terms.mid_stream {
        MidStream::Restart => said.whole.contains_key(&*done.text),
        // Gone on with: it ends as a whole one does, and only there.
        MidStream::Continue => said.whole.values().any(|tail| done.text.ends_with(tail)),
    }
}

fn is_beginning(terms: &Terms, said: &Said, provider: &str, text: &str) -> bool {
    let own = text.trim_end_matches("again ");
    let begins = |texts: &Vec<String>| texts.iter().any(|all| all.starts_with(own));
    match terms.mid_stream {
        MidStream::Restart => said.all.get(provider).is_some_and(begins) || text == REFUSAL,
        // Whose it is is the last who spoke; what stands may be of more than one.
        MidStream::Continue => !text.is_empty(),
    }
}
