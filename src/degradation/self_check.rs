//! Checks without an outage that the fallback answers work, in time, from every step.
//!
//! The answer cache is read within the timeout of a turn. Each step gets a message that it must be
//! able to answer: the words of the replies, the beginning of a passage, a text to summarise. Then
//! the whole chain is asked and timed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::fallback_chain::{FallbackAnswer, FallbackChain};
use super::intent::detect_intent;
use crate::answer_cache::{AnswerCache, CACHE_READ_TIMEOUT, CacheProbeError};

/// Maximum time for an answer without a provider.
const ANSWER_DEADLINE: Duration = Duration::from_millis(100);

/// Attempts before an answer counts as slow, since the machine may just be busy.
const MAX_TRIES: usize = 3;

const SUMMARY_REQUEST: &str = "Please summarize this text:\n\nThe harbour was dug in 1827. A canal links the harbour with the sea. \
    Today the harbour handles steel, cars and grain.";

/// A question that hardly anything matches, one of the usual maximum length, one with a text.
fn sample_questions() -> [String; 3] {
    [
        "Does anybody hear this?".to_owned(),
        "Is this one long? ".repeat(400),
        SUMMARY_REQUEST.to_owned(),
    ]
}

/// Reads the answer cache and returns a message for the status if it fails.
///
/// `None` if it can be read in time. Waits for a hanging store up to the timeout of the probe.
pub(super) async fn check_cache(answer_cache: &AnswerCache) -> Option<String> {
    let mut last = Err(CacheProbeError::Timeout);
    for _ in 0..MAX_TRIES {
        last = answer_cache.probe().await;
        match last {
            Ok(took) if took <= CACHE_READ_TIMEOUT => return None,
            // A second read would hang as well.
            Err(CacheProbeError::Timeout) => break,
            Ok(_) | Err(CacheProbeError::Failed) => {}
        }
    }
    let what = if last == Err(CacheProbeError::Failed) {
        "cannot be read"
    } else {
        "are not read in time"
    };
    Some(format!(
        "Self-check: saved answers {what}; an outage is answered without them."
    ))
}

/// The failures of the chain, as messages for the status. Blocks while the questions are answered.
pub(super) fn check_chain(chain: &FallbackChain) -> Vec<String> {
    let checks: [(&str, &dyn Fn() -> bool); 3] = [
        ("the template replies do not find their own words", &|| {
            chain.replies().self_test()
        }),
        ("the knowledge does not find its own passages", &|| {
            chain.knowledge().self_test()
        }),
        ("a text is not summed up", &|| {
            let intent = detect_intent(SUMMARY_REQUEST);
            chain.extract(SUMMARY_REQUEST, intent).is_some()
        }),
    ];
    let failed = checks.into_iter().filter(|(_, check)| !passes(check));
    let mut failures: Vec<_> = failed
        .map(|(what, _)| format!("Self-check: {what}."))
        .collect();
    failures.extend(check_answers(
        |question| chain.answer(question),
        |question| slowest_step(chain, question),
    ));
    failures
}

/// Runs a check; a panic counts as a failure.
fn passes(check: impl Fn() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_default()
}

/// The failures over all sample questions. `slowest` names the step that takes the most time.
fn check_answers(
    answer: impl Fn(&str) -> FallbackAnswer,
    slowest: impl Fn(&str) -> &'static str,
) -> BTreeSet<String> {
    let failure = |question: &String| {
        for _ in 0..MAX_TRIES {
            let started = Instant::now();
            let what = match catch_unwind(AssertUnwindSafe(|| answer(question))) {
                Err(_) => "answering without a provider failed",
                Ok(reply) if reply.text.trim().is_empty() => {
                    "an answer without a provider was blank"
                }
                Ok(_) if started.elapsed() <= ANSWER_DEADLINE => return None,
                Ok(_) => continue,
            };
            return Some(format!("Self-check: {what}."));
        }
        let limit = ANSWER_DEADLINE.as_millis();
        let most = slowest(question);
        Some(format!(
            "Self-check: an answer without a provider took more than {limit} ms; most of it went to {most}."
        ))
    };
    sample_questions().iter().filter_map(failure).collect()
}

/// Names the step that takes the most time for this question.
fn slowest_step(chain: &FallbackChain, question: &str) -> &'static str {
    let intent = detect_intent(question);
    let time = |step: &dyn Fn() -> Option<FallbackAnswer>| {
        let started = Instant::now();
        let _ = catch_unwind(AssertUnwindSafe(step));
        started.elapsed()
    };
    let template = time(&|| chain.template_reply(question, intent));
    if template > time(&|| chain.extract(question, intent)) {
        "the template replies; look for a pattern that repeats much"
    } else {
        "the knowledge or the summary of a text"
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::CacheSettings;
    use crate::degradation::Replies;
    use crate::degradation::knowledge::{index::PassageIndex, passages};
    use crate::domain::AnswerSource;
    use crate::store::flaky::{FlakyStore, StoreFault};

    fn fallback(text: &str) -> FallbackAnswer {
        FallbackAnswer {
            source: AnswerSource::Fallback,
            text: text.into(),
            age_s: None,
        }
    }

    fn failures(answer: impl Fn(&str) -> FallbackAnswer) -> Vec<String> {
        check_answers(answer, |_| "a test").into_iter().collect()
    }

    #[test]
    fn intact_chain_passes() {
        assert_eq!(
            check_chain(&FallbackChain::new(Replies::default(), "")),
            [""; 0]
        );
        let index = PassageIndex::build(passages::split_passages(
            "a.md",
            "# The\nand\n# Tea\nPour the tea after four minutes.",
        ));
        let chain = FallbackChain::new(Replies::built_in(), "").with_knowledge(Arc::new(index));
        assert_eq!(check_chain(&chain), [""; 0]);
    }

    #[test]
    fn blank_failed_and_slow_answers_are_reported() {
        let blank = failures(|_| fallback(" \n"));
        assert_eq!(
            blank,
            ["Self-check: an answer without a provider was blank."]
        );
        let failed = failures(|_| panic!("on purpose"));
        assert_eq!(failed, ["Self-check: answering without a provider failed."]);
        let slow = failures(|_| {
            let until = Instant::now() + ANSWER_DEADLINE;
            while Instant::now() <= until {}
            fallback("late")
        });
        let expected = "Self-check: an answer without a provider took more than 100 ms; most of it went to a test.";
        assert_eq!(slow, [expected]);
        let once = std::cell::Cell::new(true);
        let slow_once = failures(|_| {
            let until = Instant::now() + ANSWER_DEADLINE;
            while once.get() && Instant::now() <= until {}
            once.set(false);
            fallback("later in time")
        });
        assert_eq!(slow_once, [""; 0]);
        assert!(!passes(|| panic!("on purpose")));
    }

    #[tokio::test(start_paused = true)]
    async fn unreadable_answer_cache_is_reported() {
        let store = Arc::new(FlakyStore::default());
        let answer_cache = AnswerCache::new(
            Arc::clone(&store) as _,
            CacheSettings::default(),
            "Be kind.".into(),
        );
        assert_eq!(check_cache(&answer_cache).await, None);
        for (trouble, expected) in [
            (
                StoreFault::Failing,
                "Self-check: saved answers cannot be read; ",
            ),
            (
                StoreFault::Slow(Duration::from_secs(9)),
                "Self-check: saved answers are not read in time; ",
            ),
        ] {
            store.set_fault(trouble);
            let message = check_cache(&answer_cache).await.unwrap_or_default();
            assert!(message.starts_with(expected), "{message}");
            store.set_fault(StoreFault::None);
            // By then the hanging read has returned.
            tokio::time::advance(Duration::from_secs(10)).await;
            while check_cache(&answer_cache).await.is_some() {
                tokio::task::yield_now().await;
            }
        }
    }
}
