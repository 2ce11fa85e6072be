//! The answer cache over an in-memory store.

mod concurrency;
mod slow_store;
mod visitors;

use super::*;
use crate::config::CacheSharing;
use crate::domain::{AnswerSource, ConversationId, FinishReason, TurnId, TurnRecord, TurnState};
use crate::store::flaky::{FlakyStore, StoreFault};
use crate::store::{AnswerStore as _, MemoryStore};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn settings(share: CacheSharing) -> CacheSettings {
    CacheSettings {
        share,
        ..CacheSettings::default()
    }
}

fn new_cache(settings: CacheSettings) -> (Arc<FlakyStore>, AnswerCache) {
    let store = Arc::new(FlakyStore::wrapping(Arc::new(MemoryStore::default())));
    let cache = AnswerCache::new(Arc::clone(&store) as _, settings, "Be kind.".into());
    (store, cache)
}

fn conversation(n: u64) -> ConversationId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    ConversationId::from_random(bytes)
}

fn first_message(n: u64) -> QuestionContext {
    QuestionContext {
        conversation: conversation(n),
        is_anonymous: true,
        is_first_message: true,
        is_context_free: true,
    }
}

fn later_message(n: u64) -> QuestionContext {
    QuestionContext {
        is_first_message: false,
        is_context_free: false,
        ..first_message(n)
    }
}

fn answered(question: &str, text: &str) -> TurnRecord {
    let turn = TurnId::next_after(None, 1, 1);
    let mut record = TurnRecord::new(turn, "m".parse().unwrap(), NOW, question.into(), None);
    record.text = text.into();
    record.state = TurnState::Done;
    record.source = Some(AnswerSource::Ai);
    record.finish = Some(FinishReason::Stop);
    record.attempts = 1;
    record
}

fn ago(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 - seconds * 1000)
}

/// Asks a question. On a miss, saves `answer` as if it had been given some seconds ago.
async fn ask(
    cache: &AnswerCache,
    asker: QuestionContext,
    question: &str,
    answer: &str,
    seconds: u64,
) -> String {
    let place = cache.slot(question, asker).unwrap();
    if let Some(found) = cache.get(&place, AcceptedAge::FreshOnly, NOW).await {
        return found.answer.text;
    }
    cache
        .put(&place, &answered(question, answer), ago(seconds))
        .await;
    answer.to_owned()
}

async fn lookup(
    cache: &AnswerCache,
    asker: QuestionContext,
    question: &str,
    need: AcceptedAge,
) -> Option<(String, u64, bool)> {
    let place = cache.slot(question, asker).unwrap();
    let found = cache.get(&place, need, NOW).await?;
    Some((found.answer.text, found.age.as_secs(), found.needs_refresh))
}

#[tokio::test]
async fn popular_answer_is_shared_from_the_third_conversation_on() {
    let (_, cache) = new_cache(settings(CacheSharing::Repeated));
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
            QuestionContext {
                is_anonymous: false,
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
    let (store, before) = new_cache(settings(CacheSharing::Repeated));
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
    let after = AnswerCache::new(store, settings(CacheSharing::Repeated), "Be kind.".into());
    assert_eq!(
        ask(&after, first_message(9), "What are your hours?", "nine", 5).await,
        "2"
    );
}

#[tokio::test]
async fn another_system_prompt_finds_nothing() {
    let (store, before) = new_cache(settings(CacheSharing::Always));
    ask(&before, first_message(1), "Hours?", "one", 5).await;
    let after = AnswerCache::new(store, settings(CacheSharing::Always), "Be brief.".into());
    assert_eq!(
        lookup(
            &after,
            first_message(1),
            "Hours?",
            AcceptedAge::StaleAllowed
        )
        .await,
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
        ..settings(CacheSharing::Always)
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
        let needs_refresh = lookup(&cache, first_message(9), &question, AcceptedAge::FreshOnly)
            .await
            .map(|(_, _, needs_refresh)| needs_refresh);
        assert_eq!(needs_refresh, refresh, "{age}");
        let hit = lookup(
            &cache,
            first_message(9),
            &question,
            AcceptedAge::StaleAllowed,
        )
        .await;
        assert_eq!(
            hit.map(|(_, age, _)| age),
            serves_outage.then_some(age * 60)
        );
    }
}

#[tokio::test]
async fn own_answer_serves_first_messages_and_outages() {
    let (_, cache) = new_cache(settings(CacheSharing::Never));
    ask(&cache, first_message(1), "Hours?", "mine", 5).await;
    ask(&cache, later_message(2), "Hours?", "later", 5).await;
    let mine = |text: &str| Some((text.to_owned(), 5, false));
    assert_eq!(
        lookup(&cache, first_message(1), "hours", AcceptedAge::FreshOnly).await,
        mine("mine")
    );
    assert_eq!(
        lookup(&cache, later_message(1), "hours", AcceptedAge::FreshOnly).await,
        None
    );
    assert_eq!(
        lookup(&cache, later_message(1), "hours", AcceptedAge::StaleAllowed).await,
        mine("mine")
    );
    assert_eq!(
        lookup(&cache, first_message(2), "hours", AcceptedAge::FreshOnly).await,
        None,
        "it had a history"
    );
    assert_eq!(
        lookup(&cache, later_message(2), "hours", AcceptedAge::StaleAllowed).await,
        mine("later")
    );
    for need in [AcceptedAge::FreshOnly, AcceptedAge::StaleAllowed] {
        assert_eq!(
            lookup(&cache, first_message(3), "hours", need).await,
            None,
            "saved for another conversation"
        );
    }
}

#[tokio::test]
async fn least_recently_used_answer_is_evicted_even_after_a_restart() {
    let with_max = |max| CacheSettings {
        max_entries: max,
        ..settings(CacheSharing::Never)
    };
    let (store, before) = new_cache(with_max(3));
    for n in 1..=3 {
        ask(&before, first_message(n), "Hours?", &n.to_string(), 60 - n).await;
    }
    assert!(
        lookup(&before, first_message(1), "Hours?", AcceptedAge::FreshOnly)
            .await
            .is_some()
    );
    ask(&before, first_message(4), "Hours?", "4", 5).await;
    assert_eq!(
        lookup(&before, first_message(2), "Hours?", AcceptedAge::FreshOnly).await,
        None
    );
    assert_eq!(store.answer_keys().await.unwrap().len(), 3);
    let after = AnswerCache::new(Arc::clone(&store) as _, with_max(2), "Be kind.".into());
    after.load().await;
    assert_eq!(store.answer_keys().await.unwrap().len(), 2);
    assert!(
        lookup(&after, first_message(4), "Hours?", AcceptedAge::FreshOnly)
            .await
            .is_some()
    );
}

#[tokio::test]
async fn reported_answer_is_removed() {
    let (store, cache) = new_cache(settings(CacheSharing::Always));
    ask(&cache, first_message(1), "Hours?", "wrong", 5).await;
    let reported = TurnRecord {
        source: Some(AnswerSource::Cache),
        ..answered("hours", "another")
    };
    cache.remove(conversation(2), &reported).await;
    assert_eq!(
        store.answer_keys().await.unwrap().len(),
        2,
        "another text is saved"
    );
    cache
        .remove(
            conversation(2),
            &TurnRecord {
                text: "wrong".into(),
                ..reported
            },
        )
        .await;
    assert_eq!(
        lookup(
            &cache,
            first_message(3),
            "Hours?",
            AcceptedAge::StaleAllowed
        )
        .await,
        None
    );
    cache
        .remove(conversation(1), &answered("Hours?", "wrong"))
        .await;
    assert_eq!(store.answer_keys().await, Ok(vec![]));
}

#[tokio::test]
async fn answers_given_during_a_drill_are_not_saved() {
    let (store, cache) = new_cache(settings(CacheSharing::Always));
    let before = cache.slot("Hours?", first_message(1)).unwrap();
    cache.pause();
    let during = cache.slot("Hours?", first_message(2)).unwrap();
    cache.put(&before, &answered("Hours?", "x"), NOW).await;
    cache.resume();
    for place in [before, during] {
        cache.put(&place, &answered("Hours?", "x"), NOW).await;
    }
    assert_eq!(store.answer_keys().await, Ok(vec![]));
    ask(&cache, first_message(3), "Hours?", "after", 5).await;
    assert_eq!(store.answer_keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn unshareable_answer_is_saved_for_its_conversation_only() {
    let (store, cache) = new_cache(settings(CacheSharing::Always));
    for (n, question, answer) in [
        (1, "Write to ann@example.com", "Done."),
        (2, "Who?", "Ann, +49 30 1234567."),
        (3, "???", "What?"),
    ] {
        if let Some(place) = cache.slot(question, first_message(n)) {
            cache.put(&place, &answered(question, answer), NOW).await;
        }
    }
    assert_eq!(store.answer_keys().await.unwrap().len(), 2);
    assert_eq!(
        lookup(&cache, first_message(9), "Who?", AcceptedAge::StaleAllowed).await,
        None
    );
}
