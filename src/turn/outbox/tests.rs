//! Follow-ups with scripted providers, a paused clock and every actor on the test's own thread.

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

/// Starts a service whose only provider is down, with its follow-up loop running.
fn start_with_provider_down() -> Stage {
    let harness = House::following([vec![fails(Fault::Unreachable)]]).open();
    harness.stands[0]
        .upstream
        .follow_when_probed([fails(Fault::Unreachable)]);
    actix::spawn(run(Arc::clone(&harness.desk)));
    harness
}

/// Makes the provider healthy. Its next calls follow `scripts`.
fn recover(harness: &Stage, scripts: impl IntoIterator<Item = Script>) {
    harness.stands[0].upstream.follow(scripts);
    harness.stands[0]
        .upstream
        .follow_when_probed([says("pong")]);
}

/// Asks in a conversation and waits for the end of the turn.
async fn ask(
    harness: &Stage,
    conversation: &Arc<Room>,
    name: &str,
    retry_of: Option<TurnId>,
) -> TurnRecord {
    let question = crate::turn::rooms::Question {
        retry_of,
        ..question(name, name)
    };
    let log = harness
        .desk
        .open(conversation, question, harness.desk.usual())
        .unwrap_or_else(|_| panic!("refused"));
    harness.ended(&log).await;
    log.record()
}

/// Asks a question that gets the fallback answer.
async fn ask_in_outage(harness: &Stage, conversation: &Arc<Room>, name: &str) -> TurnId {
    let record = ask(harness, conversation, name, None).await;
    assert_eq!((record.text.as_str(), record.degraded), (FALLBACK, true));
    record.turn
}

async fn next_followup(receiver: &mut Receiver<(TurnId, Followup)>) -> (TurnId, String) {
    let (turn, followup) = receiver.recv().await.unwrap();
    (turn, followup.text)
}

async fn pending(harness: &Stage) -> Vec<TurnId> {
    harness
        .store
        .waiting()
        .await
        .unwrap()
        .into_iter()
        .map(|(_, turn)| turn)
        .collect()
}

#[actix_rt::test(system = "Paused")]
async fn outage_turns_are_answered_in_order_and_saved() {
    let harness = start_with_provider_down();
    let conversation = harness.room();
    let mut sessions = [conversation.late(), conversation.late()];
    let mut turns = Vec::new();
    for name in ["one", "two", "three"] {
        turns.push(ask_in_outage(&harness, &conversation, name).await);
    }
    pass(s(120)).await;
    assert_eq!(pending(&harness).await, turns, "no provider can answer");
    recover(&harness, [says("1"), says("2"), says("3")]);
    for session in &mut sessions {
        for (turn, text) in turns.iter().zip(["1", "2", "3"]) {
            assert_eq!(next_followup(session).await, (*turn, text.to_owned()));
        }
    }
    assert_eq!(pending(&harness).await, []);
    for (turn, text) in turns.iter().zip(["1", "2", "3"]) {
        let record = harness
            .store
            .turn(conversation.id(), *turn)
            .await
            .unwrap()
            .unwrap();
        // The fallback answer is not replaced.
        assert_eq!(
            (record.text.as_str(), record.degraded, record.finish),
            (FALLBACK, true, Some(Finish::Stop))
        );
        let followup = record.followup.unwrap();
        assert_eq!(
            (&*followup.text, &*followup.provider, &*followup.model),
            (text, "a", "a-1")
        );
    }
    // Each call includes the follow-ups of earlier turns, as the next turn's call does.
    let request = harness.calls(0).pop().unwrap().ask;
    let texts: Vec<_> = request
        .messages
        .iter()
        .map(|message| &*message.text)
        .collect();
    assert_eq!(texts, ["one", "1", "two", "2", "three"]);
    recover(&harness, [says("4")]);
    assert!(!ask(&harness, &conversation, "four", None).await.degraded);
    assert_eq!(harness.calls(0).pop().unwrap().ask.messages.len(), 7);
    // Follow-ups are not counted as turns.
    use std::sync::atomic::Ordering::Relaxed;
    let counts = &harness.desk.counts;
    assert_eq!(
        [&counts.ended, &counts.ai, &counts.degraded].map(|count| count.load(Relaxed)),
        [4, 1, 3]
    );
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn followups_take_at_most_half_the_retry_budget() {
    let harness = start_with_provider_down();
    let conversations: Vec<_> = (1..=30)
        .map(|n| harness.desk.rooms.enter(conversation(n)))
        .collect();
    let mut sessions = Vec::new();
    for conversation in &conversations {
        sessions.push(conversation.late());
        ask_in_outage(&harness, conversation, "m").await;
    }
    // Wait until the budget that the outage spent has recovered.
    pass(s(90)).await;
    let before = harness.calls(0).len();
    recover(&harness, [says("Late.")]);
    let started = Instant::now();
    for session in &mut sessions {
        assert_eq!(next_followup(session).await.1, "Late.");
    }
    let took = started.elapsed();
    let calls: Vec<_> = harness.calls(0)[before..]
        .iter()
        .map(|call| call.at)
        .collect();
    assert_eq!(calls.len(), 30, "no turn was asked twice");
    // Ten calls a minute are free and no visitor asks: half of them remain, with a tolerance of six
    // seconds.
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
async fn retried_turn_gets_no_followup() {
    let harness = start_with_provider_down();
    let conversation = harness.room();
    let mut session = conversation.late();
    let first = ask_in_outage(&harness, &conversation, "one").await;
    // The retry fails as well, and waits instead of the first turn.
    let again = ask(&harness, &conversation, "again", Some(first))
        .await
        .turn;
    recover(&harness, [says("Late.")]);
    assert_eq!(
        next_followup(&mut session).await,
        (again, "Late.".to_owned())
    );
    pass(s(60)).await;
    assert!(session.try_recv().is_err());
    assert_eq!(pending(&harness).await, []);
    // A follow-up in progress is discarded when its turn is retried.
    recover(&harness, [fails(Fault::Reset)]);
    let second = ask_in_outage(&harness, &conversation, "two").await;
    recover(&harness, [says_slowly("La", s(4), "te."), says("Live.")]);
    while harness.stands[0].upstream.open() == 0 {
        pass(Duration::from_millis(100)).await;
    }
    assert_eq!(
        ask(&harness, &conversation, "two again", Some(second))
            .await
            .text,
        "Live."
    );
    pass(s(60)).await;
    assert!(session.try_recv().is_err());
    assert_eq!(pending(&harness).await, []);
    assert_eq!(
        harness
            .store
            .turn(conversation.id(), second)
            .await
            .unwrap()
            .unwrap()
            .followup,
        None
    );
}

#[actix_rt::test(system = "Paused")]
async fn provider_that_fails_again_is_not_asked_repeatedly() {
    for fault in [
        fails(Fault::Unreachable),
        breaks("La", Fault::Reset),
        silent(),
    ] {
        let harness = start_with_provider_down();
        let conversations: Vec<_> = (1..=6)
            .map(|n| harness.desk.rooms.enter(conversation(n)))
            .collect();
        for conversation in &conversations {
            ask_in_outage(&harness, conversation, "m").await;
        }
        pass(s(90)).await;
        let before = harness.calls(0).len();
        let mut first = conversations[0].late();
        recover(&harness, [says("Late."), fault.clone()]);
        next_followup(&mut first).await;
        pass(s(5)).await;
        let calls = harness.calls(0).len() - before;
        // One was answered. If calls fail at once, a single one fails; slow ones run in pairs.
        let fails_at_once = fault.len() == 1 && matches!(fault[0], Act::Fail(_));
        assert!(
            calls == 2 || calls == 3 && !fails_at_once,
            "{calls} calls: {fault:?}"
        );
        // Once it is healthy again, every turn gets its follow-up.
        let mut others: Vec<_> = conversations[1..]
            .iter()
            .map(|conversation| conversation.late())
            .collect();
        recover(&harness, [says("Late, too.")]);
        for other in &mut others {
            assert_eq!(next_followup(other).await.1, "Late, too.");
        }
        assert_eq!(pending(&harness).await, []);
        harness.assert_idle().await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn shutdown_pauses_followups_until_the_next_start() {
    let harness = start_with_provider_down();
    let conversation = harness.room();
    let turn = ask_in_outage(&harness, &conversation, "one").await;
    recover(&harness, [silent()]);
    while harness.stands[0].upstream.open() == 0 {
        pass(Duration::from_millis(100)).await;
    }
    harness.phase.send_replace(Phase::Draining);
    settled().await;
    harness.assert_idle().await;
    assert_eq!(pending(&harness).await, [turn]);
    let calls = harness.calls(0).len();
    pass(s(120)).await;
    assert_eq!(harness.calls(0).len(), calls);
    // The next process has the same store and healthy providers.
    recover(&harness, [says("Late.")]);
    let mut next = House::of([]).open();
    let desk = Arc::get_mut(&mut next.desk).unwrap();
    desk.store = Arc::clone(&harness.store) as _;
    desk.published = harness.desk.published.clone();
    desk.router = harness.desk.router.clone();
    let conversation = desk.rooms.enter(conversation.id());
    let mut session = conversation.late();
    actix::spawn(run(Arc::clone(&next.desk)));
    assert_eq!(
        next_followup(&mut session).await,
        (turn, "Late.".to_owned())
    );
    assert_eq!(pending(&harness).await, []);
}

#[actix_rt::test(system = "Paused")]
async fn followup_saved_before_a_crash_is_not_repeated() {
    let harness = start_with_provider_down();
    let conversation = harness.room();
    let turn = ask_in_outage(&harness, &conversation, "one").await;
    let followup = Followup {
        text: "First.".into(),
        provider: "a".into(),
        model: "a-1".into(),
        at: At(9),
    };
    harness
        .store
        .amend(conversation.id(), turn, Amendment::Followup(followup))
        .await
        .unwrap();
    harness
        .store
        .write_waiting(conversation.id(), turn, true)
        .await
        .unwrap();
    let mut session = conversation.late();
    let calls = harness.calls(0).len();
    recover(&harness, [says("Second.")]);
    while !pending(&harness).await.is_empty() {
        pass(Duration::from_millis(100)).await;
    }
    assert!(session.try_recv().is_err());
    assert_eq!(harness.calls(0).len(), calls);
}

#[actix_rt::test(system = "Paused")]
async fn only_turns_that_the_service_left_unanswered_wait() {
    let harness = start_with_provider_down();
    let conversation = harness.room();
    recover(&harness, [silent()]);
    let open = |name: &str| {
        harness
            .desk
            .open(&conversation, question(name, name), harness.desk.usual())
    };
    let [stopped, left, called, alone] = ["stopped", "left", "api-0", "alone"];
    let log = open(stopped).unwrap_or_else(|_| panic!("refused"));
    log.cancel(Cancel::Stopped);
    harness.ended(&log).await;
    // Nobody follows for a minute: interrupted, but not by an outage.
    recover(&harness, [vec![Act::Forever("so ".into(), s(1))]]);
    let log = open(left).unwrap_or_else(|_| panic!("refused"));
    pass(s(70)).await;
    assert_eq!(log.record().finish, Some(Finish::Interrupted));
    recover(&harness, [fails(Fault::Unreachable)]);
    ask_in_outage(&harness, &conversation, called).await;
    let only = Wishes {
        first: Some("a".into()),
        only_first: true,
        ..harness.desk.usual()
    };
    let log = harness.ask_with(alone, only);
    harness.ended(&log).await;
    assert!(log.record().degraded);
    assert_eq!(pending(&harness).await, []);
    // Interrupted by shutdown: this one waits.
    recover(&harness, [vec![Act::Forever("so ".into(), s(1))]]);
    let log = open("cut").unwrap_or_else(|_| panic!("refused"));
    pass(s(5)).await;
    harness.phase.send_replace(Phase::Cutting);
    harness.ended(&log).await;
    assert_eq!(log.record().finish, Some(Finish::Interrupted));
    assert_eq!(pending(&harness).await, [log.turn()]);
}

#[actix_rt::test(system = "Paused")]
async fn question_that_providers_reject_does_not_block_others() {
    let harness = start_with_provider_down();
    let first = harness.desk.rooms.enter(conversation(1));
    let second = harness.desk.rooms.enter(conversation(2));
    ask_in_outage(&harness, &first, "one").await;
    let turn = ask_in_outage(&harness, &second, "two").await;
    let mut session = second.late();
    recover(&harness, [fails(Fault::BadRequest), says("Late.")]);
    assert_eq!(
        next_followup(&mut session).await,
        (turn, "Late.".to_owned())
    );
    assert_eq!(pending(&harness).await, [], "it is not asked again");
}

#[actix_rt::test(system = "Paused")]
async fn store_failure_delays_followups_without_losing_any() {
    let harness = start_with_provider_down();
    let conversation = harness.room();
    let mut session = conversation.late();
    let turn = ask_in_outage(&harness, &conversation, "one").await;
    harness.store.set(Trouble::Fails);
    recover(&harness, [says("Late.")]);
    pass(s(120)).await;
    assert!(
        session.try_recv().is_err(),
        "unknown whether it is still wanted"
    );
    for trouble in [Trouble::Panics, Trouble::None] {
        harness.store.set(trouble);
        pass(s(60)).await;
    }
    assert_eq!(
        next_followup(&mut session).await,
        (turn, "Late.".to_owned())
    );
    harness.assert_idle().await;
}
