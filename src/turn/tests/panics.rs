//! What panics costs its attempt or its turn, nobody else.

use super::*;
use crate::store::flaky::Trouble;
use crate::turn::stage::conversation;

fn panics() -> Script {
    vec![Act::Panic]
}

#[actix_rt::test(system = "Paused")]
async fn an_upstream_that_panics_is_a_failed_attempt() {
    let broken = vec![say("Hel"), Act::Wait(ms(1)), Act::Panic];
    let stage = House::following([vec![panics(), broken], vec![says("Good day.")]]).open();
    let reader = answer(&stage).await;
    assert_eq!(tried(&reader), ["1 a malformed 0", "2 b ok 0"]);
    assert_answered(&reader, "b", "Good day.");
    let log = stage.ask("n");
    let reader = Reader::follow(&log).await;
    assert_eq!(
        reader.kinds(),
        "start attempt token attempt restart token done"
    );
    assert_eq!(reader.drafts, [("a".into(), "Hel".to_owned())]);
    assert_answered(&reader, "b", "Good day.");
    stage.assert_idle().await;
    assert_eq!(
        stage.stands[0].vitals().await.failures,
        2,
        "the breaker hears of it"
    );
}

#[actix_rt::test(system = "Paused")]
async fn others_go_on_while_one_panics() {
    let scripts = [vec![
        vec![Act::Wait(s(1)), Act::Panic],
        says_slowly("Hel", s(3), "lo."),
    ]];
    let stage = House::following(scripts).open();
    let first = stage.ask("m");
    settled().await;
    let room = stage.desk.rooms.enter(conversation(2));
    let second = stage
        .desk
        .open(&room, question("m", "?"), stage.desk.usual())
        .ok()
        .unwrap();
    assert_answered(&Reader::follow(&second).await, "a", "Hello.");
    assert_fallback(&Reader::follow(&first).await);
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn a_turn_whose_task_panics_is_interrupted_and_leaves_nothing_behind() {
    let stage = House::following([vec![]]).open();
    let room = stage.room();
    stage.store.set(Trouble::Panics);
    let log = stage.ask("m");
    let reader = Reader::follow(&log).await;
    assert_eq!(
        (reader.kinds().as_str(), reader.done().finish),
        ("start done", Finish::Interrupted)
    );
    assert!(!log.durable().await);
    stage.assert_idle().await;
    let counted = stage
        .desk
        .tally
        .collectors()
        .iter()
        .flat_map(|one| one.collect())
        .collect::<Vec<_>>();
    let of = |name: &str| {
        counted
            .iter()
            .find(|one| one.name() == name)
            .unwrap()
            .get_metric()
    };
    assert_eq!(
        of("failsoft_turns_in_flight")[0].get_gauge().get_value(),
        0.0
    );
    let turns = of("failsoft_turns_total")
        .iter()
        .map(|one| one.get_counter().get_value());
    assert_eq!(turns.sum::<f64>(), 1.0, "it ended");
    pass(s(5)).await;
    assert!(room.logs().is_empty());
    stage.store.set(Trouble::None);
    assert_answered(&answer(&stage).await, "a", "Hello.");
}

#[actix_rt::test(system = "Paused")]
async fn a_router_that_dies_is_waited_for_while_it_is_rebuilt() {
    let mut stage = House::following([vec![]]).open();
    stage.router.crash().await;
    let log = stage.ask("m");
    pass(ms(150)).await;
    assert!(!log.ended());
    stage.router.rebuild();
    let reader = Reader::follow(&log).await;
    assert_answered(&reader, "a", "Hello.");
    stage.assert_idle().await;
}

#[actix_rt::test(system = "Paused")]
async fn a_router_that_stays_dead_costs_the_ai_not_the_answer() {
    let mut stage = House::following([vec![]]).open();
    stage.router.crash().await;
    let reader = answer(&stage).await;
    assert_fallback(&reader);
    assert!(reader.done().total_ms <= 500, "{}", reader.done().total_ms);
}

#[actix_rt::test(system = "Paused")]
async fn a_provider_actor_that_dies_under_an_answer_does_not_end_it() {
    let mut stage = House::following([
        vec![says_slowly("Hel", s(3), "lo.")],
        vec![says("Good day.")],
    ])
    .open();
    let log = stage.ask("m");
    pass(s(1)).await;
    stage.stands[0].crash().await;
    assert_answered(&Reader::follow(&log).await, "a", "Hello.");
    assert_eq!(
        stage.stands[0].free(),
        stage.stands[0].places(),
        "places live outside of the actor"
    );
    let log = stage.ask("n");
    assert_answered(&Reader::follow(&log).await, "b", "Good day.");
    stage.stands[0].rebuild();
    stage.assert_idle().await;
}
