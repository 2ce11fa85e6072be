//! A panic costs its attempt or its turn, nothing else.

use super::*;
use crate::store::flaky::StoreFault;
use crate::turn::test_service::conversation_id;

fn panics() -> Script {
    vec![ScriptStep::Panic]
}

#[actix_rt::test(system = "Paused")]
async fn upstream_panic_fails_the_attempt() {
    let broken = vec![say("Hel"), ScriptStep::Pause(ms(1)), ScriptStep::Panic];
    let harness =
        TestServiceBuilder::with_scripts([vec![panics(), broken], vec![reply("Good day.")]])
            .start();
    let reader = ask_once(&harness).await;
    assert_eq!(attempt_lines(&reader), ["1 a malformed 0", "2 b ok 0"]);
    assert_answered(&reader, "b", "Good day.");
    let log = harness.ask("n");
    let reader = ProtocolClient::follow(&log).await;
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt restart token done"
    );
    assert_eq!(reader.drafts, [("a".into(), "Hel".to_owned())]);
    assert_answered(&reader, "b", "Good day.");
    harness.assert_idle().await;
    assert_eq!(
        harness.providers[0].status().await.failures,
        2,
        "the breaker counts both"
    );
}

#[actix_rt::test(system = "Paused")]
async fn other_turns_continue_while_one_panics() {
    let scripts = [vec![
        vec![ScriptStep::Pause(s(1)), ScriptStep::Panic],
        reply_slowly("Hel", s(3), "lo."),
    ]];
    let harness = TestServiceBuilder::with_scripts(scripts).start();
    let first = harness.ask("m");
    run_until_idle().await;
    let conversation = harness
        .turns
        .conversations
        .get_or_create(conversation_id(2));
    let second = harness
        .turns
        .start_turn(
            &conversation,
            message("m", "?"),
            harness.turns.default_options(),
        )
        .ok()
        .unwrap();
    assert_answered(&ProtocolClient::follow(&second).await, "a", "Hello.");
    assert_fallback(&ProtocolClient::follow(&first).await);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn panic_in_a_turn_task_interrupts_the_turn() {
    let harness = TestServiceBuilder::with_scripts([vec![]]).start();
    let conversation = harness.conversation();
    harness.store.set_fault(StoreFault::Panicking);
    let log = harness.ask("m");
    let reader = ProtocolClient::follow(&log).await;
    assert_eq!(
        (reader.kinds().as_str(), reader.done().finish),
        ("start done", FinishReason::Interrupted)
    );
    assert!(!log.await_durability().await);
    harness.assert_idle().await;
    let counted = harness
        .turns
        .observer
        .metrics
        .collectors()
        .iter()
        .flat_map(|collector| collector.collect())
        .collect::<Vec<_>>();
    let metric = |name: &str| {
        counted
            .iter()
            .find(|family| family.name() == name)
            .unwrap()
            .get_metric()
    };
    assert_eq!(
        metric("failsoft_turns_in_flight")[0]
            .get_gauge()
            .get_value(),
        0.0
    );
    let turns = metric("failsoft_turns_total")
        .iter()
        .map(|metric| metric.get_counter().get_value());
    assert_eq!(turns.sum::<f64>(), 1.0, "it ended");
    advance(s(5)).await;
    assert!(conversation.logs().is_empty());
    harness.store.set_fault(StoreFault::None);
    assert_answered(&ask_once(&harness).await, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn turn_waits_for_a_router_that_is_restarted() {
    let mut harness = TestServiceBuilder::with_scripts([vec![]]).start();
    harness.router.crash().await;
    let log = harness.ask("m");
    advance(ms(150)).await;
    assert!(!log.is_finished());
    harness.router.restart();
    let reader = ProtocolClient::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn dead_router_leads_to_the_fallback_answer() {
    let mut harness = TestServiceBuilder::with_scripts([vec![]]).start();
    harness.router.crash().await;
    let reader = ask_once(&harness).await;
    assert_fallback(&reader);
    assert!(reader.done().total_ms <= 500, "{}", reader.done().total_ms);
}

#[actix_rt::test(system = "Paused")]
async fn answer_survives_the_death_of_its_provider_actor() {
    let mut harness = TestServiceBuilder::with_scripts([
        vec![reply_slowly("Hel", s(3), "lo.")],
        vec![reply("Good day.")],
    ])
    .start();
    let log = harness.ask("m");
    advance(s(1)).await;
    harness.providers[0].crash_actor().await;
    assert_answered(&ProtocolClient::follow(&log).await, "a", "Hello.");
    assert_eq!(
        harness.providers[0].free_slots(),
        harness.providers[0].total_slots(),
        "permits live outside the actor"
    );
    let log = harness.ask("n");
    assert_answered(&ProtocolClient::follow(&log).await, "b", "Good day.");
    harness.providers[0].restart_actor();
    harness.assert_idle().await;
}
