//! How a provider that failed is found well again.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn recovery_is_found_with_nobody_asking() {
    let stand = opened(Plan::new("a")).await;
    let mut vitals = stand.backend.vitals.clone();
    let begun = Instant::now();
    vitals
        .wait_for(|vitals| vitals.state == ProviderState::Closed)
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), s(10));
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
    assert_eq!(stand.vitals().await.successes, 0, "a probe is no visitor");
}

#[actix_rt::test(system = "Paused")]
async fn the_open_time_doubles_to_its_cap_with_each_failed_probe() {
    let stand = opened(Plan::new("a")).await;
    stand
        .upstream
        .follow_when_probed([fails(Fault::Unreachable)]);
    let begun = Instant::now();
    pass(s(119)).await;
    let probes = stand.upstream.probes();
    let at: Vec<_> = probes
        .iter()
        .map(|probe| (probe.at - begun).as_millis())
        .collect();
    // 10 s, then 20 s, then the cap: between 20 and 25 s, in the middle as chance says.
    assert_eq!(at, [10_000, 30_000, 52_500, 75_000, 97_500]);
    assert_eq!(stand.vitals().await.reason, Some(Fault::Unreachable));
    stand.upstream.follow_when_probed([says("pong")]);
    pass(s(1)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn a_probe_has_a_limit_of_time() {
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
    assert!(stand.admit().await.is_err(), "a visitor is no guinea pig");
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
async fn thinking_proves_life_and_usage_alone_does_not() {
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
async fn a_blocked_one_is_probed_rarely_and_comes_back() {
    let stand = Stand::alone(Plan::new("a"));
    stand.upstream.follow_when_probed([
        fails(Fault::Unauthorized),
        fails(Fault::Timeout),
        says("pong"),
    ]);
    call(&stand, failed(Fault::Unauthorized)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Blocked);
    let begun = Instant::now();
    pass(s(179)).await;
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.state, vitals.reason),
        (ProviderState::Blocked, Some(Fault::Unauthorized))
    );
    let at: Vec<_> = stand
        .upstream
        .probes()
        .iter()
        .map(|probe| (probe.at - begun).as_secs())
        .collect();
    assert_eq!(at, [60, 120]);
    pass(s(1)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

#[actix_rt::test(system = "Paused")]
async fn a_probe_waits_out_a_retry_after() {
    let stand = Stand::alone(Plan::new("a"));
    stand
        .upstream
        .follow_when_probed([limited(s(100)), says("pong")]);
    for _ in 0..10 {
        call(&stand, failed(Fault::RateLimited)).await;
    }
    assert_eq!(stand.vitals().await.state, ProviderState::Open);
    let begun = Instant::now();
    pass(s(200)).await;
    let at: Vec<_> = stand
        .upstream
        .probes()
        .iter()
        .map(|probe| (probe.at - begun).as_secs())
        .collect();
    // The tenth part of open_for more, as chance says, because everyone who was told comes back then.
    assert_eq!(at, [10, 111]);
}

#[actix_rt::test(system = "Paused")]
async fn a_refused_probe_lets_visitors_try() {
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
async fn where_visitors_probe_one_is_let_in_and_an_abandoned_one_gives_its_place_back() {
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
        "also without a probe it says so"
    );
    let probe = stand.admit().await.unwrap();
    assert!(stand.admit().await.is_err());
    drop(probe);
    let probe = stand.admit().await.unwrap();
    probe.settle(Verdict::Whole);
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    assert_eq!(probed(&stand), 0);
}

#[actix_rt::test(system = "Paused")]
async fn no_stampede_meets_a_provider_that_comes_back() {
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
    assert_eq!((probed(&stand), stand.upstream.most_probes()), (1, 1));
    assert!(stand.admit().await.is_ok());
}

#[actix_rt::test(system = "Paused")]
async fn when_it_is_tried_again_is_told_the_same_for_as_long_as_it_is() {
    let mut stand = opened(Plan::new("a")).await;
    let told = stand.vitals().await.retry_at;
    assert!(told.is_some());
    for step in 0..3 {
        // The wall clock is the machine's; it is looked at again once it shows another millisecond.
        let begun = stand.clock().wall();
        while stand.clock().wall() < begun.plus(ms(3)) {
            settled().await;
        }
        if step == 2 {
            stand.crash().await;
            stand.rebuild();
        } else {
            stand.actor().send(Enable(true)).await.unwrap();
        }
        assert_eq!(stand.vitals().await.retry_at, told, "{step}");
    }
}
