//! Follow-ups with scripted providers, a paused clock and every actor on the test's own thread.

mod restarts;

use std::sync::Arc;

use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

use super::*;
use crate::domain::{FaultKind, FinishReason, Followup, Timestamp, TurnRecord, TurnUpdate};
use crate::provider::paused_system::{Paused, advance, run_until_idle};
use crate::provider::scripted_client::{
    Script, ScriptStep, break_after, fail_with, hang, reply, reply_slowly,
};
use crate::store::ConversationStore as _;
use crate::store::flaky::StoreFault;
use crate::turn::conversations::LiveConversation;
use crate::turn::deps::{ShutdownPhase, TurnOptions};
use crate::turn::log::Cancel;
use crate::turn::test_service::{
    FALLBACK_TEXT, TestService, TestServiceBuilder, conversation_id, message,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Starts a service whose only provider is down, with its follow-up loop running.
fn start_with_provider_down() -> TestService {
    let harness =
        TestServiceBuilder::with_scripts([vec![fail_with(FaultKind::Unreachable)]]).start();
    harness.providers[0]
        .client
        .set_probe_scripts([fail_with(FaultKind::Unreachable)]);
    actix::spawn(worker::run(Arc::clone(&harness.turns)));
    harness
}

/// Makes the provider healthy. Its next calls follow `scripts`.
fn recover(harness: &TestService, scripts: impl IntoIterator<Item = Script>) {
    harness.providers[0].client.set_scripts(scripts);
    harness.providers[0]
        .client
        .set_probe_scripts([reply("pong")]);
}

fn conversations(harness: &TestService, count: u8) -> Vec<Arc<LiveConversation>> {
    let registry = &harness.turns.conversations;
    (1..=count)
        .map(|n| registry.get_or_create(conversation_id(n)))
        .collect()
}

/// Asks in a conversation and waits for the end of the turn.
async fn ask(
    harness: &TestService,
    conversation: &Arc<LiveConversation>,
    name: &str,
    retry_of: Option<TurnId>,
) -> TurnRecord {
    let question = crate::turn::conversations::NewMessage {
        retry_of,
        ..message(name, name)
    };
    let log = harness
        .turns
        .start_turn(conversation, question, harness.turns.default_options())
        .unwrap_or_else(|_| panic!("refused"));
    harness.wait_until_done(&log).await;
    log.record()
}

/// Asks a question that gets the fallback answer.
async fn ask_in_outage(
    harness: &TestService,
    conversation: &Arc<LiveConversation>,
    name: &str,
) -> TurnId {
    let record = ask(harness, conversation, name, None).await;
    assert_eq!(
        (record.text.as_str(), record.degraded),
        (FALLBACK_TEXT, true)
    );
    record.turn
}

async fn next_followup(receiver: &mut Receiver<(TurnId, Followup)>) -> (TurnId, String) {
    let (turn, followup) = receiver.recv().await.unwrap();
    (turn, followup.text)
}

async fn pending(harness: &TestService) -> Vec<TurnId> {
    harness
        .store
        .pending_followups()
        .await
        .unwrap()
        .into_iter()
        .map(|(_, turn)| turn)
        .collect()
}

#[actix_rt::test(system = "Paused")]
async fn outage_turns_are_answered_in_order_and_saved() {
    let harness = start_with_provider_down();
    let conversation = harness.conversation();
    let mut sessions = [
        conversation.subscribe_followups(),
        conversation.subscribe_followups(),
    ];
    let mut turns = Vec::new();
    for name in ["one", "two", "three"] {
        turns.push(ask_in_outage(&harness, &conversation, name).await);
    }
    advance(s(120)).await;
    assert_eq!(pending(&harness).await, turns, "no provider can answer");
    recover(&harness, [reply("1"), reply("2"), reply("3")]);
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
            (FALLBACK_TEXT, true, Some(FinishReason::Stop))
        );
        let followup = record.followup.unwrap();
        assert_eq!(
            (&*followup.text, &*followup.provider, &*followup.model),
            (text, "a", "a-1")
        );
    }
    // Each call includes the follow-ups of earlier turns, as the next turn's call does.
    let request = harness.calls(0).pop().unwrap().request;
    let texts: Vec<_> = request
        .messages
        .iter()
        .map(|message| &*message.text)
        .collect();
    assert_eq!(texts, ["one", "1", "two", "2", "three"]);
    recover(&harness, [reply("4")]);
    assert!(!ask(&harness, &conversation, "four", None).await.degraded);
    assert_eq!(harness.calls(0).pop().unwrap().request.messages.len(), 7);
    // Follow-ups are not counted as turns.
    let counts = harness.turns.observer.answers();
    assert_eq!([counts.ended, counts.ai, counts.degraded], [4, 1, 3]);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn followups_take_at_most_half_the_retry_budget() {
    let harness = start_with_provider_down();
    let conversations = conversations(&harness, 30);
    let mut sessions = Vec::new();
    for conversation in &conversations {
        sessions.push(conversation.subscribe_followups());
        ask_in_outage(&harness, conversation, "m").await;
    }
    // Wait until the budget that the outage spent has recovered.
    advance(s(90)).await;
    let before = harness.calls(0).len();
    recover(&harness, [reply("Late.")]);
    let started = Instant::now();
    for session in &mut sessions {
        assert_eq!(next_followup(session).await.1, "Late.");
    }
    let took = started.elapsed();
    let calls: Vec<_> = harness.calls(0)[before..]
        .iter()
        .map(|call| call.started_at)
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
    let conversation = harness.conversation();
    let mut session = conversation.subscribe_followups();
    let first = ask_in_outage(&harness, &conversation, "one").await;
    // The retry fails as well, and waits instead of the first turn.
    let again = ask(&harness, &conversation, "again", Some(first))
        .await
        .turn;
    recover(&harness, [reply("Late.")]);
    assert_eq!(
        next_followup(&mut session).await,
        (again, "Late.".to_owned())
    );
    advance(s(60)).await;
    assert!(session.try_recv().is_err());
    assert_eq!(pending(&harness).await, []);
    // A follow-up in progress is discarded when its turn is retried.
    recover(&harness, [fail_with(FaultKind::Reset)]);
    let second = ask_in_outage(&harness, &conversation, "two").await;
    recover(&harness, [reply_slowly("La", s(4), "te."), reply("Live.")]);
    while harness.providers[0].client.open_connections() == 0 {
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(
        ask(&harness, &conversation, "two again", Some(second))
            .await
            .text,
        "Live."
    );
    advance(s(60)).await;
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
        fail_with(FaultKind::Unreachable),
        break_after("La", FaultKind::Reset),
        hang(),
    ] {
        let harness = start_with_provider_down();
        let conversations = conversations(&harness, 6);
        for conversation in &conversations {
            ask_in_outage(&harness, conversation, "m").await;
        }
        advance(s(90)).await;
        let before = harness.calls(0).len();
        let mut first = conversations[0].subscribe_followups();
        recover(&harness, [reply("Late."), fault.clone()]);
        next_followup(&mut first).await;
        advance(s(5)).await;
        let calls = harness.calls(0).len() - before;
        // One was answered. If calls fail at once, a single one fails; slow ones run in pairs.
        let fails_at_once = fault.len() == 1 && matches!(fault[0], ScriptStep::Fail(_));
        assert!(
            calls == 2 || calls == 3 && !fails_at_once,
            "{calls} calls: {fault:?}"
        );
        // Once it is healthy again, every turn gets its follow-up.
        let mut others: Vec<_> = conversations[1..]
            .iter()
            .map(|conversation| conversation.subscribe_followups())
            .collect();
        recover(&harness, [reply("Late, too.")]);
        for other in &mut others {
            assert_eq!(next_followup(other).await.1, "Late, too.");
        }
        assert_eq!(pending(&harness).await, []);
        harness.assert_idle().await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn only_turns_that_the_service_left_unanswered_wait() {
    let harness = start_with_provider_down();
    let conversation = harness.conversation();
    recover(&harness, [hang()]);
    let open = |name: &str| {
        harness.turns.start_turn(
            &conversation,
            message(name, name),
            harness.turns.default_options(),
        )
    };
    let [stopped, left, called, alone] = ["stopped", "left", "api-0", "alone"];
    let log = open(stopped).unwrap_or_else(|_| panic!("refused"));
    log.cancel(Cancel::Stopped);
    harness.wait_until_done(&log).await;
    // Nobody follows for a minute: interrupted, but not by an outage.
    recover(
        &harness,
        [vec![ScriptStep::RepeatForever("so ".into(), s(1))]],
    );
    let log = open(left).unwrap_or_else(|_| panic!("refused"));
    advance(s(70)).await;
    assert_eq!(log.record().finish, Some(FinishReason::Interrupted));
    recover(&harness, [fail_with(FaultKind::Unreachable)]);
    ask_in_outage(&harness, &conversation, called).await;
    let only = TurnOptions {
        preferred_provider: Some("a".into()),
        no_failover: true,
        ..harness.turns.default_options()
    };
    let log = harness.ask_with_options(alone, only);
    harness.wait_until_done(&log).await;
    assert!(log.record().degraded);
    assert_eq!(pending(&harness).await, []);
    // Interrupted by shutdown: this one waits.
    recover(
        &harness,
        [vec![ScriptStep::RepeatForever("so ".into(), s(1))]],
    );
    let log = open("cut").unwrap_or_else(|_| panic!("refused"));
    advance(s(5)).await;
    harness.phase.send_replace(ShutdownPhase::Aborting);
    harness.wait_until_done(&log).await;
    assert_eq!(log.record().finish, Some(FinishReason::Interrupted));
    assert_eq!(pending(&harness).await, [log.turn()]);
}

#[actix_rt::test(system = "Paused")]
async fn question_that_providers_reject_does_not_block_others() {
    let harness = start_with_provider_down();
    let first = harness
        .turns
        .conversations
        .get_or_create(conversation_id(1));
    let second = harness
        .turns
        .conversations
        .get_or_create(conversation_id(2));
    ask_in_outage(&harness, &first, "one").await;
    let turn = ask_in_outage(&harness, &second, "two").await;
    let mut session = second.subscribe_followups();
    recover(&harness, [fail_with(FaultKind::BadRequest), reply("Late.")]);
    assert_eq!(
        next_followup(&mut session).await,
        (turn, "Late.".to_owned())
    );
    assert_eq!(pending(&harness).await, [], "it is not asked again");
}
