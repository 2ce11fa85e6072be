//! Turns that end early: stopped by the visitor, orphaned, or cut off by shutdown.

use super::*;
use crate::chat::TurnState;
use crate::turn::desk::{CHAT_PATIENCE, Phase, Refused, Wishes};
use crate::turn::log::Cancel;
use crate::turn::rooms::NotOpened;

/// A service whose provider streams for longer than any limit.
fn endless() -> House {
    let mut builder =
        House::following([vec![vec![Act::Forever("ha".to_owned(), ms(300))]], vec![]]);
    builder.plans[0].patience.attempt = s(110);
    builder
}

#[actix_rt::test(system = "Paused")]
async fn stop_ends_the_answer_at_once_and_closes_the_connection() {
    let harness = endless().open();
    let log = harness.ask("m");
    let mut follower = log.follow();
    let mut reader = Reader::default();
    pass(s(1)).await;
    let stopped = tokio::time::Instant::now();
    log.cancel(Cancel::Stopped);
    reader.read(&mut follower).await;
    assert_eq!(stopped.elapsed(), Duration::ZERO);
    let done = reader.done();
    assert_eq!(
        (done.finish, done.source, &*done.text),
        (Finish::Stopped, Source::Ai, "hahaha")
    );
    assert_eq!(tried(&reader), ["1 a stopped 1000"]);
    harness.assert_idle().await;
    let status = harness.stands[0].vitals().await;
    assert_eq!(
        (status.successes, status.failures),
        (0, 0),
        "neither a success nor a failure of the provider"
    );
    assert!(harness.calls(1).is_empty(), "no new attempt");
    let stored = harness.stored(&log).await.unwrap();
    assert_eq!(
        (stored.state, stored.finish),
        (TurnState::Done, Some(Finish::Stopped))
    );
}

#[actix_rt::test(system = "Paused")]
async fn stop_during_a_backoff_starts_no_attempt() {
    let harness = House::following([vec![limited(s(2)), says("Hello.")], vec![]]).open();
    let log = harness.ask("m");
    let mut follower = log.follow();
    pass(s(1)).await;
    log.cancel(Cancel::Stopped);
    let mut reader = Reader::default();
    reader.read(&mut follower).await;
    assert_eq!(
        (reader.done().finish, reader.done().total_ms),
        (Finish::Stopped, 1_000)
    );
    pass(s(5)).await;
    assert_eq!((harness.calls(0).len(), harness.calls(1).len()), (1, 0));
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn stop_before_the_first_attempt_starts_none() {
    let harness = House::following([vec![]]).open();
    let log = harness.ask("m");
    log.cancel(Cancel::Stopped);
    let reader = Reader::follow(&log).await;
    assert_eq!(
        (reader.kinds().as_str(), reader.done().finish),
        ("start done", Finish::Stopped)
    );
    assert!(harness.calls(0).is_empty());
}

#[actix_rt::test(system = "Paused")]
async fn stop_keeps_the_shown_text_of_a_failed_attempt() {
    let harness = House::following([vec![breaks("Hello", Fault::Reset)], vec![silent()]]).open();
    let log = harness.ask("m");
    let mut follower = log.follow();
    pass(s(1)).await;
    log.cancel(Cancel::Stopped);
    let mut reader = Reader::default();
    reader.read(&mut follower).await;
    assert_eq!(
        (reader.done().finish, &*reader.text),
        (Finish::Stopped, "Hello")
    );
    assert_eq!(
        reader.done().provider.as_deref(),
        Some("a"),
        "the provider of the text"
    );
    assert_eq!(tried(&reader), ["1 a reset 0", "2 b stopped 1000"]);
}

#[actix_rt::test(system = "Paused")]
async fn only_the_first_cancel_has_an_effect() {
    let harness = endless().open();
    let log = harness.ask("m");
    log.cancel(Cancel::Stopped);
    log.cancel(Cancel::Interrupted);
    let reader = Reader::follow(&log).await;
    assert_eq!(reader.done().finish, Finish::Stopped);
    let ended = answer(&House::following([vec![]]).open()).await;
    log.cancel(Cancel::Stopped);
    assert_eq!(ended.done().finish, Finish::Stop);
}

#[actix_rt::test(system = "Paused")]
async fn turn_without_followers_is_interrupted_after_a_minute() {
    let harness = endless().open();
    let log = harness.ask("m");
    pass(CHAT_PATIENCE - ms(1)).await;
    assert!(!log.ended());
    pass(ms(1)).await;
    assert!(log.ended());
    let record = log.record();
    assert_eq!(
        (record.state, record.finish),
        (TurnState::Interrupted, Some(Finish::Interrupted))
    );
    assert!(record.text.starts_with("hahaha"));
    harness.assert_idle().await;
    assert_eq!(harness.stands[0].vitals().await.failures, 0);
}

#[actix_rt::test(system = "Paused")]
async fn orphan_timeout_continues_across_attempts() {
    let scripts = [
        vec![vec![say("ha"), Act::Hang]],
        vec![vec![Act::Forever("ho".to_owned(), s(1))]],
    ];
    let mut builder = House::following(scripts);
    builder.plans[0].patience.stall = s(50);
    let harness = builder.open();
    let log = harness.ask("m");
    pass(CHAT_PATIENCE).await;
    assert!(log.ended(), "ten seconds into the second attempt");
    assert_eq!(log.record().tried.len(), 2);
}

#[actix_rt::test(system = "Paused")]
async fn follower_that_returns_within_a_minute_resumes_without_a_gap() {
    let harness = endless().open();
    let log = harness.ask("m");
    let mut reader = Reader::default();
    let mut follower = log.follow();
    pass(s(1)).await;
    reader.take(&follower.next().await.unwrap());
    drop(follower);
    let seen = reader.text.clone();
    pass(CHAT_PATIENCE - ms(1)).await;
    let mut follower = log.resume(reader.seq);
    pass(s(5)).await;
    assert!(!log.ended(), "somebody follows");
    log.cancel(Cancel::Stopped);
    reader.read(&mut follower).await;
    assert!(reader.text.len() > seen.len() && !reader.kinds().contains("snapshot"));
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn orphan_timeout_restarts_with_each_absence() {
    let harness = endless().open();
    let log = harness.ask("m");
    pass(s(40)).await;
    drop(log.follow());
    pass(s(40)).await;
    let first = log.follow();
    let second = log.follow();
    drop(first);
    pass(s(20)).await;
    assert!(!log.ended());
    drop(second);
    assert!(!log.ended());
}

#[actix_rt::test(system = "Paused")]
async fn shorter_orphan_grace_interrupts_sooner() {
    let harness = endless().open();
    let log = harness.ask_with(
        "m",
        Wishes {
            patience: s(1),
            ..harness.desk.usual()
        },
    );
    pass(s(1)).await;
    assert!(log.ended());
}

#[actix_rt::test(system = "Paused")]
async fn open_rejects_busy_conversations_and_duplicate_messages() {
    let harness = endless().open();
    let log = harness.ask("m");
    pass(ms(1)).await;
    let open = |name, text| {
        let opened = harness
            .desk
            .open(&harness.room(), question(name, text), harness.desk.usual());
        opened
            .map(|_| "opened")
            .unwrap_or_else(|error| match error {
                Refused::Room(NotOpened::Busy) => "busy",
                Refused::Room(NotOpened::Duplicate(same)) if Arc::ptr_eq(&same, &log) => "the same",
                Refused::Room(NotOpened::OtherText) => "other text",
                _ => "?",
            })
    };
    assert_eq!(open("other", "What is new?"), "busy");
    assert_eq!(open("m", "What is new?"), "the same");
    assert_eq!(open("m", "What is old?"), "other text");
    log.cancel(Cancel::Stopped);
    harness.ended(&log).await;
    assert_eq!(open("m", "What is new?"), "the same", "also after its end");
    assert_eq!(open("other", "What is new?"), "opened");
    assert_eq!(harness.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn open_fails_at_the_turn_limit() {
    use crate::turn::stage::{TURNS, conversation};
    let harness = endless().open();
    let open = |number: usize| {
        let conversation = harness
            .desk
            .rooms
            .enter(conversation(u8::try_from(number).unwrap()));
        harness
            .desk
            .open(&conversation, question("m", "?"), harness.desk.usual())
    };
    let logs: Vec<_> = (0..TURNS)
        .map(|number| open(number).ok().unwrap())
        .collect();
    assert_eq!(harness.desk.places.taken(), TURNS);
    assert!(matches!(open(TURNS), Err(Refused::Full)));
    logs[0].cancel(Cancel::Stopped);
    harness.ended(&logs[0]).await;
    settled().await;
    assert!(
        open(TURNS).is_ok(),
        "the permit is released at once, not when the log is evicted"
    );
    // A reload raises the limit, then lowers it below the number of running turns.
    harness.reload(|settings| settings.limits.turns = TURNS + 1);
    assert!(open(TURNS + 1).is_ok());
    harness.reload(|settings| settings.limits.turns = 1);
    logs[1].cancel(Cancel::Stopped);
    harness.ended(&logs[1]).await;
    settled().await;
    assert!(matches!(open(TURNS + 2), Err(Refused::Full)));
}

#[actix_rt::test(system = "Paused")]
async fn draining_rejects_new_turns_and_lets_running_ones_end() {
    let harness = House::following([vec![says_slowly("Hel", s(3), "lo.")]]).open();
    let log = harness.ask("m");
    harness.phase.send_replace(Phase::Draining);
    assert!(matches!(
        harness.try_ask("n", harness.desk.usual()),
        Err(Refused::Draining)
    ));
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn end_of_the_drain_interrupts_every_turn() {
    use crate::turn::stage::conversation;
    let harness = endless().open();
    let mut logs = vec![harness.ask("m")];
    let conversation = harness.desk.rooms.enter(conversation(2));
    logs.extend(
        harness
            .desk
            .open(&conversation, question("m", "?"), harness.desk.usual())
            .ok(),
    );
    let followers: Vec<_> = logs.iter().map(TurnLog::follow).collect();
    pass(s(1)).await;
    harness.phase.send_replace(Phase::Cutting);
    for mut follower in followers {
        let mut reader = Reader::default();
        reader.read(&mut follower).await;
        assert_eq!(
            (reader.done().finish, &*reader.text),
            (Finish::Interrupted, "hahaha")
        );
    }
    harness.assert_idle().await;
    let stored = harness.stored(&logs[0]).await.unwrap();
    assert_eq!(
        (stored.state, &*stored.text),
        (TurnState::Interrupted, "hahaha")
    );
}
