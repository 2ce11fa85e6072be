//! Recovery of a failed provider.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn probe_finds_recovery_without_any_call() {
    let bench = opened(BenchOptions::new("a")).await;
    let mut status = bench.provider.status.clone();
    let started = Instant::now();
    status
        .wait_for(|status| status.state == ProviderState::Closed)
        .await
        .unwrap();
    assert_eq!(started.elapsed(), s(10));
    let probes = bench.client.probes();
    assert_eq!(
        (
            probes.len(),
            probes[0].request.max_tokens,
            probes[0].request.messages.len()
        ),
        (1, 1, 1)
    );
    assert!(bench.try_acquire().await.is_ok());
    assert_eq!(
        bench.status().await.successes,
        0,
        "a probe is no visitor's call"
    );
}

#[actix_rt::test(system = "Paused")]
async fn open_time_doubles_up_to_its_max_with_each_failed_probe() {
    let bench = opened(BenchOptions::new("a")).await;
    bench
        .client
        .set_probe_scripts([fail_with(FaultKind::Unreachable)]);
    let started = Instant::now();
    advance(s(119)).await;
    let probes = bench.client.probes();
    let at: Vec<_> = probes
        .iter()
        .map(|probe| (probe.started_at - started).as_millis())
        .collect();
    // 10 s, then 20 s, then the middle of the jitter below `open_max`, which is 20 to 25 s.
    assert_eq!(at, [10_000, 30_000, 52_500, 75_000, 97_500]);
    assert_eq!(
        bench.status().await.last_fault,
        Some(FaultKind::Unreachable)
    );
    bench.client.set_probe_scripts([reply("pong")]);
    advance(s(1)).await;
    assert_eq!(bench.status().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn probe_times_out() {
    let bench = opened(BenchOptions {
        probe_timeout: s(5),
        ..BenchOptions::new("a")
    })
    .await;
    bench.client.set_probe_scripts([hang()]);
    advance(s(12)).await;
    let during = bench.status().await;
    assert_eq!(
        (during.state, during.retry_at),
        (ProviderState::HalfOpen, None)
    );
    assert!(bench.try_acquire().await.is_err(), "visitors do not probe");
    advance(s(3)).await;
    let after = bench.status().await;
    assert_eq!(
        (after.state, after.last_fault),
        (ProviderState::Open, Some(FaultKind::Timeout))
    );
    advance(s(300)).await;
    assert_eq!(bench.client.max_concurrent_probes(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn thinking_proves_recovery_and_usage_alone_does_not() {
    let bench = opened(BenchOptions::new("a")).await;
    let used = vec![ScriptStep::ReportUsage(1, 1), ScriptStep::ReportUsage(1, 1)];
    let thinks = vec![
        ScriptStep::ReportUsage(1, 0),
        ScriptStep::Think,
        ScriptStep::Hang,
    ];
    bench.client.set_probe_scripts([used, thinks]);
    advance(s(10)).await;
    assert_eq!(bench.status().await.last_fault, Some(FaultKind::Truncated));
    advance(s(20)).await;
    assert_eq!(bench.status().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn blocked_provider_is_probed_rarely_and_recovers() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    bench.client.set_probe_scripts([
        fail_with(FaultKind::Unauthorized),
        fail_with(FaultKind::Timeout),
        reply("pong"),
    ]);
    call(&bench, failed(FaultKind::Unauthorized)).await;
    assert_eq!(bench.status().await.state, ProviderState::Blocked);
    let started = Instant::now();
    advance(s(179)).await;
    let status = bench.status().await;
    assert_eq!(
        (status.state, status.last_fault),
        (ProviderState::Blocked, Some(FaultKind::Unauthorized))
    );
    let at: Vec<_> = bench
        .client
        .probes()
        .iter()
        .map(|probe| (probe.started_at - started).as_secs())
        .collect();
    assert_eq!(at, [60, 120]);
    advance(s(1)).await;
    assert_eq!(bench.status().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn probe_waits_out_a_retry_after() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    bench
        .client
        .set_probe_scripts([rate_limited(s(100)), reply("pong")]);
    for _ in 0..10 {
        call(&bench, failed(FaultKind::RateLimited)).await;
    }
    assert_eq!(bench.status().await.state, ProviderState::Open);
    let started = Instant::now();
    advance(s(200)).await;
    let at: Vec<_> = bench
        .client
        .probes()
        .iter()
        .map(|probe| (probe.started_at - started).as_secs())
        .collect();
    // Plus the middle of the jitter, a tenth of `open_for`.
    assert_eq!(at, [10, 111]);
}

#[actix_rt::test(system = "Paused")]
async fn rejected_probe_lets_visitors_probe() {
    let bench = opened(BenchOptions::new("a")).await;
    bench
        .client
        .set_probe_scripts([fail_with(FaultKind::BadRequest)]);
    advance(s(10)).await;
    assert_eq!(bench.status().await.state, ProviderState::HalfOpen);
    advance(s(10)).await;
    call(&bench, CallOutcome::Success).await;
    assert_eq!(bench.status().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn one_visitor_probes_and_an_abandoned_call_releases_its_slot() {
    let rules = BreakerConfig {
        recovery_probe: false,
        ..BreakerConfig::default()
    };
    let bench = opened(BenchOptions {
        breaker: rules,
        ..BenchOptions::new("a")
    })
    .await;
    advance(s(10)).await;
    assert_eq!(
        bench.status().await.state,
        ProviderState::HalfOpen,
        "published without a probe"
    );
    let probe = bench.try_acquire().await.unwrap();
    assert!(bench.try_acquire().await.is_err());
    drop(probe);
    let probe = bench.try_acquire().await.unwrap();
    probe.complete(CallOutcome::Success);
    assert_eq!(bench.status().await.state, ProviderState::Closed);
    assert_eq!(probe_count(&bench), 0);
}

#[actix_rt::test(system = "Paused")]
async fn recovering_provider_gets_one_probe_at_a_time() {
    let bench = opened(BenchOptions::new("a")).await;
    bench.client.set_probe_scripts([vec![
        ScriptStep::Pause(s(2)),
        ScriptStep::Finish(FinishReason::Stop),
    ]]);
    for _ in 0..120 {
        advance(ms(100)).await;
        let admitted = bench.try_acquire().await.is_ok();
        assert_eq!(
            admitted,
            bench.status().await.state == ProviderState::Closed
        );
    }
    assert_eq!(
        (probe_count(&bench), bench.client.max_concurrent_probes()),
        (1, 1)
    );
    assert!(bench.try_acquire().await.is_ok());
}

#[actix_rt::test(system = "Paused")]
async fn published_retry_time_is_stable() {
    let mut bench = opened(BenchOptions::new("a")).await;
    let published = bench.status().await.retry_at;
    assert!(published.is_some());
    for step in 0..3 {
        // The wall clock is not paused: wait until it has advanced by a few milliseconds.
        let started = bench.clock().wall();
        while bench.clock().wall() < started.saturating_add(ms(3)) {
            run_until_idle().await;
        }
        if step == 2 {
            bench.crash_actor().await;
            bench.restart_actor();
        } else {
            bench.actor().send(SetEnabled(true)).await.unwrap();
        }
        assert_eq!(bench.status().await.retry_at, published, "{step}");
    }
}
