//! What is on disk before what is shown, and what a store in trouble costs.

use super::*;
use crate::chat::TurnState;
use crate::store::flaky::Trouble;
use crate::turn::log::Cancel;

#[actix_rt::test(system = "Paused")]
async fn no_frame_is_seen_before_the_question_is_on_disk() {
    let stage = House::following([vec![says_slowly("Hel", s(1), "lo.")]]).open();
    stage.store.set(Trouble::Slow(ms(200)));
    let begun = tokio::time::Instant::now();
    let log = stage.ask("m");
    let mut follower = log.follow();
    let mut reader = Reader::default();
    reader.take(&follower.next().await.unwrap());
    assert_eq!(begun.elapsed(), ms(200));
    assert!(log.durable().await);
    assert!(*stage.desk.durable.borrow());
    // The history was read beside it, for as long.
    assert_eq!(stage.calls(0)[0].at - begun, ms(200));
    reader.read(&mut follower).await;
    assert_answered(&reader, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn a_store_that_is_too_slow_is_not_waited_for() {
    let stage = House::following([vec![]]).open();
    stage.store.set(Trouble::Slow(ms(251)));
    let begun = tokio::time::Instant::now();
    let log = stage.ask("m");
    assert!(!log.durable().await);
    assert_eq!(begun.elapsed(), ms(250));
    assert!(!*stage.desk.durable.borrow(), "and the status says so");
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    // Once it is known, it is hardly waited for at all: of the end, and of all of the next turn.
    assert_eq!(begun.elapsed(), ms(265), "neither is the write of its end");
    stage.store.set(Trouble::None);
    stage
        .desk
        .rooms
        .enter(crate::turn::stage::conversation(1))
        .drop_log(log.turn());
    let log = stage.ask("n");
    assert!(log.durable().await);
    assert!(*stage.desk.durable.borrow(), "until it is well again");
}

#[actix_rt::test(system = "Paused")]
async fn a_store_that_fails_costs_the_history_and_nothing_else() {
    let stage = House::following([vec![]]).open();
    stage.remember(2).await;
    stage.store.set(Trouble::Fails);
    let log = stage.ask("m");
    assert!(!log.durable().await);
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    assert_eq!(reader.done().total_ms, 0);
    assert_eq!(
        stage.calls(0)[0].ask.messages.len(),
        1,
        "the question alone"
    );
    assert!(!*stage.desk.durable.borrow());
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn the_end_is_on_disk_before_it_is_shown() {
    let stage = House::following([vec![says("Hello.")]]).open();
    let log = stage.ask("m");
    let reader = Reader::follow(&log).await;
    let stored = stage.stored(&log).await.unwrap();
    assert_eq!(stored, log.record());
    assert_eq!(stored.done(reader.seq), *reader.done());
    assert_eq!((stored.state, &*stored.text), (TurnState::Done, "Hello."));
}

#[actix_rt::test(system = "Paused")]
async fn the_text_so_far_is_saved_every_350_ms_where_it_changed() {
    let script = vec![
        Act::Wait(ms(500)),
        say("one"),
        Act::Wait(ms(350)),
        say(" two"),
        Act::Wait(ms(3_100)),
        say(" three"),
        Act::Wait(s(1)),
        end(),
    ];
    let stage = House::following([vec![script]]).open();
    let log = stage.ask("m");
    settled().await;
    let saved = async |after: Duration| {
        pass(after).await;
        let stored = stage.stored(&log).await.unwrap();
        assert_eq!(stored.state, TurnState::Running);
        (stored.text, stage.store.checkpoints())
    };
    assert_eq!(saved(ms(699)).await, (String::new(), 0));
    assert_eq!(saved(ms(2)).await, ("one".to_owned(), 1));
    assert_eq!(saved(ms(350)).await, ("one two".to_owned(), 2));
    assert_eq!(
        saved(ms(2_799)).await,
        ("one two".to_owned(), 2),
        "nothing new, nothing saved"
    );
    assert_eq!(saved(ms(352)).await, ("one two three".to_owned(), 3));
    log.cancel(Cancel::Stopped);
    stage.ended(&log).await;
    pass(s(2)).await;
    assert_eq!(stage.store.checkpoints(), 3);
}

#[actix_rt::test(system = "Paused")]
async fn a_restart_is_saved_too() {
    let first = vec![vec![
        say("one"),
        Act::Wait(s(1)),
        Act::Fail(Failure::of(Fault::Reset)),
    ]];
    let stage = House::following([first, vec![vec![say("two"), Act::Hang]]]).open();
    let log = stage.ask("m");
    pass(ms(1_600)).await;
    let stored = stage.stored(&log).await.unwrap();
    assert_eq!(
        (&*stored.text, stored.drafts.len(), &*stored.drafts[0].text),
        ("two", 1, "one")
    );
    assert_eq!(stored.provider.as_deref(), Some("b"));
}

/// Waits until the turn's log is gone, so that the conversation's next question finds nothing under way, and asks that.
async fn next_turn(stage: &Stage, name: &str) -> (Reader, Duration) {
    pass(s(6)).await;
    let asked = tokio::time::Instant::now();
    let reader = Reader::follow(&stage.ask(name)).await;
    (reader, asked.elapsed())
}

/// Providers that cannot be reached and a store that answers nothing for five seconds, at once: the second who asks is answered within 100 ms.
#[actix_rt::test(system = "Paused")]
async fn with_everything_dead_at_once_the_ladder_answers_within_100_ms() {
    let dead = || vec![fails(Fault::Unreachable)];
    let mut house = House::following([dead(), dead()]);
    house.settings.cache.enabled = true;
    let stage = house.open();
    stage.store.set(Trouble::Slow(s(5)));
    let (reader, took) = next_turn(&stage, "first").await;
    assert_fallback(&reader);
    // The first finds out.
    assert!(took < s(2), "{took:?}");
    for number in 0..30 {
        let (reader, took) = next_turn(&stage, &format!("m{number}")).await;
        assert_fallback(&reader);
        assert!(took < ms(100), "{took:?} for turn {number}");
    }
    assert!(!*stage.desk.durable.borrow());
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn a_slow_disk_in_doubt_is_trusted_again_as_soon_as_it_confirms_in_time() {
    let stage = House::following([vec![]]).open();
    stage.store.set(Trouble::Slow(s(5)));
    assert_answered(&next_turn(&stage, "m").await.0, "a", "Hello.");
    assert!(!*stage.desk.durable.borrow());
    // Slower than one in doubt is waited for, and as fast as a disk has to be.
    stage.store.set(Trouble::Slow(ms(100)));
    let log = stage.ask("n");
    assert!(!log.durable().await, "not yet");
    Reader::follow(&log).await;
    pass(s(6)).await;
    assert!(*stage.desk.durable.borrow());
    assert!(stage.ask("o").durable().await);
}
