//! State that survives a panic of the actor or a restart of the service.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn rebuilt_actor_continues_from_the_published_status() {
    for fault in [FaultKind::ServerError, FaultKind::Unauthorized] {
        let mut bench = ProviderBench::standalone(BenchOptions::new("a"));
        bench.client.set_probe_scripts([fail_with(fault)]);
        for _ in 0..5 {
            if let Ok(permit) = bench.try_acquire().await {
                permit.complete(failed(fault));
            }
        }
        advance(s(65)).await;
        let before = bench.status().await;
        bench.crash_actor().await;
        assert!(bench.actor().send(TryAcquire).await.is_err());
        bench.restart_actor();
        let after = bench.status().await;
        assert_eq!(
            (after.state, after.failed_probes, after.last_fault),
            (before.state, before.failed_probes, before.last_fault)
        );
        assert_eq!(
            (after.successes, after.failures),
            (before.successes, before.failures)
        );
        assert!(bench.try_acquire().await.is_err());
        bench.client.set_probe_scripts([reply("pong")]);
        advance(s(90)).await;
        assert_eq!(bench.status().await.state, ProviderState::Closed);
    }
}

#[actix_rt::test(system = "Paused")]
async fn panic_loses_no_permit_and_no_rate_limit() {
    let mut bench = ProviderBench::standalone(BenchOptions {
        max_concurrent: 2,
        ..BenchOptions::new("a")
    });
    let under_way = bench.try_acquire().await.unwrap();
    let limit = CallOutcome::Failed {
        fault: FaultKind::RateLimited,
        had_text: false,
        retry_after: Some(s(20)),
    };
    call(&bench, limit).await;
    bench.crash_actor().await;
    bench.restart_actor();
    assert_eq!((bench.status().await.in_flight, bench.free_slots()), (1, 1));
    assert!(
        bench.try_acquire().await.is_err(),
        "the rate limit still holds"
    );
    advance(s(20)).await;
    let other = bench.try_acquire().await.unwrap();
    assert_eq!(
        rejection(bench.try_acquire().await),
        AcquireRejection {
            is_busy: true,
            retry_at: None
        }
    );
    drop(other);
    under_way.complete(CallOutcome::Success);
    assert_eq!((bench.status().await.in_flight, bench.free_slots()), (0, 2));
}

#[actix_rt::test(system = "Paused")]
async fn permit_dropped_while_the_actor_is_down_releases_its_slot() {
    let mut bench = ProviderBench::standalone(BenchOptions::new("a"));
    let permit = bench.try_acquire().await.unwrap();
    bench.crash_actor().await;
    drop(permit);
    bench.restart_actor();
    assert_eq!(
        (bench.status().await.in_flight, bench.free_slots()),
        (0, bench.total_slots())
    );
}

#[actix_rt::test(system = "Paused")]
async fn outcome_of_a_permit_from_before_a_panic_changes_no_state() {
    let mut bench = opened(BenchOptions {
        max_concurrent: 9,
        ..BenchOptions::new("a")
    })
    .await;
    bench.actor().send(ResetBreaker).await.unwrap();
    let old: Vec<_> = [
        bench.try_acquire().await.unwrap(),
        bench.try_acquire().await.unwrap(),
    ]
    .into();
    for _ in 0..5 {
        call(&bench, failed(FaultKind::ServerError)).await;
    }
    advance(s(1)).await;
    bench.crash_actor().await;
    bench.restart_actor();
    run_until_idle().await;
    for permit in old {
        permit.complete(CallOutcome::Success);
    }
    let status = bench.status().await;
    assert_eq!((status.state, status.in_flight), (ProviderState::Open, 0));
}

#[actix_rt::test(system = "Paused")]
async fn panicking_probe_does_not_end_recovery() {
    let bench = opened(BenchOptions::new("a")).await;
    bench
        .client
        .set_probe_scripts([vec![ScriptStep::Panic], reply("pong")]);
    advance(s(10)).await;
    if bench.has_exited() {
        bench.restart_actor();
    }
    advance(s(30)).await;
    assert_eq!(bench.status().await.state, ProviderState::Closed);
}

async fn saved_breaker(store: &MemoryStore) -> Option<BreakerRecord> {
    run_until_idle().await;
    store.breakers().await.unwrap().pop()
}

#[actix_rt::test(system = "Paused")]
async fn breaker_state_is_saved_and_deleted() {
    let store = Arc::new(MemoryStore::default());
    let bench = ProviderBench::start(BenchOptions::new("a"), Clock::start(), store.clone());
    assert_eq!(saved_breaker(&store).await, None);
    for _ in 0..5 {
        call(&bench, failed(FaultKind::ServerError)).await;
    }
    let open = saved_breaker(&store).await.unwrap();
    assert_eq!(
        (
            &*open.provider,
            open.is_blocked,
            open.failed_probes,
            &*open.reason
        ),
        ("a", false, 0, "server_error")
    );
    let wait = open.retry_at.since(bench.clock().wall());
    assert!(wait <= s(10) && wait > s(8), "{wait:?}");
    bench
        .client
        .set_probe_scripts([fail_with(FaultKind::Timeout), reply("pong")]);
    advance(s(10)).await;
    assert_eq!(saved_breaker(&store).await.unwrap().failed_probes, 1);
    advance(s(20)).await;
    assert_eq!(saved_breaker(&store).await, None, "closed");
    call(&bench, failed(FaultKind::QuotaSpent)).await;
    let blocked = saved_breaker(&store).await.unwrap();
    assert_eq!(
        (blocked.is_blocked, &*blocked.reason, blocked.fault),
        (true, "refused", Some(FaultKind::QuotaSpent))
    );
}

#[actix_rt::test(system = "Paused")]
async fn restored_status_starts_open_half_open_or_blocked() {
    let wall = Clock::start().wall();
    let restored = |state, until: Timestamp| ProviderStatus {
        state,
        retry_at: Some(until),
        failed_probes: 1,
        ..ProviderStatus::default()
    };
    let plan = |status| BenchOptions {
        initial_status: status,
        ..BenchOptions::new("a")
    };

    let later = ProviderBench::standalone(plan(restored(
        ProviderState::Open,
        wall.saturating_add(s(7)),
    )));
    assert_eq!(later.status().await.state, ProviderState::Open);
    assert!(later.try_acquire().await.is_err());
    advance(s(8)).await;
    assert_eq!(
        (later.status().await.state, probe_count(&later)),
        (ProviderState::Closed, 1)
    );

    let past = ProviderBench::standalone(plan(restored(ProviderState::Open, Timestamp(5))));
    past.client.set_probe_scripts([fail_with(FaultKind::Reset)]);
    run_until_idle().await;
    assert_eq!(
        (past.status().await.state, probe_count(&past)),
        (ProviderState::Open, 1),
        "probed at once"
    );
    assert_eq!(past.status().await.failed_probes, 2);

    let blocked = ProviderBench::standalone(plan(restored(
        ProviderState::Blocked,
        wall.saturating_add(s(30)),
    )));
    assert_eq!(blocked.status().await.state, ProviderState::Blocked);
    advance(s(31)).await;
    assert_eq!(blocked.status().await.state, ProviderState::Closed);
}
