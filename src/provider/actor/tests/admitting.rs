//! Admission, and the effect of outcomes on the counts and the breaker.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn full_provider_is_busy_and_stays_closed() {
    let bench = ProviderBench::standalone(BenchOptions {
        max_concurrent: 2,
        ..BenchOptions::new("a")
    });
    let first = bench.try_acquire().await.unwrap();
    let second = bench.try_acquire().await.unwrap();
    assert_eq!(
        rejection(bench.try_acquire().await),
        AcquireRejection {
            is_busy: true,
            retry_at: None
        }
    );
    assert_eq!(bench.status().await.in_flight, 2);
    drop(first);
    assert!(bench.try_acquire().await.is_ok());
    second.complete(CallOutcome::Success);
    let status = bench.status().await;
    assert_eq!(
        (status.state, status.in_flight, bench.free_slots()),
        (ProviderState::Closed, 0, 2)
    );
}

#[actix_rt::test(system = "Paused")]
async fn outcomes_are_counted_once() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    let permit = bench.try_acquire().await.unwrap();
    permit.record_first_token(ms(300));
    advance(s(2)).await;
    permit.complete(CallOutcome::Success);
    call(&bench, failed(FaultKind::Timeout)).await;
    call(
        &bench,
        CallOutcome::Failed {
            fault: FaultKind::Reset,
            had_text: true,
            retry_after: None,
        },
    )
    .await;
    drop(bench.try_acquire().await.unwrap());
    let status = bench.status().await;
    assert_eq!(
        (
            status.successes,
            status.failures,
            status.broken_streams,
            status.in_flight
        ),
        (1, 2, 1, 0)
    );
    assert_eq!(status.last_fault, Some(FaultKind::Reset));
    let [first_token, total] =
        [status.first_token_latency, status.total_latency].map(|latency| latency.unwrap().p50);
    assert!(
        first_token.abs_diff(300) <= 6 && total.abs_diff(2_000) <= 40,
        "{first_token} {total}"
    );
}

/// Permits report in any case, with at most three messages each.
#[actix_rt::test(system = "Paused")]
async fn full_mailbox_loses_no_outcome() {
    let bench = ProviderBench::standalone(BenchOptions {
        max_concurrent: 2,
        ..BenchOptions::new("a")
    });
    let first = bench.try_acquire().await.unwrap();
    let second = bench.try_acquire().await.unwrap();
    let actor = bench.actor();
    // The actor handles no message before this task awaits.
    let accepted = (0..2 * MAILBOX_CAPACITY)
        .take_while(|_| actor.try_send(TryAcquire).is_ok())
        .count();
    assert!(
        (MAILBOX_CAPACITY..=MAILBOX_CAPACITY + 1).contains(&accepted),
        "{accepted}"
    );
    for permit in [first, second] {
        permit.record_first_token(ms(300));
        permit.complete(CallOutcome::Success);
    }
    run_until_idle().await;
    let status = bench.status().await;
    assert_eq!(
        (status.successes, status.in_flight, bench.free_slots()),
        (2, 0, 2)
    );
}

#[actix_rt::test(system = "Paused")]
async fn abandoned_calls_are_not_counted() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    for _ in 0..50 {
        drop(bench.try_acquire().await.unwrap());
    }
    let status = bench.status().await;
    assert_eq!(
        (status.state, status.successes, status.failures),
        (ProviderState::Closed, 0, 0)
    );
    assert_eq!(bench.free_slots(), bench.total_slots());
}

#[actix_rt::test(system = "Paused")]
async fn open_breaker_returns_the_retry_time() {
    let bench = opened(BenchOptions::new("a")).await;
    let rejected = rejection(bench.try_acquire().await);
    assert_eq!((rejected.is_busy, rejected.retry_at), (false, Some(s(10))));
    assert_eq!(
        bench.free_slots(),
        bench.total_slots(),
        "the rejected call took no slot"
    );
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_is_waited_out_while_closed() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    let limit = CallOutcome::Failed {
        fault: FaultKind::RateLimited,
        had_text: false,
        retry_after: Some(s(3)),
    };
    call(&bench, limit).await;
    let status = bench.status().await;
    assert_eq!(
        (status.state, status.retry_at.is_some()),
        (ProviderState::Closed, true)
    );
    advance(ms(2_999)).await;
    assert!(bench.try_acquire().await.is_err());
    advance(ms(1)).await;
    assert!(bench.try_acquire().await.is_ok());
    assert_eq!(bench.status().await.retry_at, None);
    assert_eq!(probe_count(&bench), 0);
}

#[actix_rt::test(system = "Paused")]
async fn reset_closes_and_discards_failures() {
    let bench = opened(BenchOptions::new("a")).await;
    bench.actor().send(ResetBreaker).await.unwrap();
    let status = bench.status().await;
    assert_eq!(
        (status.state, status.last_fault, status.retry_at),
        (ProviderState::Closed, None, None)
    );
    for _ in 0..4 {
        call(&bench, failed(FaultKind::ServerError)).await;
    }
    assert!(
        bench.try_acquire().await.is_ok(),
        "the earlier failures are discarded"
    );
    advance(s(60)).await;
    assert_eq!(probe_count(&bench), 0, "no probe is due");
}
