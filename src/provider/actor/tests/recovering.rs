//! Recovery of a failed provider.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn probe_finds_recovery_without_any_call() {
    let stand = opened(Plan::new("a")).await;
    let mut status = stand.backend.vitals.clone();
    let started = Instant::now();
    status
        .wait_for(|status| status.state == ProviderState::Closed)
        .await
        .unwrap();
    assert_eq!(started.elapsed(), s(10));
    let probes = stand.upstream.probes();
    assert_eq!(
        (
            probes.len(),
            probes[0].ask.max_tokens,
            probes[0].ask.messages.len()
        ),
        (1, 1, 1)
    );
    assert!(stand.admit().await.is_ok());
    assert_eq!(
        stand.vitals().await.successes,
        0,
        "a probe is no visitor's call"
    );
}

#[actix_rt::test(system = "Paused")]
async fn open_time_doubles_up_to_its_max_with_each_failed_probe() {
    let stand = opened(Plan::new("a")).await;
    stand
        .upstream
        .follow_when_probed([fails(Fault::Unreachable)]);
    let started = Instant::now();
    pass(s(119)).await;
    let probes = stand.upstream.probes();
    let at: Vec<_> = probes
        .iter()
        .map(|probe| (probe.at - started).as_millis())
        .collect();
    // 10 s, then 20 s, then the middle of the jitter below `open_max`, which is 20 to 25 s.
    assert_eq!(at, [10_000, 30_000, 52_500, 75_000, 97_500]);
    assert_eq!(stand.vitals().await.reason, Some(Fault::Unreachable));
    stand.upstream.follow_when_probed([says("pong")]);
    pass(s(1)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn probe_times_out() {
    let stand = opened(Plan {
        probe_limit: s(5),
        ..Plan::new("a")
    })
    .await;
    stand.upstream.follow_when_probed([silent()]);
    pass(s(12)).await;
    let during = stand.vitals().await;
    assert_eq!(
        (during.state, during.retry_at),
        (ProviderState::HalfOpen, None)
    );
    assert!(stand.admit().await.is_err(), "visitors do not probe");
    pass(s(3)).await;
    let after = stand.vitals().await;
    assert_eq!(
        (after.state, after.reason),
        (ProviderState::Open, Some(Fault::Timeout))
    );
    pass(s(300)).await;
    assert_eq!(stand.upstream.most_probes(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn thinking_proves_recovery_and_usage_alone_does_not() {
    let stand = opened(Plan::new("a")).await;
    let used = vec![Act::Used(1, 1), Act::Used(1, 1)];
    let thinks = vec![Act::Used(1, 0), Act::Think, Act::Hang];
    stand.upstream.follow_when_probed([used, thinks]);
    pass(s(10)).await;
    assert_eq!(stand.vitals().await.reason, Some(Fault::Truncated));
    pass(s(20)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn blocked_provider_is_probed_rarely_and_recovers() {
    let stand = Stand::alone(Plan::new("a"));
    stand.upstream.follow_when_probed([
        fails(Fault::Unauthorized),
        fails(Fault::Timeout),
        says("pong"),
    ]);
    call(&stand, failed(Fault::Unauthorized)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Blocked);
    let started = Instant::now();
    pass(s(179)).await;
    let status = stand.vitals().await;
    assert_eq!(
        (status.state, status.reason),
        (ProviderState::Blocked, Some(Fault::Unauthorized))
    );
    let at: Vec<_> = stand
        .upstream
        .probes()
        .iter()
        .map(|probe| (probe.at - started).as_secs())
        .collect();
    assert_eq!(at, [60, 120]);
    pass(s(1)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn probe_waits_out_a_retry_after() {
    let stand = Stand::alone(Plan::new("a"));
    stand
        .upstream
        .follow_when_probed([limited(s(100)), says("pong")]);
    for _ in 0..10 {
        call(&stand, failed(Fault::RateLimited)).await;
    }
    assert_eq!(stand.vitals().await.state, ProviderState::Open);
    let started = Instant::now();
    pass(s(200)).await;
    let at: Vec<_> = stand
        .upstream
        .probes()
        .iter()
        .map(|probe| (probe.at - started).as_secs())
        .collect();
    // Plus the middle of the jitter, a tenth of `open_for`.
    assert_eq!(at, [10, 111]);
}

#[actix_rt::test(system = "Paused")]
async fn rejected_probe_lets_visitors_probe() {
    let stand = opened(Plan::new("a")).await;
    stand
        .upstream
        .follow_when_probed([fails(Fault::BadRequest)]);
    pass(s(10)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::HalfOpen);
    pass(s(10)).await;
    call(&stand, Verdict::Whole).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn one_visitor_probes_and_an_abandoned_call_releases_its_slot() {
    let rules = Rules {
        recovery_probe: false,
        ..Rules::default()
    };
    let stand = opened(Plan {
        rules,
        ..Plan::new("a")
    })
    .await;
    pass(s(10)).await;
    assert_eq!(
        stand.vitals().await.state,
        ProviderState::HalfOpen,
        "published without a probe"
    );
    let probe = stand.admit().await.unwrap();
    assert!(stand.admit().await.is_err());
    drop(probe);
    let probe = stand.admit().await.unwrap();
    probe.settle(Verdict::Whole);
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    assert_eq!(probe_count(&stand), 0);
}

#[actix_rt::test(system = "Paused")]
async fn recovering_provider_gets_one_probe_at_a_time() {
    let stand = opened(Plan::new("a")).await;
    stand
        .upstream
        .follow_when_probed([vec![Act::Wait(s(2)), Act::End(Finish::Stop)]]);
    for _ in 0..120 {
        pass(ms(100)).await;
        let admitted = stand.admit().await.is_ok();
        assert_eq!(
            admitted,
            stand.vitals().await.state == ProviderState::Closed
        );
    }
    assert_eq!((probe_count(&stand), stand.upstream.most_probes()), (1, 1));
    assert!(stand.admit().await.is_ok());
}

#[actix_rt::test(system = "Paused")]
async fn published_retry_time_is_stable() {
    let mut stand = opened(Plan::new("a")).await;
    let published = stand.vitals().await.retry_at;
    assert!(published.is_some());
    for step in 0..3 {
        // The wall clock is not paused: wait until it has advanced by a few milliseconds.
        let started = stand.clock().wall();
        while stand.clock().wall() < started.plus(ms(3)) {
            settled().await;
        }
        if step == 2 {
            stand.crash().await;
            stand.rebuild();
        } else {
            stand.actor().send(Enable(true)).await.unwrap();
        }
        assert_eq!(stand.vitals().await.retry_at, published, "{step}");
    }
}
