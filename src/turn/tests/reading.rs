//! Followers of a log, and the lifetime of logs and conversations.

use super::*;
use crate::chat::Frame;
use crate::turn::log::Cancel;
use crate::turn::rooms::NewTurn;

#[actix_rt::test(system = "Paused")]
async fn lagging_follower_gets_a_snapshot_and_continues() {
    let long = vec![Act::Forever("x".to_owned(), ms(20))];
    let harness = House::following([vec![long]]).open();
    let log = harness.ask("m");
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
async fn snapshot_in_mid_turn_describes_the_current_attempt() {
    let scripts = [
        vec![breaks("Hel", Fault::Reset)],
        vec![vec![Act::Wait(s(3)), say("Hello."), end()]],
    ];
    let harness = House::following(scripts).open();
    let log = harness.ask("m");
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
async fn resume_at_an_unknown_frame_sends_a_snapshot() {
    let harness = House::following([vec![]]).open();
    let log = harness.ask("m");
    harness.ended(&log).await;
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
async fn all_followers_read_the_same_frames() {
    let harness = House::following([
        vec![breaks("Hel", Fault::Stalled)],
        vec![says_slowly("Good ", s(1), "day.")],
    ])
    .open();
    let log = harness.ask("m");
    let mut follower = log.follow();
    let mut other_follower = log.follow();
    let mut first = Reader::default();
    let mut second = Reader::default();
    tokio::join!(first.read(&mut follower), second.read(&mut other_follower));
    assert_eq!(first.frames, second.frames);
    assert_eq!(
        first.kinds(),
        "start attempt token attempt restart token token done"
    );
}

#[actix_rt::test(system = "Paused")]
async fn log_is_evicted_five_seconds_after_its_end() {
    let harness = House::following([vec![]]).open();
    let log = harness.ask("m");
    let turn = log.turn();
    harness.ended(&log).await;
    pass(ms(4_990)).await;
    assert!(harness.room().log(turn).is_some());
    assert_eq!(harness.desk.rooms.count(), 1);
    pass(ms(20)).await;
    assert_eq!(harness.desk.rooms.count(), 0, "nobody uses it any more");
    assert!(harness.room().log(turn).is_none());
    assert_eq!(harness.desk.rooms.count(), 0, "the look-up did not keep it");
}

#[actix_rt::test(system = "Paused")]
async fn conversation_stays_registered_while_it_is_used() {
    let harness = House::following([vec![]]).open();
    let conversation = harness.room();
    let log = harness.ask("m");
    harness.ended(&log).await;
    pass(s(10)).await;
    assert!(conversation.logs().is_empty());
    assert_eq!(harness.desk.rooms.count(), 1);
    drop(conversation);
    assert_eq!(harness.desk.rooms.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn subscription_reports_turns_in_order_and_evicted_ones_as_lagged() {
    let harness = House::following([vec![]]).open();
    let conversation = harness.room();
    let (mut subscription, running) = conversation.watch();
    assert!(running.is_none());
    let next = async |subscription: &mut crate::turn::rooms::NewTurns| match subscription
        .next(&conversation)
        .await
    {
        NewTurn::Log(log) => log.client_msg_id().to_string(),
        NewTurn::Missed => "lagged".to_owned(),
    };
    for name in ["1", "2"] {
        harness.ended(&harness.ask(name)).await;
    }
    assert_eq!(
        (next(&mut subscription).await, next(&mut subscription).await),
        ("1".to_owned(), "2".to_owned())
    );
    harness.ended(&harness.ask("3")).await;
    pass(s(6)).await;
    harness.ended(&harness.ask("4")).await;
    assert_eq!(
        (next(&mut subscription).await, next(&mut subscription).await),
        ("lagged".to_owned(), "4".to_owned())
    );
    let nothing = tokio::time::timeout(s(1), subscription.next(&conversation)).await;
    assert!(nothing.is_err());
    let five = harness.ask("5");
    let (mut late, running) = conversation.watch();
    assert_eq!(running.unwrap().turn(), five.turn());
    harness.ended(&five).await;
    assert!(
        tokio::time::timeout(s(1), late.next(&conversation))
            .await
            .is_err(),
        "the running turn is not reported again"
    );
    assert_eq!(next(&mut subscription).await, "5");
}

#[actix_rt::test(system = "Paused")]
async fn later_turns_have_greater_ids_despite_clock_differences() {
    let harness = House::following([vec![]]).open();
    let conversation = harness.room();
    let far = crate::chat::TurnId::after(None, 1 << 47, 9);
    conversation.seen(far);
    let first = harness.ask("1");
    harness.ended(&first).await;
    let second = harness.ask("2");
    assert!(far < first.turn() && first.turn() < second.turn());
    harness.ended(&second).await;
}
