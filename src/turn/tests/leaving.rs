//! Turns that are ended by their visitor, by nobody following, or by the service going down.

use super::*;
use crate::chat::TurnState;
use crate::turn::desk::{CHAT_PATIENCE, Phase, Refused, Wishes};
use crate::turn::log::Cancel;
use crate::turn::rooms::NotOpened;

/// Speaks for longer than anybody waits.
fn endless() -> House {
    let mut house = House::following([vec![vec![Act::Forever("ha".to_owned(), ms(300))]], vec![]]);
    house.plans[0].patience.attempt = s(110);
    house
}

#[actix_rt::test(system = "Paused")]
async fn stop_ends_the_answer_at_once_and_closes_the_connection() {
    let stage = endless().open();
    let log = stage.ask("m");
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
    stage.assert_idle().await;
    let vitals = stage.stands[0].vitals().await;
    assert_eq!(
        (vitals.successes, vitals.failures),
        (0, 0),
        "the provider is not to blame, nor to be praised"
    );
    assert!(stage.calls(1).is_empty(), "no new attempt");
    let stored = stage.stored(&log).await.unwrap();
    assert_eq!(
        (stored.state, stored.finish),
        (TurnState::Done, Some(Finish::Stopped))
    );
}

#[actix_rt::test(system = "Paused")]
async fn stop_during_a_back_off_begins_no_attempt() {
    let stage = House::following([vec![limited(s(2)), says("Hello.")], vec![]]).open();
    let log = stage.ask("m");
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
    assert_eq!((stage.calls(0).len(), stage.calls(1).len()), (1, 0));
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn stop_before_the_first_attempt_begins_none() {
    let stage = House::following([vec![]]).open();
    let log = stage.ask("m");
    log.cancel(Cancel::Stopped);
    let reader = Reader::follow(&log).await;
    assert_eq!(
        (reader.kinds().as_str(), reader.done().finish),
        ("start done", Finish::Stopped)
    );
    assert!(stage.calls(0).is_empty());
}

#[actix_rt::test(system = "Paused")]
async fn stop_when_text_of_a_failed_attempt_stands_keeps_that_text() {
    let stage = House::following([vec![breaks("Hello", Fault::Reset)], vec![silent()]]).open();
    let log = stage.ask("m");
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
        "whose text it is"
    );
    assert_eq!(tried(&reader), ["1 a reset 0", "2 b stopped 1000"]);
}

#[actix_rt::test(system = "Paused")]
async fn only_the_first_to_cancel_counts_and_an_ended_turn_is_ended() {
    let stage = endless().open();
    let log = stage.ask("m");
    log.cancel(Cancel::Stopped);
    log.cancel(Cancel::Interrupted);
    let reader = Reader::follow(&log).await;
    assert_eq!(reader.done().finish, Finish::Stopped);
    let ended = answer(&House::following([vec![]]).open()).await;
    log.cancel(Cancel::Stopped);
    assert_eq!(ended.done().finish, Finish::Stop);
}

#[actix_rt::test(system = "Paused")]
async fn nobody_following_for_a_minute_interrupts() {
    let stage = endless().open();
    let log = stage.ask("m");
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
    stage.assert_idle().await;
    assert_eq!(stage.stands[0].vitals().await.failures, 0);
}

#[actix_rt::test(system = "Paused")]
async fn the_minute_runs_on_from_one_attempt_to_the_next() {
    let scripts = [
        vec![vec![say("ha"), Act::Hang]],
        vec![vec![Act::Forever("ho".to_owned(), s(1))]],
    ];
    let mut house = House::following(scripts);
    house.plans[0].patience.stall = s(50);
    let stage = house.open();
    let log = stage.ask("m");
    pass(CHAT_PATIENCE).await;
    assert!(log.ended(), "ten seconds into the second attempt");
    assert_eq!(log.record().tried.len(), 2);
}

#[actix_rt::test(system = "Paused")]
async fn who_comes_back_within_the_minute_resumes_without_a_gap() {
    let stage = endless().open();
    let log = stage.ask("m");
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
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn each_absence_has_its_own_minute() {
    let stage = endless().open();
    let log = stage.ask("m");
    pass(s(40)).await;
    drop(log.follow());
    pass(s(40)).await;
    let one = log.follow();
    let another = log.follow();
    drop(one);
    pass(s(20)).await;
    assert!(!log.ended());
    drop(another);
    assert!(!log.ended());
}

#[actix_rt::test(system = "Paused")]
async fn impatient_wishes_are_cut_off_sooner() {
    let stage = endless().open();
    let log = stage.ask_with(
        "m",
        Wishes {
            patience: s(1),
            ..stage.desk.usual()
        },
    );
    pass(s(1)).await;
    assert!(log.ended());
}

#[actix_rt::test(system = "Paused")]
async fn one_turn_a_conversation_and_one_turn_a_message() {
    let stage = endless().open();
    let log = stage.ask("m");
    pass(ms(1)).await;
    let refused = |name, text| {
        let refused = stage
            .desk
            .open(&stage.room(), question(name, text), stage.desk.usual());
        refused
            .map(|_| "opened")
            .unwrap_or_else(|refused| match refused {
                Refused::Room(NotOpened::Busy) => "busy",
                Refused::Room(NotOpened::Duplicate(same)) if Arc::ptr_eq(&same, &log) => "the same",
                Refused::Room(NotOpened::OtherText) => "other text",
                _ => "?",
            })
    };
    assert_eq!(refused("other", "What is new?"), "busy");
    assert_eq!(refused("m", "What is new?"), "the same");
    assert_eq!(refused("m", "What is old?"), "other text");
    log.cancel(Cancel::Stopped);
    stage.ended(&log).await;
    assert_eq!(
        refused("m", "What is new?"),
        "the same",
        "also after its end"
    );
    assert_eq!(refused("other", "What is new?"), "opened");
    assert_eq!(stage.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn no_more_turns_than_places() {
    use crate::turn::stage::{TURNS, conversation};
    let stage = endless().open();
    let open = |number: usize| {
        let room = stage
            .desk
            .rooms
            .enter(conversation(u8::try_from(number).unwrap()));
        stage
            .desk
            .open(&room, question("m", "?"), stage.desk.usual())
    };
    let logs: Vec<_> = (0..TURNS)
        .map(|number| open(number).ok().unwrap())
        .collect();
    assert_eq!(stage.desk.places.taken(), TURNS);
    assert!(matches!(open(TURNS), Err(Refused::Full)));
    logs[0].cancel(Cancel::Stopped);
    stage.ended(&logs[0]).await;
    settled().await;
    assert!(
        open(TURNS).is_ok(),
        "its place is free at once, not when its log is dropped"
    );
    // A reload allows more, then fewer than run.
    stage.reload(|settings| settings.limits.turns = TURNS + 1);
    assert!(open(TURNS + 1).is_ok());
    stage.reload(|settings| settings.limits.turns = 1);
    logs[1].cancel(Cancel::Stopped);
    stage.ended(&logs[1]).await;
    settled().await;
    assert!(matches!(open(TURNS + 2), Err(Refused::Full)));
}

#[actix_rt::test(system = "Paused")]
async fn a_drain_refuses_new_turns_and_lets_running_ones_end() {
    let stage = House::following([vec![says_slowly("Hel", s(3), "lo.")]]).open();
    let log = stage.ask("m");
    stage.phase.send_replace(Phase::Draining);
    assert!(matches!(
        stage.try_ask("n", stage.desk.usual()),
        Err(Refused::Draining)
    ));
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn the_end_of_a_drain_interrupts_every_turn() {
    use crate::turn::stage::conversation;
    let stage = endless().open();
    let mut logs = vec![stage.ask("m")];
    let room = stage.desk.rooms.enter(conversation(2));
    logs.extend(
        stage
            .desk
            .open(&room, question("m", "?"), stage.desk.usual())
            .ok(),
    );
    let followers: Vec<_> = logs.iter().map(TurnLog::follow).collect();
    pass(s(1)).await;
    stage.phase.send_replace(Phase::Cutting);
    for mut follower in followers {
        let mut reader = Reader::default();
        reader.read(&mut follower).await;
        assert_eq!(
            (reader.done().finish, &*reader.text),
            (Finish::Interrupted, "hahaha")
        );
    }
    stage.assert_idle().await;
    let stored = stage.stored(&logs[0]).await.unwrap();
    assert_eq!(
        (stored.state, &*stored.text),
        (TurnState::Interrupted, "hahaha")
    );
}
