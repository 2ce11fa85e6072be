//! Reconfiguration and removal by a reload.

use super::super::changing::Retire;
use super::*;

fn unchanged(_: &mut Seed) {}

#[actix_rt::test(system = "Paused")]
async fn new_key_closes_the_breaker_and_old_outcomes_do_not_count() {
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
        stand.change(true, unchanged);
        let status = stand.vitals().await;
        assert_eq!(
            (status.state, status.retry_at),
            (ProviderState::Closed, None),
            "{fault:?}"
        );
        assert!(status.failures > 0, "counts since the start continue");
        old.settle(failed(Fault::Unauthorized));
        assert_eq!(
            stand.vitals().await.state,
            ProviderState::Closed,
            "a refusal of the old key"
        );
        assert!(stand.admit().await.is_ok());
        // A refusal of the new key blocks it.
        call(&stand, failed(Fault::Unauthorized)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Blocked);
    }
}

#[actix_rt::test(system = "Paused")]
async fn new_settings_keep_the_breaker_state() {
    let mut stand = opened(Plan::new("a")).await;
    // By the paused clock; the status has wall-clock times, which go on.
    let until = async |stand: &Stand| {
        (
            stand.vitals().await.state,
            rejection(stand.admit().await).retry_at,
        )
    };
    let before = until(&stand).await;
    assert!(before.1.is_some());
    stand.change(false, |seed| seed.rules.open_for = s(1));
    assert_eq!(until(&stand).await, before);
    // The counts are kept too.
    let mut stand = Stand::alone(Plan::new("b"));
    for _ in 0..4 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    stand.change(false, unchanged);
    call(&stand, failed(Fault::ServerError)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Open);
}

#[actix_rt::test(system = "Paused")]
async fn lower_concurrency_limit_waits_for_running_calls() {
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
    assert!(rejection(stand.admit().await).busy);
    assert_eq!(stand.vitals().await.in_flight, 1);
    under_way.clear();
    assert!(stand.admit().await.is_ok());
    stand.change(false, |seed| seed.max_concurrent = 2);
    let two = [stand.admit().await, stand.admit().await];
    assert!(two.iter().all(Result::is_ok) && stand.admit().await.is_err());
}

#[actix_rt::test(system = "Paused")]
async fn health_check_of_the_old_address_does_not_count() {
    let check = HealthSettings {
        probe: crate::settings::ProbeKind::Models,
        ..HealthSettings::default()
    };
    let mut stand = Stand::alone(Plan {
        health: check,
        ..Plan::new("a")
    });
    stand.upstream.follow_when_listed([silent()]);
    // The check is running during the change.
    pass(s(61)).await;
    let other = Arc::new(crate::provider::scripted::Scripted::default());
    stand.change(true, |seed| seed.upstream = other);
    pass(s(5)).await;
    let status = stand.vitals().await;
    assert_eq!((status.check, status.checks), (None, 0));
    pass(s(65)).await;
    assert_eq!(
        stand.vitals().await.checks,
        1,
        "only one schedule of checks continues"
    );
}

#[actix_rt::test(system = "Paused")]
async fn retired_actor_finishes_its_calls_and_stops() {
    let store = Arc::new(MemoryStore::default());
    let clock = crate::provider::backend::Clock::start();
    let mut stand = Stand::start(Plan::new("a"), clock, Arc::clone(&store) as _);
    let first = stand.admit().await.unwrap();
    let mut last = stand.admit().await.unwrap();
    call(&stand, failed(Fault::Unauthorized)).await;
    assert_eq!(store.breakers().await.unwrap().len(), 1);
    let actor = stand.actor();
    actor.do_send(Retire);
    assert!(stand.admit().await.is_err(), "it takes no more calls");
    assert_eq!(
        store.breakers().await.unwrap(),
        [],
        "its saved state is deleted"
    );
    let probes = probe_count(&stand);
    pass(s(300)).await;
    assert_eq!(probe_count(&stand), probes, "it is not probed");
    first.settle(Verdict::Whole);
    settled().await;
    assert!(actor.connected(), "one call is running");
    last.used(crate::chat::Usage {
        input_tokens: 1_000_000,
        output_tokens: 0,
        estimated: false,
    });
    drop(last);
    stand.ended().await;
    let spent = stand.backend.vitals.borrow().spent.usd;
    assert!((spent - 1.0).abs() < 1e-9, "the last call is paid: {spent}");
    assert_eq!(store.breakers().await.unwrap(), []);

    let mut idle = Stand::alone(Plan::new("b"));
    idle.actor().do_send(Retire);
    idle.ended().await;
}
