//! The shelf over a store in memory.

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

fn shelf(settings: CacheSettings) -> (Arc<Flaky>, Shelf) {
    let store = Arc::new(Flaky::over(Arc::new(MemoryStore::default())));
    let shelf = Shelf::new(Arc::clone(&store) as _, settings, "Be kind.".into());
    (store, shelf)
}

fn conversation(n: u64) -> ConversationId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    ConversationId::from_random(bytes)
}

fn first(n: u64) -> Asker {
    Asker {
        conversation: conversation(n),
        anonymous: true,
        first: true,
        alone: true,
    }
}

fn later(n: u64) -> Asker {
    Asker {
        first: false,
        alone: false,
        ..first(n)
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

/// Asks, and where nothing is saved that will do, is answered so some seconds ago.
async fn ask(shelf: &Shelf, asker: Asker, question: &str, answer: &str, seconds: u64) -> String {
    let place = shelf.place(question, asker).unwrap();
    if let Some(found) = shelf.find(&place, Need::Fresh, NOW).await {
        return found.answer.text;
    }
    shelf
        .keep(&place, &answered(question, answer), ago(seconds))
        .await;
    answer.to_owned()
}

async fn found(
    shelf: &Shelf,
    asker: Asker,
    question: &str,
    need: Need,
) -> Option<(String, u64, bool)> {
    let place = shelf.place(question, asker).unwrap();
    let found = shelf.find(&place, need, NOW).await?;
    Some((found.answer.text, found.old.as_secs(), found.renew))
}

#[tokio::test]
async fn what_many_ask_is_told_from_the_third_conversation_on() {
    let (_, shelf) = shelf(settings(Share::Repeated));
    for (n, answer, expected) in [
        (1, "one", "one"),
        (1, "again", "one"),
        (2, "two", "two"),
        (3, "three", "two"),
    ] {
        let text = ask(&shelf, first(n), "What are your hours?", answer, 5).await;
        assert_eq!(text, expected, "{n}");
    }
    assert_eq!(
        ask(&shelf, first(4), " what are YOUR hours ", "four", 5).await,
        "two"
    );
    assert_eq!(
        ask(&shelf, later(5), "What are your hours?", "five", 5).await,
        "five"
    );
    assert_eq!(
        ask(
            &shelf,
            Asker {
                anonymous: false,
                ..first(6)
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
async fn that_many_asked_is_known_after_a_restart() {
    let (store, before) = shelf(settings(Share::Repeated));
    for n in 1..=3 {
        ask(&before, first(n), "What are your hours?", &n.to_string(), 5).await;
    }
    let after = Shelf::new(store, settings(Share::Repeated), "Be kind.".into());
    assert_eq!(
        ask(&after, first(9), "What are your hours?", "nine", 5).await,
        "2"
    );
}

#[tokio::test]
async fn another_system_prompt_is_another_question() {
    let (store, before) = shelf(settings(Share::Always));
    ask(&before, first(1), "Hours?", "one", 5).await;
    let after = Shelf::new(store, settings(Share::Always), "Be brief.".into());
    assert_eq!(found(&after, first(1), "Hours?", Need::Outage).await, None);
}

#[tokio::test]
async fn how_old_an_answer_is_says_what_it_is_good_for() {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let ages = CacheSettings {
        ttl: minutes(10),
        revalidate: minutes(5),
        stale_for: minutes(60),
        ..settings(Share::Always)
    };
    let (_, shelf) = shelf(ages);
    for (n, old, fresh, stale) in [
        (1, 9, Some(false), true),
        (2, 12, Some(true), true),
        (3, 20, None, true),
        (4, 61, None, false),
    ] {
        let question = format!("Question {n}?");
        ask(&shelf, first(n), &question, "saved", old * 60).await;
        let renew = found(&shelf, first(9), &question, Need::Fresh)
            .await
            .map(|(_, _, renew)| renew);
        assert_eq!(renew, fresh, "{old}");
        let told = found(&shelf, first(9), &question, Need::Outage).await;
        assert_eq!(told.map(|(_, old, _)| old), stale.then_some(old * 60));
    }
}

#[tokio::test]
async fn a_conversations_own_answer_is_for_its_first_message_or_for_an_outage() {
    let (_, shelf) = shelf(settings(Share::Never));
    ask(&shelf, first(1), "Hours?", "mine", 5).await;
    ask(&shelf, later(2), "Hours?", "later", 5).await;
    let mine = |text: &str| Some((text.to_owned(), 5, false));
    assert_eq!(
        found(&shelf, first(1), "hours", Need::Fresh).await,
        mine("mine")
    );
    assert_eq!(found(&shelf, later(1), "hours", Need::Fresh).await, None);
    assert_eq!(
        found(&shelf, later(1), "hours", Need::Outage).await,
        mine("mine")
    );
    assert_eq!(
        found(&shelf, first(2), "hours", Need::Fresh).await,
        None,
        "it had a history"
    );
    assert_eq!(
        found(&shelf, later(2), "hours", Need::Outage).await,
        mine("later")
    );
    for need in [Need::Fresh, Need::Outage] {
        assert_eq!(
            found(&shelf, first(3), "hours", need).await,
            None,
            "another's"
        );
    }
}

#[tokio::test]
async fn the_least_recently_used_goes_first_also_after_a_restart() {
    let few = |most| CacheSettings {
        max_entries: most,
        ..settings(Share::Never)
    };
    let (store, before) = shelf(few(3));
    for n in 1..=3 {
        ask(&before, first(n), "Hours?", &n.to_string(), 60 - n).await;
    }
    assert!(
        found(&before, first(1), "Hours?", Need::Fresh)
            .await
            .is_some()
    );
    ask(&before, first(4), "Hours?", "4", 5).await;
    assert_eq!(found(&before, first(2), "Hours?", Need::Fresh).await, None);
    assert_eq!(store.cached_keys().await.unwrap().len(), 3);
    let after = Shelf::new(Arc::clone(&store) as _, few(2), "Be kind.".into());
    after.open().await;
    assert_eq!(store.cached_keys().await.unwrap().len(), 2);
    assert!(
        found(&after, first(4), "Hours?", Need::Fresh)
            .await
            .is_some()
    );
}

#[tokio::test]
async fn an_answer_that_did_not_help_is_told_to_nobody() {
    let (store, shelf) = shelf(settings(Share::Always));
    ask(&shelf, first(1), "Hours?", "wrong", 5).await;
    let told = TurnRecord {
        source: Some(Source::Cache),
        ..answered("hours", "another")
    };
    shelf.evict(conversation(2), &told).await;
    assert_eq!(
        store.cached_keys().await.unwrap().len(),
        2,
        "not what was told"
    );
    shelf
        .evict(
            conversation(2),
            &TurnRecord {
                text: "wrong".into(),
                ..told
            },
        )
        .await;
    assert_eq!(found(&shelf, first(3), "Hours?", Need::Outage).await, None);
    shelf
        .evict(conversation(1), &answered("Hours?", "wrong"))
        .await;
    assert_eq!(store.cached_keys().await, Ok(vec![]));
}

#[tokio::test]
async fn nothing_of_a_drill_is_saved() {
    let (store, shelf) = shelf(settings(Share::Always));
    let before = shelf.place("Hours?", first(1)).unwrap();
    shelf.drill_begins();
    let under = shelf.place("Hours?", first(2)).unwrap();
    shelf.keep(&before, &answered("Hours?", "x"), NOW).await;
    shelf.drill_ends();
    for place in [before, under] {
        shelf.keep(&place, &answered("Hours?", "x"), NOW).await;
    }
    assert_eq!(store.cached_keys().await, Ok(vec![]));
    ask(&shelf, first(3), "Hours?", "after", 5).await;
    assert_eq!(store.cached_keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_may_not_be_told_is_saved_for_its_conversation_alone() {
    let (store, shelf) = shelf(settings(Share::Always));
    for (n, question, answer) in [
        (1, "Write to ann@example.com", "Done."),
        (2, "Who?", "Ann, +49 30 1234567."),
        (3, "???", "What?"),
    ] {
        if let Some(place) = shelf.place(question, first(n)) {
            shelf.keep(&place, &answered(question, answer), NOW).await;
        }
    }
    assert_eq!(store.cached_keys().await.unwrap().len(), 2);
    assert_eq!(found(&shelf, first(9), "Who?", Need::Outage).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_or_broken_has_nothing() {
    let (store, shelf) = shelf(settings(Share::Always));
    ask(&shelf, first(1), "Hours?", "saved", 5).await;
    for (trouble, limit) in [
        (Trouble::Slow(Duration::from_secs(5)), READ_LIMIT),
        (Trouble::Fails, Duration::ZERO),
    ] {
        store.set(trouble);
        let began = tokio::time::Instant::now();
        assert_eq!(found(&shelf, first(2), "Hours?", Need::Fresh).await, None);
        assert!(
            began.elapsed() <= limit + Duration::from_millis(1),
            "{:?}",
            began.elapsed()
        );
    }
    store.set(Trouble::Slow(Duration::from_millis(40)));
    assert!(
        found(&shelf, first(2), "Hours?", Need::Fresh)
            .await
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_known_not_to_be_saved_is_not_looked_for() {
    let (store, shelf) = shelf(settings(Share::Always));
    ask(&shelf, first(1), "Hours?", "saved", 5).await;
    let looked_for = async |shelf: &Shelf, question: &str| {
        store.set(Trouble::Slow(Duration::from_millis(40)));
        let began = tokio::time::Instant::now();
        let found = found(shelf, first(2), question, Need::Fresh)
            .await
            .map(|(text, ..)| text);
        store.set(Trouble::None);
        (found, began.elapsed() >= Duration::from_millis(40))
    };
    assert_eq!(
        looked_for(&shelf, "Where?").await,
        (None, true),
        "before it is known what there is"
    );
    let shelf = Shelf::new(
        Arc::clone(&store) as _,
        settings(Share::Always),
        "Be kind.".into(),
    );
    shelf.open().await;
    assert_eq!(looked_for(&shelf, "Where?").await, (None, false));
    assert_eq!(
        looked_for(&shelf, "Hours?").await,
        (Some("saved".into()), true)
    );
    ask(&shelf, first(3), "Where?", "here", 5).await;
    assert_eq!(
        looked_for(&shelf, "Where?").await,
        (Some("here".into()), true)
    );
}

/// A visitor's word, that no other ever says.
const CANARIES: [&str; 2] = ["blue heron", "grey otter"];

/// What one visitor does next.
#[derive(Clone, Copy, Debug)]
struct Step {
    visitor: usize,
    /// Whether with a new conversation.
    anew: bool,
    question: usize,
    /// Whether the visitor's own word is in it.
    tells: bool,
    outage: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let parts = (
        0..2_usize,
        prop::bool::weighted(0.2),
        0..12_usize,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    );
    parts.prop_map(|(visitor, anew, question, tells, outage)| Step {
        visitor,
        anew,
        question,
        tells,
        outage,
    })
}

#[tokio::test]
async fn two_visitors_never_see_each_others_words_in_ten_thousand_turns() {
    for share in [Share::Never, Share::Repeated, Share::Always] {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let few = CacheSettings {
            max_entries: 200,
            ..settings(share)
        };
        let (_, shelf) = shelf(few);
        // Each visitor's conversation: its number, and all that was said in it.
        let mut open = [(0, String::new()), (1, String::new())];
        let (mut next, mut told) = (2, 0);
        for turn in 0..10_000 {
            let step = step().new_tree(&mut runner).unwrap().current();
            let (canary, other) = (CANARIES[step.visitor], CANARIES[1 - step.visitor]);
            let (number, said) = &mut open[step.visitor];
            if step.anew {
                (*number, *said) = (next, String::new());
                next += 1;
            }
            let case = if turn % 2 == 0 {
                "What is number"
            } else {
                "WHAT  is number"
            };
            let mine = if step.tells { canary } else { "" };
            let question = format!("{case} {}{mine}?", step.question);
            let asker = if said.is_empty() {
                first(*number)
            } else {
                later(*number)
            };
            let place = shelf.place(&question, asker).unwrap();
            let need = if step.outage {
                Need::Outage
            } else {
                Need::Fresh
            };
            let answer = match shelf.find(&place, need, NOW).await {
                Some(found) => {
                    told += 1;
                    found.answer.text
                }
                // A model repeats what it sees: the question, and the conversation before it.
                None => {
                    let known = CANARIES
                        .into_iter()
                        .filter(|word| said.contains(word) || question.contains(word));
                    let answer = format!("Number {}. {}", step.question, known.collect::<String>());
                    shelf.keep(&place, &answered(&question, &answer), NOW).await;
                    answer
                }
            };
            assert!(
                !answer.contains(other),
                "turn {turn}, {share:?}, {step:?}: {answer}"
            );
            said.push_str(&question);
        }
        println!("{share:?}: {told} of 10,000 answers were saved ones");
        assert!(told > 100, "{told}");
    }
}
