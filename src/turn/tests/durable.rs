//! Durability: the order of writes and frames, and the cost of a failing store.

use super::*;
use crate::domain::TurnState;
use crate::store::flaky::StoreFault;
use crate::turn::log::Cancel;

#[actix_rt::test(system = "Paused")]
async fn no_frame_is_shown_before_the_question_is_on_disk() {
    let harness =
        TestServiceBuilder::with_scripts([vec![reply_slowly("Hel", s(1), "lo.")]]).start();
    harness.store.set_fault(StoreFault::Slow(ms(200)));
    let started = tokio::time::Instant::now();
    let log = harness.ask("m");
    let mut follower = log.follow();
    let mut reader = ProtocolClient::default();
    reader.apply_encoded(&follower.next().await.unwrap());
    assert_eq!(started.elapsed(), ms(200));
    assert!(log.await_durability().await);
    assert!(*harness.turns.store_healthy.borrow());
    // The history was read in parallel and took as long.
    assert_eq!(harness.calls(0)[0].started_at - started, ms(200));
    reader.read_to_end(&mut follower).await;
    assert_answered(&reader, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn slow_store_is_waited_for_at_most_250_ms() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    harness.store.set_fault(StoreFault::Slow(ms(251)));
    let started = tokio::time::Instant::now();
    let log = harness.ask("m");
    assert!(!log.await_durability().await);
    assert_eq!(started.elapsed(), ms(250));
    assert!(
        !*harness.turns.store_healthy.borrow(),
        "the status shows it"
    );
    let reader = ProtocolClient::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    // A store known to be slow is hardly waited for: neither at this turn's end nor in the next.
    assert_eq!(started.elapsed(), ms(265), "the end was written in time");
    harness.store.set_fault(StoreFault::None);
    harness
        .turns
        .conversations
        .get_or_create(crate::turn::test_service::conversation_id(1))
        .evict_log(log.turn());
    let log = harness.ask("n");
    assert!(log.await_durability().await);
    assert!(*harness.turns.store_healthy.borrow(), "healthy again");
}

#[actix_rt::test(system = "Paused")]
async fn failing_store_costs_the_history_and_nothing_else() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    harness.store_old_turns(2).await;
    harness.store.set_fault(StoreFault::Failing);
    let log = harness.ask("m");
    assert!(!log.await_durability().await);
    let reader = ProtocolClient::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    assert_eq!(reader.done().total_ms, 0);
    assert_eq!(
        harness.calls(0)[0].request.messages.len(),
        1,
        "the question only"
    );
    assert!(!*harness.turns.store_healthy.borrow());
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn end_is_on_disk_before_it_is_shown() {
    let harness = TestServiceBuilder::with_scripts([vec![reply("Hello.")]]).start();
    let log = harness.ask("m");
    let reader = ProtocolClient::follow(&log).await;
    let stored = harness.stored_turn(&log).await.unwrap();
    assert_eq!(stored, log.record());
    assert_eq!(stored.done_frame(reader.last_seq), *reader.done());
    assert_eq!((stored.state, &*stored.text), (TurnState::Done, "Hello."));
}

#[actix_rt::test(system = "Paused")]
async fn changed_text_is_saved_every_350_ms() {
    let script = vec![
        ScriptStep::Pause(ms(500)),
        say("one"),
        ScriptStep::Pause(ms(350)),
        say(" two"),
        ScriptStep::Pause(ms(3_100)),
        say(" three"),
        ScriptStep::Pause(s(1)),
        end(),
    ];
    let harness = TestServiceBuilder::with_scripts([vec![script]]).start();
    let log = harness.ask("m");
    run_until_idle().await;
    let saved = async |after: Duration| {
        advance(after).await;
        let stored = harness.stored_turn(&log).await.unwrap();
        assert_eq!(stored.state, TurnState::Running);
        (stored.text, harness.store.checkpoint_count())
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
    harness.wait_until_done(&log).await;
    advance(s(2)).await;
    assert_eq!(harness.store.checkpoint_count(), 3);
}

#[actix_rt::test(system = "Paused")]
async fn drafts_of_a_restart_are_saved() {
    let first = vec![vec![
        say("one"),
        ScriptStep::Pause(s(1)),
        ScriptStep::Fail(Failure::new(FaultKind::Reset)),
    ]];
    let harness =
        TestServiceBuilder::with_scripts([first, vec![vec![say("two"), ScriptStep::Hang]]]).start();
    let log = harness.ask("m");
    advance(ms(1_600)).await;
    let stored = harness.stored_turn(&log).await.unwrap();
    assert_eq!(
        (&*stored.text, stored.drafts.len(), &*stored.drafts[0].text),
        ("two", 1, "one")
    );
    assert_eq!(stored.provider.as_deref(), Some("b"));
}

/// Asks after the previous turn's log was evicted. Returns the answer and the time it took.
async fn next_turn(harness: &TestService, name: &str) -> (ProtocolClient, Duration) {
    advance(s(6)).await;
    let started = tokio::time::Instant::now();
    let reader = ProtocolClient::follow(&harness.ask(name)).await;
    (reader, started.elapsed())
}

/// The providers are unreachable and the store hangs for five seconds. From the second turn on,
/// answers take less than 100 ms.
#[actix_rt::test(system = "Paused")]
async fn fallback_answers_within_100_ms_while_everything_is_down() {
    let dead = || vec![fail_with(FaultKind::Unreachable)];
    let mut builder = TestServiceBuilder::with_scripts([dead(), dead()]);
    builder.settings.cache.enabled = true;
    let harness = builder.start();
    harness.store.set_fault(StoreFault::Slow(s(5)));
    let (reader, took) = next_turn(&harness, "first").await;
    assert_fallback(&reader);
    // The first turn detects the outage.
    assert!(took < s(2), "{took:?}");
    for number in 0..30 {
        let (reader, took) = next_turn(&harness, &format!("m{number}")).await;
        assert_fallback(&reader);
        assert!(took < ms(100), "{took:?} for turn {number}");
    }
    assert!(!*harness.turns.store_healthy.borrow());
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn slow_store_is_trusted_again_after_a_write_in_time() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    harness.store.set_fault(StoreFault::Slow(s(5)));
    assert_answered(&next_turn(&harness, "m").await.0, "a", "Hello.");
    assert!(!*harness.turns.store_healthy.borrow());
    // Slower than a suspect store is waited for, but fast enough for a healthy one.
    harness.store.set_fault(StoreFault::Slow(ms(100)));
    let log = harness.ask("n");
    assert!(!log.await_durability().await, "not yet");
    ProtocolClient::follow(&log).await;
    advance(s(6)).await;
    assert!(*harness.turns.store_healthy.borrow());
    assert!(harness.ask("o").await_durability().await);
}
