//! Visitors never see each other's words.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// A word for each visitor that the other never uses.
const CANARIES: [&str; 2] = ["blue heron", "grey otter"];

#[derive(Clone, Copy, Debug)]
struct Step {
    visitor: usize,
    in_new_conversation: bool,
    question: usize,
    /// The message contains the visitor's word.
    has_canary: bool,
    is_outage: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let parts = (
        0..2_usize,
        prop::bool::weighted(0.2),
        0..12_usize,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    );
    parts.prop_map(
        |(visitor, in_new_conversation, question, has_canary, is_outage)| Step {
            visitor,
            in_new_conversation,
            question,
            has_canary,
            is_outage,
        },
    )
}

#[tokio::test]
async fn visitors_never_see_each_others_words_in_ten_thousand_turns() {
    for share in [
        CacheSharing::Never,
        CacheSharing::Repeated,
        CacheSharing::Always,
    ] {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let small = CacheSettings {
            max_entries: 200,
            ..settings(share)
        };
        let (_, cache) = new_cache(small);
        // Each visitor's conversation: its number and its text so far.
        let mut conversations = [(0, String::new()), (1, String::new())];
        let mut next_number = 2;
        let mut hits = 0;
        for turn in 0..10_000 {
            let step = step().new_tree(&mut runner).unwrap().current();
            let canary = CANARIES[step.visitor];
            let other = CANARIES[1 - step.visitor];
            let (number, history) = &mut conversations[step.visitor];
            if step.in_new_conversation {
                *number = next_number;
                history.clear();
                next_number += 1;
            }
            let case = if turn % 2 == 0 {
                "What is number"
            } else {
                "WHAT  is number"
            };
            let own_word = if step.has_canary { canary } else { "" };
            let question = format!("{case} {}{own_word}?", step.question);
            let asker = if history.is_empty() {
                first_message(*number)
            } else {
                later_message(*number)
            };
            let place = cache.slot(&question, asker).unwrap();
            let need = if step.is_outage {
                AcceptedAge::StaleAllowed
            } else {
                AcceptedAge::FreshOnly
            };
            let answer = match cache.get(&place, need, NOW).await {
                Some(found) => {
                    hits += 1;
                    found.answer.text
                }
                // Stands for a model, which may repeat anything in the question or the history.
                None => {
                    let known = CANARIES
                        .into_iter()
                        .filter(|word| history.contains(word) || question.contains(word));
                    let answer = format!("Number {}. {}", step.question, known.collect::<String>());
                    cache.put(&place, &answered(&question, &answer), NOW).await;
                    answer
                }
            };
            assert!(
                !answer.contains(other),
                "turn {turn}, {share:?}, {step:?}: {answer}"
            );
            history.push_str(&question);
        }
        println!("{share:?}: {hits} of 10,000 answers came from the cache");
        assert!(hits > 100, "{hits}");
    }
}
