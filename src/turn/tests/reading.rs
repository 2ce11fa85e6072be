//! Followers of a log, and the lifetime of logs and conversations.

use super::*;
use crate::domain::Frame;
use crate::turn::conversations::TurnEvent;
use crate::turn::log::Cancel;

#[actix_rt::test(system = "Paused")]
async fn lagging_follower_gets_a_snapshot_and_continues() {
    let long = vec![ScriptStep::RepeatForever("x".to_owned(), ms(20))];
    let harness = TestServiceBuilder::with_scripts([vec![long]]).start();
    let log = harness.ask("m");
    let mut slow = log.follow();
    advance(s(10)).await;
    log.cancel(Cancel::Stopped);
    let mut reader = ProtocolClient::default();
    reader.apply_encoded(&slow.next().await.unwrap());
    assert!(
        matches!(reader.frames[..], [Frame::Snapshot { .. }]),
        "{}",
        reader.kinds()
    );
    reader.read_to_end(&mut slow).await;
    assert_eq!(reader.frames.len(), 2);
    assert_eq!(
        (reader.text.len(), &*reader.text),
        (500, &*reader.done().text)
    );
}

#[actix_rt::test(system = "Paused")]
async fn snapshot_in_mid_turn_describes_the_current_attempt() {
    let scripts = [
        vec![break_after("Hel", FaultKind::Reset)],
        vec![vec![ScriptStep::Pause(s(3)), say("Hello."), end()]],
    ];
    let harness = TestServiceBuilder::with_scripts(scripts).start();
    let log = harness.ask("m");
    advance(s(1)).await;
    let mut late = log.resume(0);
    let mut reader = ProtocolClient::default();
    reader.apply_encoded(&late.next().await.unwrap());
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
    reader.read_to_end(&mut late).await;
    assert_eq!(
        (reader.kinds().as_str(), &*reader.text),
        ("snapshot token done", "Hello.")
    );
}

#[actix_rt::test(system = "Paused")]
async fn resume_at_an_unknown_frame_sends_a_snapshot() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let log = harness.ask("m");
    harness.wait_until_done(&log).await;
    for (seq, kinds) in [
        (0, "snapshot done"),
        (1, "attempt token done"),
        (4, ""),
        (5, "snapshot done"),
        (u64::MAX, "snapshot done"),
    ] {
        let mut reader = ProtocolClient::default();
        if let "attempt token done" = kinds {
            reader.last_seq = seq;
        }
        reader.read_to_end(&mut log.resume(seq)).await;
        assert_eq!(reader.kinds(), kinds, "after {seq}");
    }
}

#[actix_rt::test(system = "Paused")]
async fn all_followers_read_the_same_frames() {
    let harness = TestServiceBuilder::with_scripts([
        vec![break_after("Hel", FaultKind::Stalled)],
        vec![reply_slowly("Good ", s(1), "day.")],
    ])
    .start();
    let log = harness.ask("m");
    let mut follower = log.follow();
    let mut other_follower = log.follow();
    let mut first = ProtocolClient::default();
    let mut second = ProtocolClient::default();
    tokio::join!(
        first.read_to_end(&mut follower),
        second.read_to_end(&mut other_follower)
    );
    assert_eq!(first.frames, second.frames);
    assert_eq!(
        first.kinds(),
        "start attempt token attempt restart token token done"
    );
}

#[actix_rt::test(system = "Paused")]
async fn log_is_evicted_five_seconds_after_its_end() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let log = harness.ask("m");
    let turn = log.turn();
    harness.wait_until_done(&log).await;
    advance(ms(4_990)).await;
    assert!(harness.conversation().log(turn).is_some());
    assert_eq!(harness.turns.conversations.count(), 1);
    advance(ms(20)).await;
    assert_eq!(
        harness.turns.conversations.count(),
        0,
        "nobody uses it any more"
    );
    assert!(harness.conversation().log(turn).is_none());
    assert_eq!(
        harness.turns.conversations.count(),
        0,
        "the look-up did not keep it"
    );
}

#[actix_rt::test(system = "Paused")]
async fn conversation_stays_registered_while_it_is_used() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let conversation = harness.conversation();
    let log = harness.ask("m");
    harness.wait_until_done(&log).await;
    advance(s(10)).await;
    assert!(conversation.logs().is_empty());
    assert_eq!(harness.turns.conversations.count(), 1);
    drop(conversation);
    assert_eq!(harness.turns.conversations.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn subscription_reports_turns_in_order_and_evicted_ones_as_lagged() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let conversation = harness.conversation();
    let (mut subscription, running) = conversation.subscribe();
    assert!(running.is_none());
    let next =
        async |subscription: &mut crate::turn::conversations::TurnSubscription| match subscription
            .next(&conversation)
            .await
        {
            TurnEvent::Started(log) => log.client_msg_id().to_string(),
            TurnEvent::Lagged => "lagged".to_owned(),
        };
    for name in ["1", "2"] {
        harness.wait_until_done(&harness.ask(name)).await;
    }
    assert_eq!(
        (next(&mut subscription).await, next(&mut subscription).await),
        ("1".to_owned(), "2".to_owned())
    );
    harness.wait_until_done(&harness.ask("3")).await;
    advance(s(6)).await;
    harness.wait_until_done(&harness.ask("4")).await;
    assert_eq!(
        (next(&mut subscription).await, next(&mut subscription).await),
        ("lagged".to_owned(), "4".to_owned())
    );
    let nothing = tokio::time::timeout(s(1), subscription.next(&conversation)).await;
    assert!(nothing.is_err());
    let five = harness.ask("5");
    let (mut late, running) = conversation.subscribe();
    assert_eq!(running.unwrap().turn(), five.turn());
    harness.wait_until_done(&five).await;
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
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let conversation = harness.conversation();
    let far = crate::domain::TurnId::next_after(None, 1 << 47, 9);
    conversation.observe_turn_id(far);
    let first = harness.ask("1");
    harness.wait_until_done(&first).await;
    let second = harness.ask("2");
    assert!(far < first.turn() && first.turn() < second.turn());
    harness.wait_until_done(&second).await;
}
