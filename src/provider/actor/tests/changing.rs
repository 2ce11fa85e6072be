//! What a reload makes of an actor.

use super::super::changing::Retire;
use super::*;

fn anything(_: &mut Seed) {}

#[actix_rt::test(system = "Paused")]
async fn another_key_closes_the_breaker_at_once_and_old_verdicts_say_nothing_of_it() {
    for fault in [Fault::Unauthorized, Fault::RateLimited, Fault::Unreachable] {
        let mut stand = Stand::alone(Plan::new("a"));
        let old = stand.admit().await.unwrap();
        for _ in 0..5 {
            if let Ok(permit) = stand.admit().await {
                permit.settle(Verdict::Failed {
                    fault,
                    started: false,
                    retry_after: Some(s(30)),
                });
                settled().await;
            }
        }
        assert!(stand.admit().await.is_err(), "{fault:?}");
        stand.change(true, anything);
        let vitals = stand.vitals().await;
        assert_eq!(
            (vitals.state, vitals.retry_at),
            (ProviderState::Closed, None),
            "{fault:?}"
        );
        assert!(
            vitals.failures > 0,
            "what was counted since the start is counted still"
        );
        old.settle(failed(Fault::Unauthorized));
        assert_eq!(
            stand.vitals().await.state,
            ProviderState::Closed,
            "an old key's refusal"
        );
        assert!(stand.admit().await.is_ok());
        // It is blocked again by the new one's own.
        call(&stand, failed(Fault::Unauthorized)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Blocked);
    }
}

#[actix_rt::test(system = "Paused")]
async fn other_measures_leave_the_breaker_as_it_is() {
    let mut stand = opened(Plan::new("a")).await;
    // By the clock that stands still here; the vitals tell the time of the wall, which does not.
    let until = async |stand: &Stand| {
        (
            stand.vitals().await.state,
            refusal(stand.admit().await).retry_at,
        )
    };
    let before = until(&stand).await;
    assert!(before.1.is_some());
    stand.change(false, |seed| seed.rules.open_for = s(1));
    assert_eq!(until(&stand).await, before);
    // And what it counted.
    let mut stand = Stand::alone(Plan::new("b"));
    for _ in 0..4 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    stand.change(false, anything);
    call(&stand, failed(Fault::ServerError)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Open);
}

#[actix_rt::test(system = "Paused")]
async fn fewer_places_than_are_taken_are_waited_for() {
    let mut stand = Stand::alone(Plan {
        max_concurrent: 3,
        ..Plan::new("a")
    });
    let mut under_way: Vec<_> = [
        stand.admit().await,
        stand.admit().await,
        stand.admit().await,
    ]
    .map(Result::unwrap)
    .into();
    stand.change(false, |seed| seed.max_concurrent = 1);
    settled().await;
    under_way.truncate(1);
    assert!(refusal(stand.admit().await).busy);
    assert_eq!(stand.vitals().await.in_flight, 1);
    under_way.clear();
    assert!(stand.admit().await.is_ok());
    stand.change(false, |seed| seed.max_concurrent = 2);
    let two = [stand.admit().await, stand.admit().await];
    assert!(two.iter().all(Result::is_ok) && stand.admit().await.is_err());
}

#[actix_rt::test(system = "Paused")]
async fn what_an_old_address_says_of_its_health_is_not_the_new_ones() {
    let check = HealthSettings {
        probe: crate::settings::ProbeKind::Models,
        ..HealthSettings::default()
    };
    let mut stand = Stand::alone(Plan {
        health: check,
        ..Plan::new("a")
    });
    stand.upstream.follow_when_listed([silent()]);
    // The check is under way when it changes.
    pass(s(61)).await;
    let other = Arc::new(crate::provider::scripted::Scripted::default());
    stand.change(true, |seed| seed.upstream = other);
    pass(s(5)).await;
    let vitals = stand.vitals().await;
    assert_eq!((vitals.check, vitals.checks), (None, 0));
    pass(s(65)).await;
    assert_eq!(
        stand.vitals().await.checks,
        1,
        "one chain of checks goes on"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_retired_one_finishes_what_it_was_asked_and_ends() {
    let store = Arc::new(MemoryStore::default());
    let clock = crate::provider::backend::Clock::start();
    let mut stand = Stand::start(Plan::new("a"), clock, Arc::clone(&store) as _);
    let (first, second) = (stand.admit().await.unwrap(), stand.admit().await.unwrap());
    call(&stand, failed(Fault::Unauthorized)).await;
    assert_eq!(store.breakers().await.unwrap().len(), 1);
    let actor = stand.actor();
    actor.do_send(Retire);
    assert!(stand.admit().await.is_err(), "it takes no more");
    assert_eq!(
        store.breakers().await.unwrap(),
        [],
        "nothing is remembered of it"
    );
    let probes = probed(&stand);
    pass(s(300)).await;
    assert_eq!(probed(&stand), probes, "nor is it probed");
    first.settle(Verdict::Whole);
    settled().await;
    assert!(actor.connected(), "one is under way");
    let mut last = second;
    last.used(crate::chat::Usage {
        input_tokens: 1_000_000,
        output_tokens: 0,
        estimated: false,
    });
    drop(last);
    stand.ended().await;
    let spent = stand.backend.vitals.borrow().spent.usd;
    assert!(
        (spent - 1.0).abs() < 1e-9,
        "what the last one cost is counted: {spent}"
    );
    assert_eq!(store.breakers().await.unwrap(), []);

    let mut idle = Stand::alone(Plan::new("b"));
    idle.actor().do_send(Retire);
    idle.ended().await;
}
