//! Late answers on a stage: scripted providers, a paused clock, every actor on the test's own thread.

use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

use super::*;
use crate::chat::{Amendment, At, Fault, Finish, Followup, TurnRecord};
use crate::provider::paused::{Paused, pass, settled};
use crate::provider::scripted::{Act, Script, breaks, fails, says, says_slowly, silent};
use crate::store::Store as _;
use crate::store::flaky::Trouble;
use crate::turn::desk::{Phase, Wishes};
use crate::turn::log::Cancel;
use crate::turn::rooms::Room;
use crate::turn::stage::{FALLBACK, House, Stage, conversation, question};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A house whose one provider is down, with its outbox at work.
fn down() -> Stage {
    let stage = House::following([vec![fails(Fault::Unreachable)]]).open();
    stage.stands[0]
        .upstream
        .follow_when_probed([fails(Fault::Unreachable)]);
    actix::spawn(run(Arc::clone(&stage.desk)));
    stage
}

/// From now on it does this, and is well.
fn recover(stage: &Stage, scripts: impl IntoIterator<Item = Script>) {
    stage.stands[0].upstream.follow(scripts);
    stage.stands[0].upstream.follow_when_probed([says("pong")]);
}

/// Asks in a conversation and waits for the end.
async fn ask(stage: &Stage, room: &Arc<Room>, name: &str, retry_of: Option<TurnId>) -> TurnRecord {
    let question = crate::turn::rooms::Question {
        retry_of,
        ..question(name, name)
    };
    let log = stage
        .desk
        .open(room, question, stage.desk.usual())
        .unwrap_or_else(|_| panic!("refused"));
    stage.ended(&log).await;
    log.record()
}

async fn degraded(stage: &Stage, room: &Arc<Room>, name: &str) -> TurnId {
    let record = ask(stage, room, name, None).await;
    assert_eq!((record.text.as_str(), record.degraded), (FALLBACK, true));
    record.turn
}

async fn late(receiver: &mut Receiver<(TurnId, Followup)>) -> (TurnId, String) {
    let (turn, late) = receiver.recv().await.unwrap();
    (turn, late.text)
}

async fn waiting(stage: &Stage) -> Vec<TurnId> {
    stage
        .store
        .waiting()
        .await
        .unwrap()
        .into_iter()
        .map(|(_, turn)| turn)
        .collect()
}

#[actix_rt::test(system = "Paused")]
async fn what_an_outage_left_is_answered_in_order_and_kept() {
    let stage = down();
    let room = stage.room();
    let mut sessions = [room.late(), room.late()];
    let mut turns = Vec::new();
    for name in ["one", "two", "three"] {
        turns.push(degraded(&stage, &room, name).await);
    }
    pass(s(120)).await;
    assert_eq!(waiting(&stage).await, turns, "nobody can answer");
    recover(&stage, [says("1"), says("2"), says("3")]);
    for session in &mut sessions {
        for (turn, text) in turns.iter().zip(["1", "2", "3"]) {
            assert_eq!(late(session).await, (*turn, text.to_owned()));
        }
    }
    assert_eq!(waiting(&stage).await, []);
    for (turn, text) in turns.iter().zip(["1", "2", "3"]) {
        let record = stage.store.turn(room.id(), *turn).await.unwrap().unwrap();
        // The degraded answer stays as it was.
        assert_eq!(
            (record.text.as_str(), record.degraded, record.finish),
            (FALLBACK, true, Some(Finish::Stop))
        );
        let late = record.followup.unwrap();
        assert_eq!(
            (&*late.text, &*late.provider, &*late.model),
            (text, "a", "a-1")
        );
    }
    // Each was asked with the late answers to those before it, as the next turn is.
    let asked = stage.calls(0).pop().unwrap().ask;
    let said: Vec<_> = asked
        .messages
        .iter()
        .map(|message| &*message.text)
        .collect();
    assert_eq!(said, ["one", "1", "two", "2", "three"]);
    recover(&stage, [says("4")]);
    assert!(!ask(&stage, &room, "four", None).await.degraded);
    assert_eq!(stage.calls(0).pop().unwrap().ask.messages.len(), 7);
    // They are no turns of their own.
    use std::sync::atomic::Ordering::Relaxed;
    let counts = &stage.desk.counts;
    assert_eq!(
        [&counts.ended, &counts.ai, &counts.degraded].map(|one| one.load(Relaxed)),
        [4, 1, 3]
    );
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn they_take_half_the_retry_budget_and_come_all_the_same() {
    let stage = down();
    let rooms: Vec<_> = (1..=30)
        .map(|n| stage.desk.rooms.enter(conversation(n)))
        .collect();
    let mut sessions = Vec::new();
    for room in &rooms {
        sessions.push(room.late());
        degraded(&stage, room, "m").await;
    }
    // The budget of the outage is forgotten.
    pass(s(90)).await;
    let before = stage.calls(0).len();
    recover(&stage, [says("Late.")]);
    let begun = Instant::now();
    for session in &mut sessions {
        assert_eq!(late(session).await.1, "Late.");
    }
    let took = begun.elapsed();
    let calls: Vec<_> = stage.calls(0)[before..]
        .iter()
        .map(|call| call.at)
        .collect();
    assert_eq!(calls.len(), 30, "nobody was asked twice");
    // Ten a minute are free, and nobody asks: half of them, to the budget's six seconds.
    for (n, call) in calls.iter().enumerate() {
        let minute = calls[n..]
            .iter()
            .take_while(|later| **later - *call < s(54))
            .count();
        assert!(minute <= 5, "{minute} in the minute after {n}");
    }
    assert!(took > s(240) && took < s(600), "{took:?}");
}

#[actix_rt::test(system = "Paused")]
async fn who_asked_again_meanwhile_gets_none() {
    let stage = down();
    let room = stage.room();
    let mut session = room.late();
    let first = degraded(&stage, &room, "one").await;
    // It fails as well, and waits in the first one's place.
    let again = ask(&stage, &room, "again", Some(first)).await.turn;
    recover(&stage, [says("Late.")]);
    assert_eq!(late(&mut session).await, (again, "Late.".to_owned()));
    pass(s(60)).await;
    assert!(session.try_recv().is_err());
    assert_eq!(waiting(&stage).await, []);
    // And one that is under way when it is asked again is thrown away.
    recover(&stage, [fails(Fault::Reset)]);
    let second = degraded(&stage, &room, "two").await;
    recover(&stage, [says_slowly("La", s(4), "te."), says("Live.")]);
    while stage.stands[0].upstream.open() == 0 {
        pass(Duration::from_millis(100)).await;
    }
    assert_eq!(
        ask(&stage, &room, "two again", Some(second)).await.text,
        "Live."
    );
    pass(s(60)).await;
    assert!(session.try_recv().is_err());
    assert_eq!(waiting(&stage).await, []);
    assert_eq!(
        stage
            .store
            .turn(room.id(), second)
            .await
            .unwrap()
            .unwrap()
            .followup,
        None
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_that_fails_again_is_left_alone() {
    for fault in [
        fails(Fault::Unreachable),
        breaks("La", Fault::Reset),
        silent(),
    ] {
        let stage = down();
        let rooms: Vec<_> = (1..=6)
            .map(|n| stage.desk.rooms.enter(conversation(n)))
            .collect();
        for room in &rooms {
            degraded(&stage, room, "m").await;
        }
        pass(s(90)).await;
        let before = stage.calls(0).len();
        let mut first = rooms[0].late();
        recover(&stage, [says("Late."), fault.clone()]);
        late(&mut first).await;
        pass(s(5)).await;
        let calls = stage.calls(0).len() - before;
        // One was answered. One that fails at once is alone, one that takes its time has another beside it.
        let at_once = fault.len() == 1 && matches!(fault[0], Act::Fail(_));
        assert!(
            calls == 2 || calls == 3 && !at_once,
            "{calls} calls: {fault:?}"
        );
        // Well again, all get theirs.
        let mut others: Vec<_> = rooms[1..].iter().map(|room| room.late()).collect();
        recover(&stage, [says("Late, too.")]);
        for other in &mut others {
            assert_eq!(late(other).await.1, "Late, too.");
        }
        assert_eq!(waiting(&stage).await, []);
        stage.assert_idle().await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn nothing_is_asked_while_the_service_goes_down_and_the_next_start_knows() {
    let stage = down();
    let room = stage.room();
    let turn = degraded(&stage, &room, "one").await;
    recover(&stage, [silent()]);
    while stage.stands[0].upstream.open() == 0 {
        pass(Duration::from_millis(100)).await;
    }
    stage.phase.send_replace(Phase::Draining);
    settled().await;
    stage.assert_idle().await;
    assert_eq!(waiting(&stage).await, [turn]);
    let calls = stage.calls(0).len();
    pass(s(120)).await;
    assert_eq!(stage.calls(0).len(), calls);
    // The next process, with the same store and providers that are well.
    recover(&stage, [says("Late.")]);
    let mut next = House::of([]).open();
    let desk = Arc::get_mut(&mut next.desk).unwrap();
    desk.store = Arc::clone(&stage.store) as _;
    desk.published = stage.desk.published.clone();
    desk.router = stage.desk.router.clone();
    let room = desk.rooms.enter(conversation(1));
    let mut session = room.late();
    actix::spawn(run(Arc::clone(&next.desk)));
    assert_eq!(late(&mut session).await, (turn, "Late.".to_owned()));
    assert_eq!(waiting(&stage).await, []);
}

#[actix_rt::test(system = "Paused")]
async fn an_answer_that_was_written_before_a_crash_is_not_given_twice() {
    let stage = down();
    let room = stage.room();
    let turn = degraded(&stage, &room, "one").await;
    let late = Followup {
        text: "First.".into(),
        provider: "a".into(),
        model: "a-1".into(),
        at: At(9),
    };
    stage
        .store
        .amend(room.id(), turn, Amendment::Followup(late))
        .await
        .unwrap();
    stage
        .store
        .write_waiting(room.id(), turn, true)
        .await
        .unwrap();
    let mut session = room.late();
    let calls = stage.calls(0).len();
    recover(&stage, [says("Second.")]);
    while !waiting(&stage).await.is_empty() {
        pass(Duration::from_millis(100)).await;
    }
    assert!(session.try_recv().is_err());
    assert_eq!(stage.calls(0).len(), calls);
}

#[actix_rt::test(system = "Paused")]
async fn only_what_the_service_left_unanswered_waits() {
    let stage = down();
    let room = stage.room();
    recover(&stage, [silent()]);
    let open = |name: &str| {
        stage
            .desk
            .open(&room, question(name, name), stage.desk.usual())
    };
    let [stopped, left, called, alone] = ["stopped", "left", "api-0", "alone"];
    let log = open(stopped).unwrap_or_else(|_| panic!("refused"));
    log.cancel(Cancel::Stopped);
    stage.ended(&log).await;
    // Nobody follows for a minute.
    recover(&stage, [vec![Act::Forever("so ".into(), s(1))]]);
    let log = open(left).unwrap_or_else(|_| panic!("refused"));
    pass(s(70)).await;
    assert_eq!(log.record().finish, Some(Finish::Interrupted));
    recover(&stage, [fails(Fault::Unreachable)]);
    degraded(&stage, &room, called).await;
    let only = Wishes {
        first: Some("a".into()),
        only_first: true,
        ..stage.desk.usual()
    };
    let log = stage.ask_with(alone, only);
    stage.ended(&log).await;
    assert!(log.record().degraded);
    assert_eq!(waiting(&stage).await, []);
    // Cut off by the end of the service.
    recover(&stage, [vec![Act::Forever("so ".into(), s(1))]]);
    let log = open("cut").unwrap_or_else(|_| panic!("refused"));
    pass(s(5)).await;
    stage.phase.send_replace(Phase::Cutting);
    stage.ended(&log).await;
    assert_eq!(log.record().finish, Some(Finish::Interrupted));
    assert_eq!(waiting(&stage).await, [log.turn()]);
}

#[actix_rt::test(system = "Paused")]
async fn a_question_that_providers_refuse_holds_nobody_up() {
    let stage = down();
    let (first, second) = (
        stage.desk.rooms.enter(conversation(1)),
        stage.desk.rooms.enter(conversation(2)),
    );
    degraded(&stage, &first, "one").await;
    let turn = degraded(&stage, &second, "two").await;
    let mut session = second.late();
    recover(&stage, [fails(Fault::BadRequest), says("Late.")]);
    assert_eq!(late(&mut session).await, (turn, "Late.".to_owned()));
    assert_eq!(waiting(&stage).await, [], "it is not asked again");
}

#[actix_rt::test(system = "Paused")]
async fn a_store_that_fails_costs_nothing_but_what_it_does_not_keep() {
    let stage = down();
    let room = stage.room();
    let mut session = room.late();
    let turn = degraded(&stage, &room, "one").await;
    stage.store.set(Trouble::Fails);
    recover(&stage, [says("Late.")]);
    pass(s(120)).await;
    assert!(
        session.try_recv().is_err(),
        "whether it is wanted is not known"
    );
    for trouble in [Trouble::Panics, Trouble::None] {
        stage.store.set(trouble);
        pass(s(60)).await;
    }
    assert_eq!(late(&mut session).await, (turn, "Late.".to_owned()));
    stage.assert_idle().await;
}
