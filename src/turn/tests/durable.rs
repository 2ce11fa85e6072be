//! Durability: the order of writes and frames, and the cost of a failing store.

use super::*;
use crate::chat::TurnState;
use crate::store::flaky::Trouble;
use crate::turn::log::Cancel;

#[actix_rt::test(system = "Paused")]
async fn no_frame_is_shown_before_the_question_is_on_disk() {
    let harness = House::following([vec![says_slowly("Hel", s(1), "lo.")]]).open();
    harness.store.set(Trouble::Slow(ms(200)));
    let started = tokio::time::Instant::now();
    let log = harness.ask("m");
    let mut follower = log.follow();
    let mut reader = Reader::default();
    reader.take(&follower.next().await.unwrap());
    assert_eq!(started.elapsed(), ms(200));
    assert!(log.durable().await);
    assert!(*harness.desk.durable.borrow());
    // The history was read in parallel and took as long.
    assert_eq!(harness.calls(0)[0].at - started, ms(200));
    reader.read(&mut follower).await;
    assert_answered(&reader, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn slow_store_is_waited_for_at_most_250_ms() {
    let harness = House::following([vec![]]).open();
    harness.store.set(Trouble::Slow(ms(251)));
    let started = tokio::time::Instant::now();
    let log = harness.ask("m");
    assert!(!log.durable().await);
    assert_eq!(started.elapsed(), ms(250));
    assert!(!*harness.desk.durable.borrow(), "the status shows it");
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    // A store known to be slow is hardly waited for: neither at this turn's end nor in the next.
    assert_eq!(started.elapsed(), ms(265), "the end was written in time");
    harness.store.set(Trouble::None);
    harness
        .desk
        .rooms
        .enter(crate::turn::stage::conversation(1))
        .drop_log(log.turn());
    let log = harness.ask("n");
    assert!(log.durable().await);
    assert!(*harness.desk.durable.borrow(), "healthy again");
}

#[actix_rt::test(system = "Paused")]
async fn failing_store_costs_the_history_and_nothing_else() {
    let harness = House::following([vec![]]).open();
    harness.remember(2).await;
    harness.store.set(Trouble::Fails);
    let log = harness.ask("m");
    assert!(!log.durable().await);
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    assert_eq!(reader.done().total_ms, 0);
    assert_eq!(
        harness.calls(0)[0].ask.messages.len(),
        1,
        "the question only"
    );
    assert!(!*harness.desk.durable.borrow());
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn end_is_on_disk_before_it_is_shown() {
    let harness = House::following([vec![says("Hello.")]]).open();
    let log = harness.ask("m");
    let reader = Reader::follow(&log).await;
    let stored = harness.stored(&log).await.unwrap();
    assert_eq!(stored, log.record());
    assert_eq!(stored.done(reader.seq), *reader.done());
    assert_eq!((stored.state, &*stored.text), (TurnState::Done, "Hello."));
}

#[actix_rt::test(system = "Paused")]
async fn changed_text_is_saved_every_350_ms() {
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
    let harness = House::following([vec![script]]).open();
    let log = harness.ask("m");
    settled().await;
    let saved = async |after: Duration| {
        pass(after).await;
        let stored = harness.stored(&log).await.unwrap();
        assert_eq!(stored.state, TurnState::Running);
        (stored.text, harness.store.checkpoints())
    };
    assert_eq!(saved(ms(699)).await, (String::new(), 0));
    assert_eq!(saved(ms(2)).await, ("one".to_owned(), 1));
    assert_eq!(saved(ms(350)).await, ("one two".to_owned(), 2));
    assert_eq!(
        saved(ms(2_799)).await,
        ("one two".to_owned(), 2),
        "unchanged text is not saved"
    );
    assert_eq!(saved(ms(352)).await, ("one two three".to_owned(), 3));
    log.cancel(Cancel::Stopped);
    harness.ended(&log).await;
    pass(s(2)).await;
    assert_eq!(harness.store.checkpoints(), 3);
}

#[actix_rt::test(system = "Paused")]
async fn drafts_of_a_restart_are_saved() {
    let first = vec![vec![
        say("one"),
        Act::Wait(s(1)),
        Act::Fail(Failure::of(Fault::Reset)),
    ]];
    let harness = House::following([first, vec![vec![say("two"), Act::Hang]]]).open();
    let log = harness.ask("m");
    pass(ms(1_600)).await;
    let stored = harness.stored(&log).await.unwrap();
    assert_eq!(
        (&*stored.text, stored.drafts.len(), &*stored.drafts[0].text),
        ("two", 1, "one")
    );
    assert_eq!(stored.provider.as_deref(), Some("b"));
}

/// Asks after the previous turn's log was evicted. Returns the answer and the time it took.
async fn next_turn(harness: &Stage, name: &str) -> (Reader, Duration) {
    pass(s(6)).await;
    let started = tokio::time::Instant::now();
    let reader = Reader::follow(&harness.ask(name)).await;
    (reader, started.elapsed())
}

/// The providers are unreachable and the store hangs for five seconds. From the second turn on,
/// answers take less than 100 ms.
#[actix_rt::test(system = "Paused")]
async fn fallback_answers_within_100_ms_while_everything_is_down() {
    let dead = || vec![fails(Fault::Unreachable)];
    let mut builder = House::following([dead(), dead()]);
    builder.settings.cache.enabled = true;
    let harness = builder.open();
    harness.store.set(Trouble::Slow(s(5)));
    let (reader, took) = next_turn(&harness, "first").await;
    assert_fallback(&reader);
    // The first turn detects the outage.
    assert!(took < s(2), "{took:?}");
    for number in 0..30 {
        let (reader, took) = next_turn(&harness, &format!("m{number}")).await;
        assert_fallback(&reader);
        assert!(took < ms(100), "{took:?} for turn {number}");
    }
    assert!(!*harness.desk.durable.borrow());
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn slow_store_is_trusted_again_after_a_write_in_time() {
    let harness = House::following([vec![]]).open();
    harness.store.set(Trouble::Slow(s(5)));
    assert_answered(&next_turn(&harness, "m").await.0, "a", "Hello.");
    assert!(!*harness.desk.durable.borrow());
    // Slower than a suspect store is waited for, but fast enough for a healthy one.
    harness.store.set(Trouble::Slow(ms(100)));
    let log = harness.ask("n");
    assert!(!log.durable().await, "not yet");
    Reader::follow(&log).await;
    pass(s(6)).await;
    assert!(*harness.desk.durable.borrow());
    assert!(harness.ask("o").durable().await);
}
