//! Follow-ups across a restart or a failure of the store.

use super::*;
use crate::store::ConversationStore as _;

#[actix_rt::test(system = "Paused")]
async fn shutdown_pauses_followups_until_the_next_start() {
    let harness = start_with_provider_down();
    let conversation = harness.conversation();
    let turn = ask_in_outage(&harness, &conversation, "one").await;
    recover(&harness, [hang()]);
    while harness.providers[0].client.open_connections() == 0 {
        advance(Duration::from_millis(100)).await;
    }
    harness.phase.send_replace(ShutdownPhase::Draining);
    run_until_idle().await;
    harness.assert_idle().await;
    assert_eq!(pending(&harness).await, [turn]);
    let calls = harness.calls(0).len();
    advance(s(120)).await;
    assert_eq!(harness.calls(0).len(), calls);
    // The next process has the same store and healthy providers.
    recover(&harness, [reply("Late.")]);
    let mut next = TestServiceBuilder::with_providers([]).start();
    let deps = &mut Arc::get_mut(&mut next.turns).unwrap().0;
    deps.store = Arc::clone(&harness.store) as _;
    deps.config_watch = harness.turns.config_watch.clone();
    deps.router = harness.turns.router.clone();
    let conversation = deps.conversations.get_or_create(conversation.id());
    let mut session = conversation.subscribe_followups();
    actix::spawn(worker::run(Arc::clone(&next.turns)));
    assert_eq!(
        next_followup(&mut session).await,
        (turn, "Late.".to_owned())
    );
    assert_eq!(pending(&harness).await, []);
}

#[actix_rt::test(system = "Paused")]
async fn followup_saved_before_a_crash_is_not_repeated() {
    let harness = start_with_provider_down();
    let conversation = harness.conversation();
    let turn = ask_in_outage(&harness, &conversation, "one").await;
    let followup = Followup {
        text: "First.".into(),
        provider: "a".into(),
        model: "a-1".into(),
        at: Timestamp(9),
    };
    harness
        .store
        .update_turn(conversation.id(), turn, TurnUpdate::Followup(followup))
        .await
        .unwrap();
    harness
        .store
        .set_followup_pending(conversation.id(), turn, true)
        .await
        .unwrap();
    let mut session = conversation.subscribe_followups();
    let calls = harness.calls(0).len();
    recover(&harness, [reply("Second.")]);
    while !pending(&harness).await.is_empty() {
        advance(Duration::from_millis(100)).await;
    }
    assert!(session.try_recv().is_err());
    assert_eq!(harness.calls(0).len(), calls);
}

#[actix_rt::test(system = "Paused")]
async fn store_failure_delays_followups_without_losing_any() {
    let harness = start_with_provider_down();
    let conversation = harness.conversation();
    let mut session = conversation.subscribe_followups();
    let turn = ask_in_outage(&harness, &conversation, "one").await;
    harness.store.set_fault(StoreFault::Failing);
    recover(&harness, [reply("Late.")]);
    advance(s(120)).await;
    assert!(
        session.try_recv().is_err(),
        "unknown whether it is still wanted"
    );
    for trouble in [StoreFault::Panicking, StoreFault::None] {
        harness.store.set_fault(trouble);
        advance(s(60)).await;
    }
    assert_eq!(
        next_followup(&mut session).await,
        (turn, "Late.".to_owned())
    );
    harness.assert_idle().await;
}
