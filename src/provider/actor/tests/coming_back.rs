//! State that survives a panic of the actor or a restart of the service.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn rebuilt_actor_continues_from_the_published_status() {
    for fault in [Fault::ServerError, Fault::Unauthorized] {
        let mut stand = Stand::alone(Plan::new("a"));
        stand.upstream.follow_when_probed([fails(fault)]);
        for _ in 0..5 {
            if let Ok(permit) = stand.admit().await {
                permit.settle(failed(fault));
            }
        }
        pass(s(65)).await;
        let before = stand.vitals().await;
        stand.crash().await;
        assert!(stand.actor().send(Admit).await.is_err());
        stand.rebuild();
        let after = stand.vitals().await;
        assert_eq!(
            (after.state, after.strikes, after.reason),
            (before.state, before.strikes, before.reason)
        );
        assert_eq!(
            (after.successes, after.failures),
            (before.successes, before.failures)
        );
        assert!(stand.admit().await.is_err());
        stand.upstream.follow_when_probed([says("pong")]);
        pass(s(90)).await;
        assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    }
}

#[actix_rt::test(system = "Paused")]
async fn panic_loses_no_permit_and_no_rate_limit() {
    let mut stand = Stand::alone(Plan {
        max_concurrent: 2,
        ..Plan::new("a")
    });
    let under_way = stand.admit().await.unwrap();
    let limit = Verdict::Failed {
        fault: Fault::RateLimited,
        started: false,
        retry_after: Some(s(20)),
    };
    call(&stand, limit).await;
    stand.crash().await;
    stand.rebuild();
    assert_eq!((stand.vitals().await.in_flight, stand.free()), (1, 1));
    assert!(stand.admit().await.is_err(), "the rate limit still holds");
    pass(s(20)).await;
    let other = stand.admit().await.unwrap();
    assert_eq!(
        rejection(stand.admit().await),
        Refusal {
            busy: true,
            retry_at: None
        }
    );
    drop(other);
    under_way.settle(Verdict::Whole);
    assert_eq!((stand.vitals().await.in_flight, stand.free()), (0, 2));
}

#[actix_rt::test(system = "Paused")]
async fn permit_dropped_while_the_actor_is_down_releases_its_slot() {
    let mut stand = Stand::alone(Plan::new("a"));
    let permit = stand.admit().await.unwrap();
    stand.crash().await;
    drop(permit);
    stand.rebuild();
    assert_eq!(
        (stand.vitals().await.in_flight, stand.free()),
        (0, stand.places())
    );
}

#[actix_rt::test(system = "Paused")]
async fn outcome_of_a_permit_from_before_a_panic_changes_no_state() {
    let mut stand = opened(Plan {
        max_concurrent: 9,
        ..Plan::new("a")
    })
    .await;
    stand.actor().send(Reset).await.unwrap();
    let old: Vec<_> = [stand.admit().await.unwrap(), stand.admit().await.unwrap()].into();
    for _ in 0..5 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    pass(s(1)).await;
    stand.crash().await;
    stand.rebuild();
    settled().await;
    for permit in old {
        permit.settle(Verdict::Whole);
    }
    let status = stand.vitals().await;
    assert_eq!((status.state, status.in_flight), (ProviderState::Open, 0));
}

#[actix_rt::test(system = "Paused")]
async fn panicking_probe_does_not_end_recovery() {
    let stand = opened(Plan::new("a")).await;
    stand
        .upstream
        .follow_when_probed([vec![Act::Panic], says("pong")]);
    pass(s(10)).await;
    if stand.is_down() {
        stand.rebuild();
    }
    pass(s(30)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
}

async fn saved_breaker(store: &MemoryStore) -> Option<BreakerRecord> {
    settled().await;
    store.breakers().await.unwrap().pop()
}

#[actix_rt::test(system = "Paused")]
async fn breaker_state_is_saved_and_deleted() {
    let store = Arc::new(MemoryStore::default());
    let stand = Stand::start(Plan::new("a"), Clock::start(), store.clone());
    assert_eq!(saved_breaker(&store).await, None);
    for _ in 0..5 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    let open = saved_breaker(&store).await.unwrap();
    assert_eq!(
        (&*open.provider, open.blocked, open.strikes, &*open.reason),
        ("a", false, 0, "server_error")
    );
    let wait = open.until.since(stand.clock().wall());
    assert!(wait <= s(10) && wait > s(8), "{wait:?}");
    stand
        .upstream
        .follow_when_probed([fails(Fault::Timeout), says("pong")]);
    pass(s(10)).await;
    assert_eq!(saved_breaker(&store).await.unwrap().strikes, 1);
    pass(s(20)).await;
    assert_eq!(saved_breaker(&store).await, None, "closed");
    call(&stand, failed(Fault::QuotaSpent)).await;
    let blocked = saved_breaker(&store).await.unwrap();
    assert_eq!(
        (blocked.blocked, &*blocked.reason, blocked.fault),
        (true, "refused", Some(Fault::QuotaSpent))
    );
}

#[actix_rt::test(system = "Paused")]
async fn restored_status_starts_open_half_open_or_blocked() {
    let wall = Clock::start().wall();
    let restored = |state, until: At| Vitals {
        state,
        retry_at: Some(until),
        strikes: 1,
        ..Vitals::default()
    };
    let plan = |status| Plan {
        vitals: status,
        ..Plan::new("a")
    };

    let later = Stand::alone(plan(restored(ProviderState::Open, wall.plus(s(7)))));
    assert_eq!(later.vitals().await.state, ProviderState::Open);
    assert!(later.admit().await.is_err());
    pass(s(8)).await;
    assert_eq!(
        (later.vitals().await.state, probe_count(&later)),
        (ProviderState::Closed, 1)
    );

    let past = Stand::alone(plan(restored(ProviderState::Open, At(5))));
    past.upstream.follow_when_probed([fails(Fault::Reset)]);
    settled().await;
    assert_eq!(
        (past.vitals().await.state, probe_count(&past)),
        (ProviderState::Open, 1),
        "probed at once"
    );
    assert_eq!(past.vitals().await.strikes, 2);

    let blocked = Stand::alone(plan(restored(ProviderState::Blocked, wall.plus(s(30)))));
    assert_eq!(blocked.vitals().await.state, ProviderState::Blocked);
    pass(s(31)).await;
    assert_eq!(blocked.vitals().await.state, ProviderState::Closed);
}
