//! Cached answers: served while fresh, refreshed in the background, stale ones in an outage. Also
//! one turn that asks for all identical questions.

mod sharing;

use super::*;
use crate::answer_cache::key::{CacheScope, cache_key};
use crate::answer_cache::policy::CacheMode;
use crate::config::{CacheSettings, CacheSharing};
use crate::store::flaky::StoreFault;
use crate::store::{AnswerStore as _, CacheKey, CachedAnswer};
use crate::turn::deps::TurnOptions;
use crate::turn::log::Cancel;
use crate::turn::test_service::conversation_id;

const QUESTION: &str = "What is new?";

fn start_with_cache<const N: usize>(scripts: [Vec<Script>; N], share: CacheSharing) -> TestService {
    let cache = CacheSettings {
        share,
        revalidate: s(600),
        ..CacheSettings::default()
    };
    let mut builder = TestServiceBuilder::with_scripts(scripts);
    builder.settings.cache = cache;
    builder.start()
}

fn shared_key() -> CacheKey {
    cache_key(CacheScope::Shared, "Be kind.", QUESTION).unwrap()
}

/// Saves a cached answer of this age.
async fn save_answer(harness: &TestService, age: Duration) {
    let now = harness.turns.clock.wall();
    let at = crate::domain::Timestamp(now.0 - u64::try_from(age.as_millis()).unwrap());
    let answer = CachedAnswer {
        text: "Saved.".into(),
        saved_at: at,
        conversation: None,
        turn: None,
        is_context_free: true,
        asker_count: 1,
    };
    harness
        .store
        .put_answer(shared_key(), answer)
        .await
        .unwrap();
}

/// Asks the question in the conversation with this number.
fn ask_with(harness: &TestService, number: u8, options: TurnOptions) -> Arc<TurnLog> {
    let conversation = harness
        .turns
        .conversations
        .get_or_create(conversation_id(number));
    harness
        .turns
        .start_turn(
            &conversation,
            message(&format!("m{number}"), QUESTION),
            options,
        )
        .ok()
        .unwrap()
}

fn ask(harness: &TestService, number: u8) -> Arc<TurnLog> {
    ask_with(harness, number, harness.turns.default_options())
}

async fn answer_to(harness: &TestService, number: u8) -> ProtocolClient {
    ProtocolClient::follow(&ask(harness, number)).await
}

fn assert_cached(reader: &ProtocolClient, source: AnswerSource, text: &str, age_s: u64) {
    let done = reader.done();
    assert_eq!(
        (done.source, &*done.text, done.age_s),
        (source, text, Some(age_s))
    );
    assert_eq!((done.finish, &done.provider), (FinishReason::Stop, &None));
    assert_eq!(
        (done.degraded, done.attempts > 0),
        (
            source == AnswerSource::StaleCache,
            source == AnswerSource::StaleCache
        )
    );
}

#[actix_rt::test(system = "Paused")]
async fn fresh_answer_is_served_without_a_provider() {
    let harness = start_with_cache([vec![reply("Hello.")]], CacheSharing::Always);
    assert_answered(&answer_to(&harness, 1).await, "a", "Hello.");
    let reader = answer_to(&harness, 2).await;
    assert_cached(&reader, AnswerSource::Cache, "Hello.", 0);
    assert_eq!(reader.kinds(), "start token done");
    assert_eq!(harness.calls(0).len(), 1);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn only_default_options_read_the_cache() {
    let harness = start_with_cache([vec![reply("Hello.")]], CacheSharing::Always);
    save_answer(&harness, s(5)).await;
    let defaults = harness.turns.default_options();
    for (number, options) in [
        (
            1,
            TurnOptions {
                cache_mode: CacheMode::Off,
                ..defaults.clone()
            },
        ),
        (
            2,
            TurnOptions {
                preferred_provider: Some("a".into()),
                ..defaults.clone()
            },
        ),
        (
            3,
            TurnOptions {
                is_anonymous: false,
                ..defaults.clone()
            },
        ),
    ] {
        let reader = ProtocolClient::follow(&ask_with(&harness, number, options)).await;
        assert_answered(&reader, "a", "Hello.");
        assert_eq!(
            harness
                .store
                .get_answer(shared_key())
                .await
                .unwrap()
                .unwrap()
                .text,
            "Saved."
        );
    }
    let refresh = TurnOptions {
        cache_mode: CacheMode::Refresh,
        ..defaults
    };
    assert_answered(
        &ProtocolClient::follow(&ask_with(&harness, 4, refresh)).await,
        "a",
        "Hello.",
    );
    assert_cached(
        &answer_to(&harness, 5).await,
        AnswerSource::Cache,
        "Hello.",
        0,
    );
    assert_eq!(harness.calls(0).len(), 4);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn retry_is_never_answered_from_the_cache() {
    let harness = start_with_cache(
        [vec![
            reply("One."),
            reply("Two."),
            fail_with(FaultKind::ServerError),
        ]],
        CacheSharing::Always,
    );
    let first = ask(&harness, 1);
    assert_answered(&ProtocolClient::follow(&first).await, "a", "One.");
    let conversation = harness
        .turns
        .conversations
        .get_or_create(conversation_id(1));
    for (name, provider) in [("r1", Some("a")), ("r2", None)] {
        let mut retry = message(name, QUESTION);
        retry.retry_of = Some(first.turn());
        let log = harness
            .turns
            .start_turn(&conversation, retry, harness.turns.default_options())
            .ok()
            .unwrap();
        let reader = ProtocolClient::follow(&log).await;
        assert_eq!(reader.done().provider.as_deref(), provider);
        assert!(!matches!(
            reader.done().source,
            AnswerSource::Cache | AnswerSource::StaleCache
        ));
    }
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn stale_answer_is_served_at_once_and_refreshed_in_the_background() {
    let harness = start_with_cache(
        [vec![reply_slowly("New", s(3), "er.")]],
        CacheSharing::Never,
    );
    save_answer(&harness, s(3700)).await;
    for number in 1..=5 {
        assert_cached(
            &answer_to(&harness, number).await,
            AnswerSource::Cache,
            "Saved.",
            3700,
        );
    }
    advance(s(4)).await;
    assert_eq!(harness.calls(0).len(), 1, "a single refresh");
    let refreshed = answer_to(&harness, 6).await;
    assert_cached(&refreshed, AnswerSource::Cache, "Newer.", 0);
    let counts = harness.turns.observer.answers();
    assert_eq!(counts.ended, 6, "a refresh is not counted as an answer");
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn failed_refresh_keeps_the_old_answer() {
    let harness = start_with_cache(
        [vec![fail_with(FaultKind::ServerError)]],
        CacheSharing::Never,
    );
    save_answer(&harness, s(3700)).await;
    for number in 1..=2 {
        assert_cached(
            &answer_to(&harness, number).await,
            AnswerSource::Cache,
            "Saved.",
            3700,
        );
        advance(s(5)).await;
    }
    assert!(harness.calls(0).len() >= 2);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn old_answer_is_served_only_when_no_provider_can_answer() {
    let harness = start_with_cache(
        [vec![reply("Hello."), fail_with(FaultKind::ServerError)]],
        CacheSharing::Never,
    );
    save_answer(&harness, s(5 * 3600)).await;
    assert_answered(&answer_to(&harness, 1).await, "a", "Hello.");
    assert_cached(
        &answer_to(&harness, 2).await,
        AnswerSource::StaleCache,
        "Saved.",
        5 * 3600,
    );
    let off = TurnOptions {
        cache_mode: CacheMode::Off,
        ..harness.turns.default_options()
    };
    assert_fallback(&ProtocolClient::follow(&ask_with(&harness, 3, off)).await);
    // It replaces text that was already shown.
    let broken = start_with_cache(
        [vec![break_after("Half an", FaultKind::Reset)]],
        CacheSharing::Never,
    );
    save_answer(&broken, s(5 * 3600)).await;
    let reader = answer_to(&broken, 1).await;
    assert_eq!(
        (reader.done().source, &*reader.text),
        (AnswerSource::StaleCache, "Saved.")
    );
    assert!(
        reader.kinds().ends_with("restart token done"),
        "{}",
        reader.kinds()
    );
}

#[actix_rt::test(system = "Paused")]
async fn hanging_store_delays_an_answer_only_up_to_its_timeouts() {
    let harness = start_with_cache(
        [vec![fail_with(FaultKind::ServerError)]],
        CacheSharing::Always,
    );
    save_answer(&harness, s(5)).await;
    harness.store.set_fault(StoreFault::Slow(s(30)));
    let log = ask(&harness, 1);
    let started = tokio::time::Instant::now();
    assert_fallback(&ProtocolClient::follow(&log).await);
    // 250 ms for the history, 50 ms for the cache, a retry, and 250 ms for the end.
    assert!(started.elapsed() < ms(1000), "{:?}", started.elapsed());
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn cache_is_warmed_one_question_at_a_time_while_idle() {
    let warm = vec![QUESTION.to_owned(), "What else?".to_owned()];
    let cache = CacheSettings {
        share: CacheSharing::Never,
        warm,
        ..CacheSettings::default()
    };
    let mut builder = TestServiceBuilder::with_scripts([vec![
        reply_slowly("Hel", s(12), "lo."),
        reply("Hello."),
    ]]);
    builder.settings.cache = cache;
    let harness = builder.start();
    let busy = ask_with(
        &harness,
        1,
        TurnOptions {
            cache_mode: CacheMode::Off,
            ..harness.turns.default_options()
        },
    );
    run_until_idle().await;
    actix::spawn(crate::turn::cache_warmer::run_warmer(Arc::clone(
        &harness.turns,
    )));
    advance(s(11)).await;
    assert_eq!(harness.calls(0).len(), 1, "not while a visitor waits");
    assert_eq!(
        ProtocolClient::follow(&busy).await.done().source,
        AnswerSource::Ai
    );
    for calls in [2, 3, 3] {
        advance(s(10)).await;
        assert_eq!(harness.calls(0).len(), calls);
    }
    assert_cached(
        &answer_to(&harness, 2).await,
        AnswerSource::Cache,
        "Hello.",
        0,
    );
    assert_eq!(harness.calls(0).len(), 3);
    harness.assert_idle().await;
}
