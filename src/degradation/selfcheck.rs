//! Walks the way down without an outage: does it answer, in time, and from every rung that should?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::ladder::{Degraded, Ladder};

/// How long an answer without a provider may take.
const LIMIT: Duration = Duration::from_millis(100);

/// How often a slow answer is tried again: a busy machine is no broken rung.
const TRIES: usize = 3;

/// One that hardly anything matches, one that is as long as messages usually may be.
fn questions() -> [String; 2] {
    ["Does anybody hear this?".to_owned(), "Is this one long? ".repeat(400)]
}

/// What is broken, in sentences for the status. Blocks as long as the answers take.
pub(super) fn walk(ladder: &Ladder) -> Vec<String> {
    let mut broken = answers(|question| ladder.answer(question));
    if !catch_unwind(AssertUnwindSafe(|| ladder.knowledge().finds_itself())).unwrap_or_default() {
        broken.push("Self-check: the knowledge does not find its own passages.".to_owned());
    }
    broken
}

fn answers(answer: impl Fn(&str) -> Degraded) -> Vec<String> {
    let mut broken: Vec<_> = questions().iter().filter_map(|question| broken_by(&answer, question)).collect();
    broken.dedup();
    broken
}

fn broken_by(answer: impl Fn(&str) -> Degraded, question: &str) -> Option<String> {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let started = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| answer(question))) {
            Err(_) => return Some("Self-check: answering without a provider failed.".to_owned()),
            Ok(said) if said.text.trim().is_empty() => {
                return Some("Self-check: an answer without a provider was blank.".to_owned());
            }
            Ok(_) => best = best.min(started.elapsed()),
        }
        if best <= LIMIT {
            return None;
        }
    }
    Some(format!("Self-check: an answer without a provider took more than {} ms.", LIMIT.as_millis()))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chat::Source;
    use crate::degradation::Replies;
    use crate::degradation::knowledge::{index::Index, passages};

    fn said(text: &str) -> Degraded {
        Degraded { source: Source::Fallback, text: text.into(), age_s: None }
    }

    #[test]
    fn a_whole_ladder_passes() {
        assert_eq!(walk(&Ladder::of_last_resort()), [""; 0]);
        let index = Index::of(passages::cut("a.md", "# The\nand\n# Tea\nPour the tea after four minutes."));
        let ladder = Ladder::new(Replies::built_in(), "").with_knowledge(Arc::new(index));
        assert_eq!(walk(&ladder), [""; 0]);
    }

    #[test]
    fn a_broken_rung_is_told() {
        let blank = answers(|_| said(" \n"));
        assert_eq!(blank, ["Self-check: an answer without a provider was blank."]);
        let failed = answers(|_| panic!("on purpose"));
        assert_eq!(failed, ["Self-check: answering without a provider failed."]);
        let slow = answers(|_| {
            let until = Instant::now() + LIMIT;
            while Instant::now() <= until {}
            said("late")
        });
        assert_eq!(slow, ["Self-check: an answer without a provider took more than 100 ms."]);
        let once = std::cell::Cell::new(true);
        let slow_once = answers(|_| {
            let until = Instant::now() + LIMIT;
            while once.get() && Instant::now() <= until {}
            once.set(false);
            said("later in time")
        });
        assert_eq!(slow_once, [""; 0]);
    }
}
