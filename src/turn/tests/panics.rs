//! A panic costs its attempt or its turn, nothing else.

use super::*;
use crate::store::flaky::Trouble;
use crate::turn::stage::conversation;

fn panics() -> Script {
    vec![Act::Panic]
}

#[actix_rt::test(system = "Paused")]
async fn upstream_panic_fails_the_attempt() {
    let broken = vec![say("Hel"), Act::Wait(ms(1)), Act::Panic];
    let harness = House::following([vec![panics(), broken], vec![says("Good day.")]]).open();
    let reader = answer(&harness).await;
    assert_eq!(tried(&reader), ["1 a malformed 0", "2 b ok 0"]);
    assert_answered(&reader, "b", "Good day.");
    let log = harness.ask("n");
    let reader = Reader::follow(&log).await;
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt restart token done"
    );
    assert_eq!(reader.drafts, [("a".into(), "Hel".to_owned())]);
    assert_answered(&reader, "b", "Good day.");
    harness.assert_idle().await;
    assert_eq!(
        harness.stands[0].vitals().await.failures,
        2,
        "the breaker counts both"
    );
}

#[actix_rt::test(system = "Paused")]
async fn other_turns_continue_while_one_panics() {
    let scripts = [vec![
        vec![Act::Wait(s(1)), Act::Panic],
        says_slowly("Hel", s(3), "lo."),
    ]];
    let harness = House::following(scripts).open();
    let first = harness.ask("m");
    settled().await;
    let conversation = harness.desk.rooms.enter(conversation(2));
    let second = harness
        .desk
        .open(&conversation, question("m", "?"), harness.desk.usual())
        .ok()
        .unwrap();
    assert_answered(&Reader::follow(&second).await, "a", "Hello.");
    assert_fallback(&Reader::follow(&first).await);
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn panic_in_a_turn_task_interrupts_the_turn() {
    let harness = House::following([vec![]]).open();
    let conversation = harness.room();
    harness.store.set(Trouble::Panics);
    let log = harness.ask("m");
    let reader = Reader::follow(&log).await;
    assert_eq!(
        (reader.kinds().as_str(), reader.done().finish),
        ("start done", Finish::Interrupted)
    );
    assert!(!log.durable().await);
    harness.assert_idle().await;
    let counted = harness
        .desk
        .tally
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
    pass(s(5)).await;
    assert!(conversation.logs().is_empty());
    harness.store.set(Trouble::None);
    assert_answered(&answer(&harness).await, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn turn_waits_for_a_router_that_is_restarted() {
    let mut harness = House::following([vec![]]).open();
    harness.router.crash().await;
    let log = harness.ask("m");
    pass(ms(150)).await;
    assert!(!log.ended());
    harness.router.rebuild();
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    harness.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn dead_router_leads_to_the_fallback_answer() {
    let mut harness = House::following([vec![]]).open();
    harness.router.crash().await;
    let reader = answer(&harness).await;
    assert_fallback(&reader);
    assert!(reader.done().total_ms <= 500, "{}", reader.done().total_ms);
}

#[actix_rt::test(system = "Paused")]
async fn answer_survives_the_death_of_its_provider_actor() {
    let mut harness = House::following([
        vec![says_slowly("Hel", s(3), "lo.")],
        vec![says("Good day.")],
    ])
    .open();
    let log = harness.ask("m");
    pass(s(1)).await;
    harness.stands[0].crash().await;
    assert_answered(&Reader::follow(&log).await, "a", "Hello.");
    assert_eq!(
        harness.stands[0].free(),
        harness.stands[0].places(),
        "permits live outside the actor"
    );
    let log = harness.ask("n");
    assert_answered(&Reader::follow(&log).await, "b", "Good day.");
    harness.stands[0].rebuild();
    harness.assert_idle().await;
}
