//! Turns that end early: stopped by the visitor, orphaned, or cut off by shutdown.

use super::*;
use crate::domain::TurnState;
use crate::turn::conversations::TurnConflict;
use crate::turn::deps::{ShutdownPhase, TurnOptions};
use crate::turn::log::Cancel;
use crate::turn::service::{CHAT_ORPHAN_GRACE, OpenTurnError};

/// A service whose provider streams for longer than any limit.
fn endless() -> TestServiceBuilder {
    let mut builder = TestServiceBuilder::with_scripts([
        vec![vec![ScriptStep::RepeatForever("ha".to_owned(), ms(300))]],
        vec![],
    ]);
    builder.providers[0].timeouts.total = s(110);
    builder
}

#[actix_rt::test(system = "Paused")]
async fn stop_ends_the_answer_at_once_and_closes_the_connection() {
    let harness = endless().start();
    let log = harness.ask("m");
    let mut follower = log.follow();
    let mut reader = ProtocolClient::default();
    advance(s(1)).await;
    let stopped = tokio::time::Instant::now();
    log.cancel(Cancel::Stopped);
    reader.read_to_end(&mut follower).await;
    assert_eq!(stopped.elapsed(), Duration::ZERO);
    let done = reader.done();
    assert_eq!(
        (done.finish, done.source, &*done.text),
        (FinishReason::Stopped, AnswerSource::Ai, "hahaha")
    );
    assert_eq!(attempt_lines(&reader), ["1 a stopped 1000"]);
    harness.assert_idle().await;
    let status = harness.providers[0].status().await;
    assert_eq!(
        (status.successes, status.failures),
        (0, 0),
        "neither a success nor a failure of the provider"
    );
    assert!(harness.calls(1).is_empty(), "no new attempt");
    let stored = harness.stored_turn(&log).await.unwrap();
    assert_eq!(
        (stored.state, stored.finish),
        (TurnState::Done, Some(FinishReason::Stopped))
    );
}

#[actix_rt::test(system = "Paused")]
async fn stop_during_a_backoff_starts_no_attempt() {
    let harness =
        TestServiceBuilder::with_scripts([vec![rate_limited(s(2)), reply("Hello.")], vec![]])
            .start();
    let log = harness.ask("m");
    let mut follower = log.follow();
    advance(s(1)).await;
    log.cancel(Cancel::Stopped);
    let mut reader = ProtocolClient::default();
    reader.read_to_end(&mut follower).await;
    assert_eq!(
        (reader.done().finish, reader.done().total_ms),
        (FinishReason::Stopped, 1_000)
    );
    advance(s(5)).await;
    assert_eq!((harness.calls(0).len(), harness.calls(1).len()), (1, 0));
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn stop_before_the_first_attempt_starts_none() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let log = harness.ask("m");
    log.cancel(Cancel::Stopped);
    let reader = ProtocolClient::follow(&log).await;
    assert_eq!(
        (reader.kinds().as_str(), reader.done().finish),
        ("start done", FinishReason::Stopped)
    );
    assert!(harness.calls(0).is_empty());
}

#[actix_rt::test(system = "Paused")]
async fn stop_keeps_the_shown_text_of_a_failed_attempt() {
    let harness = TestServiceBuilder::with_scripts([
        vec![break_after("Hello", FaultKind::Reset)],
        vec![hang()],
    ])
    .start();
    let log = harness.ask("m");
    let mut follower = log.follow();
    advance(s(1)).await;
    log.cancel(Cancel::Stopped);
    let mut reader = ProtocolClient::default();
    reader.read_to_end(&mut follower).await;
    assert_eq!(
        (reader.done().finish, &*reader.text),
        (FinishReason::Stopped, "Hello")
    );
    assert_eq!(
        reader.done().provider.as_deref(),
        Some("a"),
        "the provider of the text"
    );
    assert_eq!(attempt_lines(&reader), ["1 a reset 0", "2 b stopped 1000"]);
}

#[actix_rt::test(system = "Paused")]
async fn only_the_first_cancel_has_an_effect() {
    let harness = endless().start();
    let log = harness.ask("m");
    log.cancel(Cancel::Stopped);
    log.cancel(Cancel::Interrupted);
    let reader = ProtocolClient::follow(&log).await;
    assert_eq!(reader.done().finish, FinishReason::Stopped);
    let ended = ask_once(&TestServiceBuilder::with_scripts([vec![]]).start()).await;
    log.cancel(Cancel::Stopped);
    assert_eq!(ended.done().finish, FinishReason::Stop);
}

#[actix_rt::test(system = "Paused")]
async fn turn_without_followers_is_interrupted_after_a_minute() {
    let harness = endless().start();
    let log = harness.ask("m");
    advance(CHAT_ORPHAN_GRACE - ms(1)).await;
    assert!(!log.is_finished());
    advance(ms(1)).await;
    assert!(log.is_finished());
    let record = log.record();
    assert_eq!(
        (record.state, record.finish),
        (TurnState::Interrupted, Some(FinishReason::Interrupted))
    );
    assert!(record.text.starts_with("hahaha"));
    harness.assert_idle().await;
    assert_eq!(harness.providers[0].status().await.failures, 0);
}

#[actix_rt::test(system = "Paused")]
async fn orphan_timeout_continues_across_attempts() {
    let scripts = [
        vec![vec![say("ha"), ScriptStep::Hang]],
        vec![vec![ScriptStep::RepeatForever("ho".to_owned(), s(1))]],
    ];
    let mut builder = TestServiceBuilder::with_scripts(scripts);
    builder.providers[0].timeouts.stall = s(50);
    let harness = builder.start();
    let log = harness.ask("m");
    advance(CHAT_ORPHAN_GRACE).await;
    assert!(log.is_finished(), "ten seconds into the second attempt");
    assert_eq!(log.record().tried.len(), 2);
}

#[actix_rt::test(system = "Paused")]
async fn follower_that_returns_within_a_minute_resumes_without_a_gap() {
    let harness = endless().start();
    let log = harness.ask("m");
    let mut reader = ProtocolClient::default();
    let mut follower = log.follow();
    advance(s(1)).await;
    reader.apply_encoded(&follower.next().await.unwrap());
    drop(follower);
    let seen = reader.text.clone();
    advance(CHAT_ORPHAN_GRACE - ms(1)).await;
    let mut follower = log.resume(reader.last_seq);
    advance(s(5)).await;
    assert!(!log.is_finished(), "somebody follows");
    log.cancel(Cancel::Stopped);
    reader.read_to_end(&mut follower).await;
    assert!(reader.text.len() > seen.len() && !reader.kinds().contains("snapshot"));
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn orphan_timeout_restarts_with_each_absence() {
    let harness = endless().start();
    let log = harness.ask("m");
    advance(s(40)).await;
    drop(log.follow());
    advance(s(40)).await;
    let first = log.follow();
    let second = log.follow();
    drop(first);
    advance(s(20)).await;
    assert!(!log.is_finished());
    drop(second);
    assert!(!log.is_finished());
}

#[actix_rt::test(system = "Paused")]
async fn shorter_orphan_grace_interrupts_sooner() {
    let harness = endless().start();
    let log = harness.ask_with_options(
        "m",
        TurnOptions {
            orphan_grace: s(1),
            ..harness.turns.default_options()
        },
    );
    advance(s(1)).await;
    assert!(log.is_finished());
}

#[actix_rt::test(system = "Paused")]
async fn open_rejects_busy_conversations_and_duplicate_messages() {
    let harness = endless().start();
    let log = harness.ask("m");
    advance(ms(1)).await;
    let open = |name, text| {
        let opened = harness.turns.start_turn(
            &harness.conversation(),
            message(name, text),
            harness.turns.default_options(),
        );
        opened
            .map(|_| "opened")
            .unwrap_or_else(|error| match error {
                OpenTurnError::Conflict(TurnConflict::Busy) => "busy",
                OpenTurnError::Conflict(TurnConflict::Duplicate(same))
                    if Arc::ptr_eq(&same, &log) =>
                {
                    "the same"
                }
                OpenTurnError::Conflict(TurnConflict::ConflictingText) => "other text",
                _ => "?",
            })
    };
    assert_eq!(open("other", "What is new?"), "busy");
    assert_eq!(open("m", "What is new?"), "the same");
    assert_eq!(open("m", "What is old?"), "other text");
    log.cancel(Cancel::Stopped);
    harness.wait_until_done(&log).await;
    assert_eq!(open("m", "What is new?"), "the same", "also after its end");
    assert_eq!(open("other", "What is new?"), "opened");
    assert_eq!(harness.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn open_fails_at_the_turn_limit() {
    use crate::turn::test_service::{MAX_TURNS, conversation_id};
    let harness = endless().start();
    let open = |number: usize| {
        let conversation = harness
            .turns
            .conversations
            .get_or_create(conversation_id(u8::try_from(number).unwrap()));
        harness.turns.start_turn(
            &conversation,
            message("m", "?"),
            harness.turns.default_options(),
        )
    };
    let logs: Vec<_> = (0..MAX_TURNS)
        .map(|number| open(number).ok().unwrap())
        .collect();
    assert_eq!(harness.turns.turn_limit.in_use(), MAX_TURNS);
    assert!(matches!(open(MAX_TURNS), Err(OpenTurnError::AtCapacity)));
    logs[0].cancel(Cancel::Stopped);
    harness.wait_until_done(&logs[0]).await;
    run_until_idle().await;
    assert!(
        open(MAX_TURNS).is_ok(),
        "the permit is released at once, not when the log is evicted"
    );
    // A reload raises the limit, then lowers it below the number of running turns.
    harness.reload(|settings| settings.limits.turns = MAX_TURNS + 1);
    assert!(open(MAX_TURNS + 1).is_ok());
    harness.reload(|settings| settings.limits.turns = 1);
    logs[1].cancel(Cancel::Stopped);
    harness.wait_until_done(&logs[1]).await;
    run_until_idle().await;
    assert!(matches!(
        open(MAX_TURNS + 2),
        Err(OpenTurnError::AtCapacity)
    ));
}

#[actix_rt::test(system = "Paused")]
async fn draining_rejects_new_turns_and_lets_running_ones_end() {
    let harness =
        TestServiceBuilder::with_scripts([vec![reply_slowly("Hel", s(3), "lo.")]]).start();
    let log = harness.ask("m");
    harness.phase.send_replace(ShutdownPhase::Draining);
    assert!(matches!(
        harness.try_ask("n", harness.turns.default_options()),
        Err(OpenTurnError::Draining)
    ));
    let reader = ProtocolClient::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn end_of_the_drain_interrupts_every_turn() {
    use crate::turn::test_service::conversation_id;
    let harness = endless().start();
    let mut logs = vec![harness.ask("m")];
    let conversation = harness
        .turns
        .conversations
        .get_or_create(conversation_id(2));
    logs.extend(
        harness
            .turns
            .start_turn(
                &conversation,
                message("m", "?"),
                harness.turns.default_options(),
            )
            .ok(),
    );
    let followers: Vec<_> = logs.iter().map(TurnLog::follow).collect();
    advance(s(1)).await;
    harness.phase.send_replace(ShutdownPhase::Aborting);
    for mut follower in followers {
        let mut reader = ProtocolClient::default();
        reader.read_to_end(&mut follower).await;
        assert_eq!(
            (reader.done().finish, &*reader.text),
            (FinishReason::Interrupted, "hahaha")
        );
    }
    harness.assert_idle().await;
    let stored = harness.stored_turn(&logs[0]).await.unwrap();
    assert_eq!(
        (stored.state, &*stored.text),
        (TurnState::Interrupted, "hahaha")
    );
}
