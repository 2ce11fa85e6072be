//! Cached answers: served while fresh, refreshed in the background, stale ones in an outage. Also
//! one turn that asks for all identical questions.

use super::*;
use crate::degradation::cache::CacheUse;
use crate::degradation::cache::key::{Scope, key};
use crate::settings::{CacheSettings, Share};
use crate::store::flaky::Trouble;
use crate::store::{CacheKey, CachedAnswer, Store as _};
use crate::turn::desk::Wishes;
use crate::turn::log::Cancel;
use crate::turn::stage::conversation;

const QUESTION: &str = "What is new?";

fn start_with_cache<const N: usize>(scripts: [Vec<Script>; N], share: Share) -> Stage {
    let cache = CacheSettings {
        share,
        revalidate: s(600),
        ..CacheSettings::default()
    };
    let mut builder = House::following(scripts);
    builder.settings.cache = cache;
    builder.open()
}

fn shared_key() -> CacheKey {
    key(Scope::Shared, "Be kind.", QUESTION).unwrap()
}

/// Saves a cached answer of this age.
async fn save_answer(harness: &Stage, age: Duration) {
    let now = harness.desk.clock.wall();
    let at = crate::chat::At(now.0 - u64::try_from(age.as_millis()).unwrap());
    let answer = CachedAnswer {
        text: "Saved.".into(),
        saved: at,
        conversation: None,
        turn: None,
        first: true,
        asked: 1,
    };
    harness
        .store
        .write_cached(shared_key(), answer)
        .await
        .unwrap();
}

/// Asks the question in the conversation with this number.
fn ask_with(harness: &Stage, number: u8, options: Wishes) -> Arc<TurnLog> {
    let conversation = harness.desk.rooms.enter(conversation(number));
    harness
        .desk
        .open(
            &conversation,
            question(&format!("m{number}"), QUESTION),
            options,
        )
        .ok()
        .unwrap()
}

fn ask(harness: &Stage, number: u8) -> Arc<TurnLog> {
    ask_with(harness, number, harness.desk.usual())
}

async fn answer_to(harness: &Stage, number: u8) -> Reader {
    Reader::follow(&ask(harness, number)).await
}

fn assert_cached(reader: &Reader, source: Source, text: &str, age_s: u64) {
    let done = reader.done();
    assert_eq!(
        (done.source, &*done.text, done.age_s),
        (source, text, Some(age_s))
    );
    assert_eq!((done.finish, &done.provider), (Finish::Stop, &None));
    assert_eq!(
        (done.degraded, done.attempts > 0),
        (source == Source::StaleCache, source == Source::StaleCache)
    );
}

#[actix_rt::test(system = "Paused")]
async fn fresh_answer_is_served_without_a_provider() {
    let harness = start_with_cache([vec![says("Hello.")]], Share::Always);
    assert_answered(&answer_to(&harness, 1).await, "a", "Hello.");
    let reader = answer_to(&harness, 2).await;
    assert_cached(&reader, Source::Cache, "Hello.", 0);
    assert_eq!(reader.kinds(), "start token done");
    assert_eq!(harness.calls(0).len(), 1);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn only_default_options_read_the_cache() {
    let harness = start_with_cache([vec![says("Hello.")]], Share::Always);
    save_answer(&harness, s(5)).await;
    let defaults = harness.desk.usual();
    for (number, options) in [
        (
            1,
            Wishes {
                cache: CacheUse::Off,
                ..defaults.clone()
            },
        ),
        (
            2,
            Wishes {
                first: Some("a".into()),
                ..defaults.clone()
            },
        ),
        (
            3,
            Wishes {
                anonymous: false,
                ..defaults.clone()
            },
        ),
    ] {
        let reader = Reader::follow(&ask_with(&harness, number, options)).await;
        assert_answered(&reader, "a", "Hello.");
        assert_eq!(
            harness
                .store
                .cached(shared_key())
                .await
                .unwrap()
                .unwrap()
                .text,
            "Saved."
        );
    }
    let refresh = Wishes {
        cache: CacheUse::Refresh,
        ..defaults
    };
    assert_answered(
        &Reader::follow(&ask_with(&harness, 4, refresh)).await,
        "a",
        "Hello.",
    );
    assert_cached(&answer_to(&harness, 5).await, Source::Cache, "Hello.", 0);
    assert_eq!(harness.calls(0).len(), 4);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn retry_is_never_answered_from_the_cache() {
    let harness = start_with_cache(
        [vec![says("One."), says("Two."), fails(Fault::ServerError)]],
        Share::Always,
    );
    let first = ask(&harness, 1);
    assert_answered(&Reader::follow(&first).await, "a", "One.");
    let conversation = harness.desk.rooms.enter(conversation(1));
    for (name, provider) in [("r1", Some("a")), ("r2", None)] {
        let mut retry = question(name, QUESTION);
        retry.retry_of = Some(first.turn());
        let log = harness
            .desk
            .open(&conversation, retry, harness.desk.usual())
            .ok()
            .unwrap();
        let reader = Reader::follow(&log).await;
        assert_eq!(reader.done().provider.as_deref(), provider);
        assert!(!matches!(
            reader.done().source,
            Source::Cache | Source::StaleCache
        ));
    }
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn stale_answer_is_served_at_once_and_refreshed_in_the_background() {
    let harness = start_with_cache([vec![says_slowly("New", s(3), "er.")]], Share::Never);
    save_answer(&harness, s(3700)).await;
    for number in 1..=5 {
        assert_cached(
            &answer_to(&harness, number).await,
            Source::Cache,
            "Saved.",
            3700,
        );
    }
    pass(s(4)).await;
    assert_eq!(harness.calls(0).len(), 1, "a single refresh");
    let refreshed = answer_to(&harness, 6).await;
    assert_cached(&refreshed, Source::Cache, "Newer.", 0);
    let counts = &harness.desk.counts;
    assert_eq!(
        counts.ended.load(std::sync::atomic::Ordering::Relaxed),
        6,
        "a refresh is not counted as an answer"
    );
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn failed_refresh_keeps_the_old_answer() {
    let harness = start_with_cache([vec![fails(Fault::ServerError)]], Share::Never);
    save_answer(&harness, s(3700)).await;
    for number in 1..=2 {
        assert_cached(
            &answer_to(&harness, number).await,
            Source::Cache,
            "Saved.",
            3700,
        );
        pass(s(5)).await;
    }
    assert!(harness.calls(0).len() >= 2);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn old_answer_is_served_only_when_no_provider_can_answer() {
    let harness = start_with_cache(
        [vec![says("Hello."), fails(Fault::ServerError)]],
        Share::Never,
    );
    save_answer(&harness, s(5 * 3600)).await;
    assert_answered(&answer_to(&harness, 1).await, "a", "Hello.");
    assert_cached(
        &answer_to(&harness, 2).await,
        Source::StaleCache,
        "Saved.",
        5 * 3600,
    );
    let off = Wishes {
        cache: CacheUse::Off,
        ..harness.desk.usual()
    };
    assert_fallback(&Reader::follow(&ask_with(&harness, 3, off)).await);
    // It replaces text that was already shown.
    let broken = start_with_cache([vec![breaks("Half an", Fault::Reset)]], Share::Never);
    save_answer(&broken, s(5 * 3600)).await;
    let reader = answer_to(&broken, 1).await;
    assert_eq!(
        (reader.done().source, &*reader.text),
        (Source::StaleCache, "Saved.")
    );
    assert!(
        reader.kinds().ends_with("restart token done"),
        "{}",
        reader.kinds()
    );
}

#[actix_rt::test(system = "Paused")]
async fn hanging_store_delays_an_answer_only_up_to_its_timeouts() {
    let harness = start_with_cache([vec![fails(Fault::ServerError)]], Share::Always);
    save_answer(&harness, s(5)).await;
    harness.store.set(Trouble::Slow(s(30)));
    let log = ask(&harness, 1);
    let started = tokio::time::Instant::now();
    assert_fallback(&Reader::follow(&log).await);
    // 250 ms for the history, 50 ms for the cache, a retry, and 250 ms for the end.
    assert!(started.elapsed() < ms(1000), "{:?}", started.elapsed());
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn one_turn_asks_for_all_identical_questions() {
    let harness = start_with_cache([vec![says_slowly("Hel", s(2), "lo.")]], Share::Always);
    let first = ask(&harness, 1);
    settled().await;
    let others: Vec<_> = (2..=6).map(|number| ask(&harness, number)).collect();
    let stopped = ask(&harness, 7);
    settled().await;
    stopped.cancel(Cancel::Stopped);
    assert_eq!(
        Reader::follow(&stopped).await.done().finish,
        Finish::Stopped
    );
    assert_answered(&Reader::follow(&first).await, "a", "Hello.");
    for other in &others {
        assert_cached(&Reader::follow(other).await, Source::Cache, "Hello.", 0);
    }
    assert_eq!(harness.calls(0).len(), 1);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn identical_questions_are_asked_separately_without_sharing() {
    for share in [Share::Never, Share::Repeated] {
        let harness = start_with_cache([vec![says_slowly("Hel", s(2), "lo.")]], share);
        let logs: Vec<_> = (1..=2).map(|number| ask(&harness, number)).collect();
        for log in &logs {
            assert_answered(&Reader::follow(log).await, "a", "Hello.");
        }
        assert_eq!(harness.calls(0).len(), 2, "{share:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn followers_ask_themselves_after_the_leader_fails() {
    let harness = start_with_cache(
        [
            vec![fails(Fault::BadRequest)],
            vec![says_slowly("Hel", s(2), "lo.")],
        ],
        Share::Always,
    );
    let logs: Vec<_> = (1..=4).map(|number| ask(&harness, number)).collect();
    pass(s(1)).await;
    assert_eq!(
        harness.calls(1).len(),
        4,
        "no turn waits for a second attempt of the leader"
    );
    for log in &logs {
        assert_answered(&Reader::follow(log).await, "b", "Hello.");
    }
    assert_eq!((logs.len(), harness.calls(1).len()), (4, 4));
    // A leader stopped by its visitor has no answer for the followers either.
    let harness = start_with_cache([vec![says_slowly("Hel", s(2), "lo.")]], Share::Always);
    let logs: Vec<_> = (1..=3).map(|number| ask(&harness, number)).collect();
    settled().await;
    let first = logs.iter().position(|log| log.attempts() == 1).unwrap();
    logs[first].cancel(Cancel::Stopped);
    for (number, log) in logs
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != first)
    {
        assert_eq!(
            Reader::follow(log).await.done().source,
            Source::Ai,
            "{number}"
        );
    }
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn cache_is_warmed_one_question_at_a_time_while_idle() {
    let warm = vec![QUESTION.to_owned(), "What else?".to_owned()];
    let cache = CacheSettings {
        share: Share::Never,
        warm,
        ..CacheSettings::default()
    };
    let mut builder = House::following([vec![says_slowly("Hel", s(12), "lo."), says("Hello.")]]);
    builder.settings.cache = cache;
    let harness = builder.open();
    let busy = ask_with(
        &harness,
        1,
        Wishes {
            cache: CacheUse::Off,
            ..harness.desk.usual()
        },
    );
    settled().await;
    actix::spawn(crate::turn::warm::warm(Arc::clone(&harness.desk)));
    pass(s(11)).await;
    assert_eq!(harness.calls(0).len(), 1, "not while a visitor waits");
    assert_eq!(Reader::follow(&busy).await.done().source, Source::Ai);
    for calls in [2, 3, 3] {
        pass(s(10)).await;
        assert_eq!(harness.calls(0).len(), calls);
    }
    assert_cached(&answer_to(&harness, 2).await, Source::Cache, "Hello.", 0);
    assert_eq!(harness.calls(0).len(), 3);
    harness.assert_idle().await;
}
