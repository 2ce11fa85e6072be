//! Reconfiguration and removal by a reload.

use super::super::reconfigure::Retire;
use super::*;

fn unchanged(_: &mut ProviderParts) {}

#[actix_rt::test(system = "Paused")]
async fn new_key_closes_the_breaker_and_old_outcomes_do_not_count() {
    for fault in [
        FaultKind::Unauthorized,
        FaultKind::RateLimited,
        FaultKind::Unreachable,
    ] {
        let mut bench = ProviderBench::standalone(BenchOptions::new("a"));
        let old = bench.try_acquire().await.unwrap();
        for _ in 0..5 {
            if let Ok(permit) = bench.try_acquire().await {
                permit.complete(CallOutcome::Failed {
                    fault,
                    had_text: false,
                    retry_after: Some(s(30)),
                });
                run_until_idle().await;
            }
        }
        assert!(bench.try_acquire().await.is_err(), "{fault:?}");
        bench.reconfigure(true, unchanged);
        let status = bench.status().await;
        assert_eq!(
            (status.state, status.retry_at),
            (ProviderState::Closed, None),
            "{fault:?}"
        );
        assert!(status.failures > 0, "counts since the start continue");
        old.complete(failed(FaultKind::Unauthorized));
        assert_eq!(
            bench.status().await.state,
            ProviderState::Closed,
            "a refusal of the old key"
        );
        assert!(bench.try_acquire().await.is_ok());
        // A refusal of the new key blocks it.
        call(&bench, failed(FaultKind::Unauthorized)).await;
        assert_eq!(bench.status().await.state, ProviderState::Blocked);
    }
}

#[actix_rt::test(system = "Paused")]
async fn new_settings_keep_the_breaker_state() {
    let mut bench = opened(BenchOptions::new("a")).await;
    // By the paused clock; the status has wall-clock times, which go on.
    let until = async |bench: &ProviderBench| {
        (
            bench.status().await.state,
            rejection(bench.try_acquire().await).retry_at,
        )
    };
    let before = until(&bench).await;
    assert!(before.1.is_some());
    bench.reconfigure(false, |seed| seed.breaker_config.open_for = s(1));
    assert_eq!(until(&bench).await, before);
    // The counts are kept too.
    let mut bench = ProviderBench::standalone(BenchOptions::new("b"));
    for _ in 0..4 {
        call(&bench, failed(FaultKind::ServerError)).await;
    }
    bench.reconfigure(false, unchanged);
    call(&bench, failed(FaultKind::ServerError)).await;
    assert_eq!(bench.status().await.state, ProviderState::Open);
}

#[actix_rt::test(system = "Paused")]
async fn lower_concurrency_limit_waits_for_running_calls() {
    let mut bench = ProviderBench::standalone(BenchOptions {
        max_concurrent: 3,
        ..BenchOptions::new("a")
    });
    let mut under_way: Vec<_> = [
        bench.try_acquire().await,
        bench.try_acquire().await,
        bench.try_acquire().await,
    ]
    .map(Result::unwrap)
    .into();
    bench.reconfigure(false, |seed| seed.max_concurrent = 1);
    run_until_idle().await;
    under_way.truncate(1);
    assert!(rejection(bench.try_acquire().await).is_busy);
    assert_eq!(bench.status().await.in_flight, 1);
    under_way.clear();
    assert!(bench.try_acquire().await.is_ok());
    bench.reconfigure(false, |seed| seed.max_concurrent = 2);
    let two = [bench.try_acquire().await, bench.try_acquire().await];
    assert!(two.iter().all(Result::is_ok) && bench.try_acquire().await.is_err());
}

#[actix_rt::test(system = "Paused")]
async fn health_check_of_the_old_address_does_not_count() {
    let check = HealthSettings {
        probe: crate::config::ProbeKind::Models,
        ..HealthSettings::default()
    };
    let mut bench = ProviderBench::standalone(BenchOptions {
        health: check,
        ..BenchOptions::new("a")
    });
    bench.client.set_listing_scripts([hang()]);
    // The check is running during the change.
    advance(s(61)).await;
    let other = Arc::new(crate::provider::scripted_client::ScriptedClient::default());
    bench.reconfigure(true, |seed| seed.client = other);
    advance(s(5)).await;
    let status = bench.status().await;
    assert_eq!((status.last_check, status.checks), (None, 0));
    advance(s(65)).await;
    assert_eq!(
        bench.status().await.checks,
        1,
        "only one schedule of checks continues"
    );
}

#[actix_rt::test(system = "Paused")]
async fn retired_actor_finishes_its_calls_and_stops() {
    let store = Arc::new(MemoryStore::default());
    let clock = crate::provider::clock::Clock::start();
    let mut bench = ProviderBench::start(BenchOptions::new("a"), clock, Arc::clone(&store) as _);
    let first = bench.try_acquire().await.unwrap();
    let mut last = bench.try_acquire().await.unwrap();
    call(&bench, failed(FaultKind::Unauthorized)).await;
    assert_eq!(store.breakers().await.unwrap().len(), 1);
    let actor = bench.actor();
    actor.do_send(Retire);
    assert!(bench.try_acquire().await.is_err(), "it takes no more calls");
    assert_eq!(
        store.breakers().await.unwrap(),
        [],
        "its saved state is deleted"
    );
    let probes = probe_count(&bench);
    advance(s(300)).await;
    assert_eq!(probe_count(&bench), probes, "it is not probed");
    first.complete(CallOutcome::Success);
    run_until_idle().await;
    assert!(actor.connected(), "one call is running");
    last.record_usage(crate::domain::TokenUsage {
        input_tokens: 1_000_000,
        output_tokens: 0,
        estimated: false,
    });
    drop(last);
    bench.wait_for_exit().await;
    let spent = bench.provider.status.borrow().spend_today.usd;
    assert!((spent - 1.0).abs() < 1e-9, "the last call is paid: {spent}");
    assert_eq!(store.breakers().await.unwrap(), []);

    let mut idle = ProviderBench::standalone(BenchOptions::new("b"));
    idle.actor().do_send(Retire);
    idle.wait_for_exit().await;
}
