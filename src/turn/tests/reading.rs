//! Followers of a log, and the rooms that the logs are in.

use super::*;
use crate::chat::Frame;
use crate::turn::log::Cancel;
use crate::turn::rooms::NewTurn;

#[actix_rt::test(system = "Paused")]
async fn who_is_too_far_behind_gets_a_snapshot_and_goes_on() {
    let long = vec![Act::Forever("x".to_owned(), ms(20))];
    let stage = House::following([vec![long]]).open();
    let log = stage.ask("m");
    let mut slow = log.follow();
    pass(s(10)).await;
    log.cancel(Cancel::Stopped);
    let mut reader = Reader::default();
    reader.take(&slow.next().await.unwrap());
    assert!(
        matches!(reader.frames[..], [Frame::Snapshot { .. }]),
        "{}",
        reader.kinds()
    );
    reader.read(&mut slow).await;
    assert_eq!(reader.frames.len(), 2);
    assert_eq!(
        (reader.text.len(), &*reader.text),
        (500, &*reader.done().text)
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_snapshot_in_mid_turn_is_of_the_attempt_under_way() {
    let scripts = [
        vec![breaks("Hel", Fault::Reset)],
        vec![vec![Act::Wait(s(3)), say("Hello."), end()]],
    ];
    let stage = House::following(scripts).open();
    let log = stage.ask("m");
    pass(s(1)).await;
    let mut late = log.resume(0);
    let mut reader = Reader::default();
    reader.take(&late.next().await.unwrap());
    let Frame::Snapshot {
        attempt,
        provider,
        model,
        text,
        question,
        drafts,
        seq,
        ..
    } = reader.frames[0].clone()
    else {
        panic!("{}", reader.kinds());
    };
    assert_eq!(
        (attempt, provider.as_deref(), model.as_deref()),
        (2, Some("b"), Some("b-1"))
    );
    assert_eq!(
        (&*text, &*question, drafts.len(), seq),
        ("Hel", "What is new?", 0, 4)
    );
    reader.read(&mut late).await;
    assert_eq!(
        (reader.kinds().as_str(), &*reader.text),
        ("snapshot token done", "Hello.")
    );
}

#[actix_rt::test(system = "Paused")]
async fn who_resumes_at_an_unknown_frame_gets_a_snapshot() {
    let stage = House::following([vec![]]).open();
    let log = stage.ask("m");
    stage.ended(&log).await;
    for (seq, kinds) in [
        (0, "snapshot done"),
        (1, "attempt token done"),
        (4, ""),
        (5, "snapshot done"),
        (u64::MAX, "snapshot done"),
    ] {
        let mut reader = Reader::default();
        if let "attempt token done" = kinds {
            reader.seq = seq;
        }
        reader.read(&mut log.resume(seq)).await;
        assert_eq!(reader.kinds(), kinds, "after {seq}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn every_follower_reads_the_same() {
    let stage = House::following([
        vec![breaks("Hel", Fault::Stalled)],
        vec![says_slowly("Good ", s(1), "day.")],
    ])
    .open();
    let log = stage.ask("m");
    let (mut one, mut other) = (log.follow(), log.follow());
    let (mut first, mut second) = (Reader::default(), Reader::default());
    tokio::join!(first.read(&mut one), second.read(&mut other));
    assert_eq!(first.frames, second.frames);
    assert_eq!(
        first.kinds(),
        "start attempt token attempt restart token token done"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_log_is_dropped_five_seconds_after_its_end_and_a_room_with_its_last_log() {
    let stage = House::following([vec![]]).open();
    let log = stage.ask("m");
    let turn = log.turn();
    stage.ended(&log).await;
    pass(ms(4_990)).await;
    assert!(stage.room().log(turn).is_some());
    assert_eq!(stage.desk.rooms.count(), 1);
    pass(ms(20)).await;
    assert_eq!(stage.desk.rooms.count(), 0, "nobody is in it any more");
    assert!(stage.room().log(turn).is_none());
    assert_eq!(stage.desk.rooms.count(), 0, "nor was anybody just now");
}

#[actix_rt::test(system = "Paused")]
async fn a_room_stays_while_somebody_is_in_it() {
    let stage = House::following([vec![]]).open();
    let room = stage.room();
    let log = stage.ask("m");
    stage.ended(&log).await;
    pass(s(10)).await;
    assert!(room.logs().is_empty());
    assert_eq!(stage.desk.rooms.count(), 1);
    drop(room);
    assert_eq!(stage.desk.rooms.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn turns_are_told_in_order_and_those_that_are_gone_as_missed() {
    let stage = House::following([vec![]]).open();
    let room = stage.room();
    let (mut new, running) = room.watch();
    assert!(running.is_none());
    let told = async |new: &mut crate::turn::rooms::NewTurns| match new.next(&room).await {
        NewTurn::Log(log) => log.client_msg_id().to_string(),
        NewTurn::Missed => "missed".to_owned(),
    };
    for name in ["1", "2"] {
        stage.ended(&stage.ask(name)).await;
    }
    assert_eq!(
        (told(&mut new).await, told(&mut new).await),
        ("1".to_owned(), "2".to_owned())
    );
    stage.ended(&stage.ask("3")).await;
    pass(s(6)).await;
    stage.ended(&stage.ask("4")).await;
    assert_eq!(
        (told(&mut new).await, told(&mut new).await),
        ("missed".to_owned(), "4".to_owned())
    );
    let nothing = tokio::time::timeout(s(1), new.next(&room)).await;
    assert!(nothing.is_err());
    let five = stage.ask("5");
    let (mut late, running) = room.watch();
    assert_eq!(running.unwrap().turn(), five.turn());
    stage.ended(&five).await;
    assert!(
        tokio::time::timeout(s(1), late.next(&room)).await.is_err(),
        "it was told of the running one"
    );
    assert_eq!(told(&mut new).await, "5");
}

#[actix_rt::test(system = "Paused")]
async fn later_turns_have_greater_ids_whatever_the_clocks_say() {
    let stage = House::following([vec![]]).open();
    let room = stage.room();
    let far = crate::chat::TurnId::after(None, 1 << 47, 9);
    room.seen(far);
    let first = stage.ask("1");
    stage.ended(&first).await;
    let second = stage.ask("2");
    assert!(far < first.turn() && first.turn() < second.turn());
    stage.ended(&second).await;
}
