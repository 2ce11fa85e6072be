//! Saved answers: told where they will do, renewed behind, the first rung of an outage; and one turn for many who ask alike.

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

fn house<const N: usize>(scripts: [Vec<Script>; N], share: Share) -> Stage {
    let cache = CacheSettings {
        share,
        revalidate: s(600),
        ..CacheSettings::default()
    };
    let mut house = House::following(scripts);
    house.settings.cache = cache;
    house.open()
}

fn shared() -> CacheKey {
    key(Scope::Shared, "Be kind.", QUESTION).unwrap()
}

/// Saves an answer that is so old.
async fn saved(stage: &Stage, old: Duration) {
    let now = stage.desk.clock.wall();
    let at = crate::chat::At(now.0 - u64::try_from(old.as_millis()).unwrap());
    let answer = CachedAnswer {
        text: "Saved.".into(),
        saved: at,
        conversation: None,
        turn: None,
        first: true,
        asked: 1,
    };
    stage.store.write_cached(shared(), answer).await.unwrap();
}

/// Asks in a conversation of this number, with wishes.
fn begin_with(stage: &Stage, number: u8, wishes: Wishes) -> Arc<TurnLog> {
    let room = stage.desk.rooms.enter(conversation(number));
    stage
        .desk
        .open(&room, question(&format!("m{number}"), QUESTION), wishes)
        .ok()
        .unwrap()
}

fn begin(stage: &Stage, number: u8) -> Arc<TurnLog> {
    begin_with(stage, number, stage.desk.usual())
}

async fn asked(stage: &Stage, number: u8) -> Reader {
    Reader::follow(&begin(stage, number)).await
}

fn assert_told(reader: &Reader, source: Source, text: &str, age_s: u64) {
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
async fn a_fresh_answer_asks_no_provider() {
    let stage = house([vec![says("Hello.")]], Share::Always);
    assert_answered(&asked(&stage, 1).await, "a", "Hello.");
    let reader = asked(&stage, 2).await;
    assert_told(&reader, Source::Cache, "Hello.", 0);
    assert_eq!(reader.kinds(), "start token done");
    assert_eq!(stage.calls(0).len(), 1);
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn only_who_asks_as_usual_is_told_what_is_saved() {
    let stage = house([vec![says("Hello.")]], Share::Always);
    saved(&stage, s(5)).await;
    let usual = stage.desk.usual();
    for (number, wishes) in [
        (
            1,
            Wishes {
                cache: CacheUse::Off,
                ..usual.clone()
            },
        ),
        (
            2,
            Wishes {
                first: Some("a".into()),
                ..usual.clone()
            },
        ),
        (
            3,
            Wishes {
                anonymous: false,
                ..usual.clone()
            },
        ),
    ] {
        let reader = Reader::follow(&begin_with(&stage, number, wishes)).await;
        assert_answered(&reader, "a", "Hello.");
        assert_eq!(
            stage.store.cached(shared()).await.unwrap().unwrap().text,
            "Saved."
        );
    }
    let refresh = Wishes {
        cache: CacheUse::Refresh,
        ..usual
    };
    assert_answered(
        &Reader::follow(&begin_with(&stage, 4, refresh)).await,
        "a",
        "Hello.",
    );
    assert_told(&asked(&stage, 5).await, Source::Cache, "Hello.", 0);
    assert_eq!(stage.calls(0).len(), 4);
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn a_retry_is_never_answered_by_what_is_saved() {
    let stage = house(
        [vec![says("One."), says("Two."), fails(Fault::ServerError)]],
        Share::Always,
    );
    let first = begin(&stage, 1);
    assert_answered(&Reader::follow(&first).await, "a", "One.");
    let room = stage.desk.rooms.enter(conversation(1));
    for (name, provider) in [("r1", Some("a")), ("r2", None)] {
        let mut again = question(name, QUESTION);
        again.retry_of = Some(first.turn());
        let log = stage
            .desk
            .open(&room, again, stage.desk.usual())
            .ok()
            .unwrap();
        let reader = Reader::follow(&log).await;
        assert_eq!(reader.done().provider.as_deref(), provider);
        assert!(!matches!(
            reader.done().source,
            Source::Cache | Source::StaleCache
        ));
    }
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn an_answer_that_begins_to_age_is_told_at_once_and_renewed_behind() {
    let stage = house([vec![says_slowly("New", s(3), "er.")]], Share::Never);
    saved(&stage, s(3700)).await;
    for number in 1..=5 {
        assert_told(&asked(&stage, number).await, Source::Cache, "Saved.", 3700);
    }
    pass(s(4)).await;
    assert_eq!(stage.calls(0).len(), 1, "one renews it");
    let told = asked(&stage, 6).await;
    assert_told(&told, Source::Cache, "Newer.", 0);
    let counts = &stage.desk.counts;
    assert_eq!(
        counts.ended.load(std::sync::atomic::Ordering::Relaxed),
        6,
        "a renewal is no answer"
    );
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn a_renewal_that_fails_leaves_the_old_answer() {
    let stage = house([vec![fails(Fault::ServerError)]], Share::Never);
    saved(&stage, s(3700)).await;
    for number in 1..=2 {
        assert_told(&asked(&stage, number).await, Source::Cache, "Saved.", 3700);
        pass(s(5)).await;
    }
    assert!(stage.calls(0).len() >= 2);
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn an_old_answer_is_told_when_no_provider_can_answer_and_not_before() {
    let stage = house(
        [vec![says("Hello."), fails(Fault::ServerError)]],
        Share::Never,
    );
    saved(&stage, s(5 * 3600)).await;
    assert_answered(&asked(&stage, 1).await, "a", "Hello.");
    assert_told(
        &asked(&stage, 2).await,
        Source::StaleCache,
        "Saved.",
        5 * 3600,
    );
    let off = Wishes {
        cache: CacheUse::Off,
        ..stage.desk.usual()
    };
    assert_fallback(&Reader::follow(&begin_with(&stage, 3, off)).await);
    // What was shown before is voided by it.
    let torn = house([vec![breaks("Half an", Fault::Reset)]], Share::Never);
    saved(&torn, s(5 * 3600)).await;
    let reader = asked(&torn, 1).await;
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
async fn a_store_that_hangs_holds_an_answer_up_no_longer_than_its_limits() {
    let stage = house([vec![fails(Fault::ServerError)]], Share::Always);
    saved(&stage, s(5)).await;
    stage.store.set(Trouble::Slow(s(30)));
    let (log, begun) = (begin(&stage, 1), tokio::time::Instant::now());
    assert_fallback(&Reader::follow(&log).await);
    // 250 ms for the history, 50 for what is saved, a retry, and 250 for the end.
    assert!(begun.elapsed() < ms(1000), "{:?}", begun.elapsed());
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn one_asks_for_all_who_ask_alike() {
    let stage = house([vec![says_slowly("Hel", s(2), "lo.")]], Share::Always);
    let first = begin(&stage, 1);
    settled().await;
    let others: Vec<_> = (2..=6).map(|number| begin(&stage, number)).collect();
    let away = begin(&stage, 7);
    settled().await;
    away.cancel(Cancel::Stopped);
    assert_eq!(Reader::follow(&away).await.done().finish, Finish::Stopped);
    assert_answered(&Reader::follow(&first).await, "a", "Hello.");
    for other in &others {
        assert_told(&Reader::follow(other).await, Source::Cache, "Hello.", 0);
    }
    assert_eq!(stage.calls(0).len(), 1);
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn where_nothing_is_shared_each_asks() {
    for share in [Share::Never, Share::Repeated] {
        let stage = house([vec![says_slowly("Hel", s(2), "lo.")]], share);
        let logs: Vec<_> = (1..=2).map(|number| begin(&stage, number)).collect();
        for log in &logs {
            assert_answered(&Reader::follow(log).await, "a", "Hello.");
        }
        assert_eq!(stage.calls(0).len(), 2, "{share:?}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn where_the_one_who_asks_fails_each_goes_its_own_way() {
    let stage = house(
        [
            vec![fails(Fault::BadRequest)],
            vec![says_slowly("Hel", s(2), "lo.")],
        ],
        Share::Always,
    );
    let logs: Vec<_> = (1..=4).map(|number| begin(&stage, number)).collect();
    pass(s(1)).await;
    assert_eq!(
        stage.calls(1).len(),
        4,
        "nobody waits for the end of a second attempt"
    );
    for log in &logs {
        assert_answered(&Reader::follow(log).await, "b", "Hello.");
    }
    assert_eq!((logs.len(), stage.calls(1).len()), (4, 4));
    // One that its visitor stops is no answer for the others either.
    let stage = house([vec![says_slowly("Hel", s(2), "lo.")]], Share::Always);
    let logs: Vec<_> = (1..=3).map(|number| begin(&stage, number)).collect();
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
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn questions_are_answered_ahead_of_time_one_by_one_while_all_is_quiet() {
    let warm = vec![QUESTION.to_owned(), "What else?".to_owned()];
    let cache = CacheSettings {
        share: Share::Never,
        warm,
        ..CacheSettings::default()
    };
    let mut house = House::following([vec![says_slowly("Hel", s(12), "lo."), says("Hello.")]]);
    house.settings.cache = cache;
    let stage = house.open();
    let busy = begin_with(
        &stage,
        1,
        Wishes {
            cache: CacheUse::Off,
            ..stage.desk.usual()
        },
    );
    settled().await;
    actix::spawn(crate::turn::warm::warm(Arc::clone(&stage.desk)));
    pass(s(11)).await;
    assert_eq!(stage.calls(0).len(), 1, "not while a visitor is answered");
    assert_eq!(Reader::follow(&busy).await.done().source, Source::Ai);
    for calls in [2, 3, 3] {
        pass(s(10)).await;
        assert_eq!(stage.calls(0).len(), calls);
    }
    assert_told(&asked(&stage, 2).await, Source::Cache, "Hello.", 0);
    assert_eq!(stage.calls(0).len(), 3);
    stage.assert_idle().await;
}
