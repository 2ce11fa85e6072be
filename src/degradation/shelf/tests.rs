//! The answer cache over an in-memory store.

mod together;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::chat::{ConversationId, Finish, Source, TurnId, TurnRecord, TurnState};
use crate::settings::Share;
use crate::store::MemoryStore;
use crate::store::flaky::{Flaky, Trouble};

const NOW: At = At(1_800_000_000_000);

fn settings(share: Share) -> CacheSettings {
    CacheSettings {
        share,
        ..CacheSettings::default()
    }
}

fn new_cache(settings: CacheSettings) -> (Arc<Flaky>, Shelf) {
    let store = Arc::new(Flaky::over(Arc::new(MemoryStore::default())));
    let cache = Shelf::new(Arc::clone(&store) as _, settings, "Be kind.".into());
    (store, cache)
}

fn conversation(n: u64) -> ConversationId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    ConversationId::from_random(bytes)
}

fn first_message(n: u64) -> Asker {
    Asker {
        conversation: conversation(n),
        anonymous: true,
        first: true,
        alone: true,
    }
}

fn later_message(n: u64) -> Asker {
    Asker {
        first: false,
        alone: false,
        ..first_message(n)
    }
}

fn answered(question: &str, text: &str) -> TurnRecord {
    let turn = TurnId::after(None, 1, 1);
    let mut record = TurnRecord::asked(turn, "m".parse().unwrap(), NOW, question.into(), None);
    record.text = text.into();
    record.state = TurnState::Done;
    record.source = Some(Source::Ai);
    record.finish = Some(Finish::Stop);
    record.attempts = 1;
    record
}

fn ago(seconds: u64) -> At {
    At(NOW.0 - seconds * 1000)
}

/// Asks a question. On a miss, saves `answer` as if it had been given some seconds ago.
async fn ask(cache: &Shelf, context: Asker, question: &str, answer: &str, seconds: u64) -> String {
    let slot = cache.place(question, context).unwrap();
    if let Some(found) = cache.find(&slot, Need::Fresh, NOW).await {
        return found.answer.text;
    }
    cache
        .keep(&slot, &answered(question, answer), ago(seconds))
        .await;
    answer.to_owned()
}

async fn lookup(
    cache: &Shelf,
    context: Asker,
    question: &str,
    accepted_age: Need,
) -> Option<(String, u64, bool)> {
    let slot = cache.place(question, context).unwrap();
    let found = cache.find(&slot, accepted_age, NOW).await?;
    Some((found.answer.text, found.old.as_secs(), found.renew))
}

#[tokio::test]
async fn popular_answer_is_shared_from_the_third_conversation_on() {
    let (_, cache) = new_cache(settings(Share::Repeated));
    for (n, answer, expected) in [
        (1, "one", "one"),
        (1, "again", "one"),
        (2, "two", "two"),
        (3, "three", "two"),
    ] {
        let text = ask(&cache, first_message(n), "What are your hours?", answer, 5).await;
        assert_eq!(text, expected, "{n}");
    }
    assert_eq!(
        ask(&cache, first_message(4), " what are YOUR hours ", "four", 5).await,
        "two"
    );
    assert_eq!(
        ask(&cache, later_message(5), "What are your hours?", "five", 5).await,
        "five"
    );
    assert_eq!(
        ask(
            &cache,
            Asker {
                anonymous: false,
                ..first_message(6)
            },
            "What are your hours?",
            "six",
            5
        )
        .await,
        "six"
    );
}

#[tokio::test]
async fn asker_count_survives_a_restart() {
    let (store, before) = new_cache(settings(Share::Repeated));
    for n in 1..=3 {
        ask(
            &before,
            first_message(n),
            "What are your hours?",
            &n.to_string(),
            5,
        )
        .await;
    }
    let after = Shelf::new(store, settings(Share::Repeated), "Be kind.".into());
    assert_eq!(
        ask(&after, first_message(9), "What are your hours?", "nine", 5).await,
        "2"
    );
}

#[tokio::test]
async fn another_system_prompt_finds_nothing() {
    let (store, before) = new_cache(settings(Share::Always));
    ask(&before, first_message(1), "Hours?", "one", 5).await;
    let after = Shelf::new(store, settings(Share::Always), "Be brief.".into());
    assert_eq!(
        lookup(&after, first_message(1), "Hours?", Need::Outage).await,
        None
    );
}

#[tokio::test]
async fn age_of_an_answer_decides_its_use() {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let settings = CacheSettings {
        ttl: minutes(10),
        revalidate: minutes(5),
        stale_for: minutes(60),
        ..settings(Share::Always)
    };
    let (_, cache) = new_cache(settings);
    for (n, age, refresh, serves_outage) in [
        (1, 9, Some(false), true),
        (2, 12, Some(true), true),
        (3, 20, None, true),
        (4, 61, None, false),
    ] {
        let question = format!("Question {n}?");
        ask(&cache, first_message(n), &question, "saved", age * 60).await;
        let needs_refresh = lookup(&cache, first_message(9), &question, Need::Fresh)
            .await
            .map(|(_, _, needs_refresh)| needs_refresh);
        assert_eq!(needs_refresh, refresh, "{age}");
        let hit = lookup(&cache, first_message(9), &question, Need::Outage).await;
        assert_eq!(
            hit.map(|(_, age, _)| age),
            serves_outage.then_some(age * 60)
        );
    }
}

#[tokio::test]
async fn own_answer_serves_first_messages_and_outages() {
    let (_, cache) = new_cache(settings(Share::Never));
    ask(&cache, first_message(1), "Hours?", "mine", 5).await;
    ask(&cache, later_message(2), "Hours?", "later", 5).await;
    let mine = |text: &str| Some((text.to_owned(), 5, false));
    assert_eq!(
        lookup(&cache, first_message(1), "hours", Need::Fresh).await,
        mine("mine")
    );
    assert_eq!(
        lookup(&cache, later_message(1), "hours", Need::Fresh).await,
        None
    );
    assert_eq!(
        lookup(&cache, later_message(1), "hours", Need::Outage).await,
        mine("mine")
    );
    assert_eq!(
        lookup(&cache, first_message(2), "hours", Need::Fresh).await,
        None,
        "it had a history"
    );
    assert_eq!(
        lookup(&cache, later_message(2), "hours", Need::Outage).await,
        mine("later")
    );
    for accepted_age in [Need::Fresh, Need::Outage] {
        assert_eq!(
            lookup(&cache, first_message(3), "hours", accepted_age).await,
            None,
            "saved for another conversation"
        );
    }
}

#[tokio::test]
async fn least_recently_used_answer_is_evicted_even_after_a_restart() {
    let with_max = |max| CacheSettings {
        max_entries: max,
        ..settings(Share::Never)
    };
    let (store, before) = new_cache(with_max(3));
    for n in 1..=3 {
        ask(&before, first_message(n), "Hours?", &n.to_string(), 60 - n).await;
    }
    assert!(
        lookup(&before, first_message(1), "Hours?", Need::Fresh)
            .await
            .is_some()
    );
    ask(&before, first_message(4), "Hours?", "4", 5).await;
    assert_eq!(
        lookup(&before, first_message(2), "Hours?", Need::Fresh).await,
        None
    );
    assert_eq!(store.cached_keys().await.unwrap().len(), 3);
    let after = Shelf::new(Arc::clone(&store) as _, with_max(2), "Be kind.".into());
    after.open().await;
    assert_eq!(store.cached_keys().await.unwrap().len(), 2);
    assert!(
        lookup(&after, first_message(4), "Hours?", Need::Fresh)
            .await
            .is_some()
    );
}

#[tokio::test]
async fn reported_answer_is_removed() {
    let (store, cache) = new_cache(settings(Share::Always));
    ask(&cache, first_message(1), "Hours?", "wrong", 5).await;
    let reported = TurnRecord {
        source: Some(Source::Cache),
        ..answered("hours", "another")
    };
    cache.evict(conversation(2), &reported).await;
    assert_eq!(
        store.cached_keys().await.unwrap().len(),
        2,
        "another text is saved"
    );
    cache
        .evict(
            conversation(2),
            &TurnRecord {
                text: "wrong".into(),
                ..reported
            },
        )
        .await;
    assert_eq!(
        lookup(&cache, first_message(3), "Hours?", Need::Outage).await,
        None
    );
    cache
        .evict(conversation(1), &answered("Hours?", "wrong"))
        .await;
    assert_eq!(store.cached_keys().await, Ok(vec![]));
}

#[tokio::test]
async fn answers_given_during_a_drill_are_not_saved() {
    let (store, cache) = new_cache(settings(Share::Always));
    let before = cache.place("Hours?", first_message(1)).unwrap();
    cache.drill_begins();
    let during = cache.place("Hours?", first_message(2)).unwrap();
    cache.keep(&before, &answered("Hours?", "x"), NOW).await;
    cache.drill_ends();
    for slot in [before, during] {
        cache.keep(&slot, &answered("Hours?", "x"), NOW).await;
    }
    assert_eq!(store.cached_keys().await, Ok(vec![]));
    ask(&cache, first_message(3), "Hours?", "after", 5).await;
    assert_eq!(store.cached_keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn unshareable_answer_is_saved_for_its_conversation_only() {
    let (store, cache) = new_cache(settings(Share::Always));
    for (n, question, answer) in [
        (1, "Write to ann@example.com", "Done."),
        (2, "Who?", "Ann, +49 30 1234567."),
        (3, "???", "What?"),
    ] {
        if let Some(slot) = cache.place(question, first_message(n)) {
            cache.keep(&slot, &answered(question, answer), NOW).await;
        }
    }
    assert_eq!(store.cached_keys().await.unwrap().len(), 2);
    assert_eq!(
        lookup(&cache, first_message(9), "Who?", Need::Outage).await,
        None
    );
}

#[tokio::test(start_paused = true)]
async fn slow_or_failing_store_gives_no_hit() {
    let (store, cache) = new_cache(settings(Share::Always));
    ask(&cache, first_message(1), "Hours?", "saved", 5).await;
    for (trouble, limit) in [
        (Trouble::Slow(Duration::from_secs(5)), READ_LIMIT),
        (Trouble::Fails, Duration::ZERO),
    ] {
        store.set(trouble);
        let started_at = tokio::time::Instant::now();
        assert_eq!(
            lookup(&cache, first_message(2), "Hours?", Need::Fresh).await,
            None
        );
        assert!(
            started_at.elapsed() <= limit + Duration::from_millis(1),
            "{:?}",
            started_at.elapsed()
        );
    }
    store.set(Trouble::Slow(Duration::from_millis(40)));
    assert!(
        lookup(&cache, first_message(2), "Hours?", Need::Fresh)
            .await
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_key_is_not_read_once_the_index_is_complete() {
    let (store, cache) = new_cache(settings(Share::Always));
    ask(&cache, first_message(1), "Hours?", "saved", 5).await;
    let timed_lookup = async |cache: &Shelf, question: &str| {
        store.set(Trouble::Slow(Duration::from_millis(40)));
        let started_at = tokio::time::Instant::now();
        let found = lookup(cache, first_message(2), question, Need::Fresh)
            .await
            .map(|(text, ..)| text);
        store.set(Trouble::None);
        (found, started_at.elapsed() >= Duration::from_millis(40))
    };
    assert_eq!(
        timed_lookup(&cache, "Where?").await,
        (None, true),
        "before the index is loaded"
    );
    let cache = Shelf::new(
        Arc::clone(&store) as _,
        settings(Share::Always),
        "Be kind.".into(),
    );
    cache.open().await;
    assert_eq!(timed_lookup(&cache, "Where?").await, (None, false));
    assert_eq!(
        timed_lookup(&cache, "Hours?").await,
        (Some("saved".into()), true)
    );
    ask(&cache, first_message(3), "Where?", "here", 5).await;
    assert_eq!(
        timed_lookup(&cache, "Where?").await,
        (Some("here".into()), true)
    );
}

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
    for share in [Share::Never, Share::Repeated, Share::Always] {
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
            let context = if history.is_empty() {
                first_message(*number)
            } else {
                later_message(*number)
            };
            let slot = cache.place(&question, context).unwrap();
            let accepted_age = if step.is_outage {
                Need::Outage
            } else {
                Need::Fresh
            };
            let answer = match cache.find(&slot, accepted_age, NOW).await {
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
                    cache.keep(&slot, &answered(&question, &answer), NOW).await;
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
