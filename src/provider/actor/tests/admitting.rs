//! Admission, and the effect of outcomes on the counts and the breaker.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn full_provider_is_busy_and_stays_closed() {
    let stand = Stand::alone(Plan {
        max_concurrent: 2,
        ..Plan::new("a")
    });
    let first = stand.admit().await.unwrap();
    let second = stand.admit().await.unwrap();
    assert_eq!(
        rejection(stand.admit().await),
        Refusal {
            busy: true,
            retry_at: None
        }
    );
    assert_eq!(stand.vitals().await.in_flight, 2);
    drop(first);
    assert!(stand.admit().await.is_ok());
    second.settle(Verdict::Whole);
    let status = stand.vitals().await;
    assert_eq!(
        (status.state, status.in_flight, stand.free()),
        (ProviderState::Closed, 0, 2)
    );
}

#[actix_rt::test(system = "Paused")]
async fn outcomes_are_counted_once() {
    let stand = Stand::alone(Plan::new("a"));
    let permit = stand.admit().await.unwrap();
    permit.first_token(ms(300));
    pass(s(2)).await;
    permit.settle(Verdict::Whole);
    call(&stand, failed(Fault::Timeout)).await;
    call(
        &stand,
        Verdict::Failed {
            fault: Fault::Reset,
            started: true,
            retry_after: None,
        },
    )
    .await;
    drop(stand.admit().await.unwrap());
    let status = stand.vitals().await;
    assert_eq!(
        (
            status.successes,
            status.failures,
            status.restarts,
            status.in_flight
        ),
        (1, 2, 1, 0)
    );
    assert_eq!(status.reason, Some(Fault::Reset));
    let [first_token, total] =
        [status.first_token, status.total].map(|latency| latency.unwrap().p50);
    assert!(
        first_token.abs_diff(300) <= 6 && total.abs_diff(2_000) <= 40,
        "{first_token} {total}"
    );
}

/// Permits report in any case, with at most three messages each.
#[actix_rt::test(system = "Paused")]
async fn full_mailbox_loses_no_outcome() {
    let stand = Stand::alone(Plan {
        max_concurrent: 2,
        ..Plan::new("a")
    });
    let first = stand.admit().await.unwrap();
    let second = stand.admit().await.unwrap();
    let actor = stand.actor();
    // The actor handles no message before this task awaits.
    let accepted = (0..2 * MAILBOX)
        .take_while(|_| actor.try_send(Admit).is_ok())
        .count();
    assert!((MAILBOX..=MAILBOX + 1).contains(&accepted), "{accepted}");
    for permit in [first, second] {
        permit.first_token(ms(300));
        permit.settle(Verdict::Whole);
    }
    settled().await;
    let status = stand.vitals().await;
    assert_eq!(
        (status.successes, status.in_flight, stand.free()),
        (2, 0, 2)
    );
}

#[actix_rt::test(system = "Paused")]
async fn abandoned_calls_are_not_counted() {
    let stand = Stand::alone(Plan::new("a"));
    for _ in 0..50 {
        drop(stand.admit().await.unwrap());
    }
    let status = stand.vitals().await;
    assert_eq!(
        (status.state, status.successes, status.failures),
        (ProviderState::Closed, 0, 0)
    );
    assert_eq!(stand.free(), stand.places());
}

#[actix_rt::test(system = "Paused")]
async fn open_breaker_returns_the_retry_time() {
    let stand = opened(Plan::new("a")).await;
    let rejected = rejection(stand.admit().await);
    assert_eq!((rejected.busy, rejected.retry_at), (false, Some(s(10))));
    assert_eq!(
        stand.free(),
        stand.places(),
        "the rejected call took no slot"
    );
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_is_waited_out_while_closed() {
    let stand = Stand::alone(Plan::new("a"));
    let limit = Verdict::Failed {
        fault: Fault::RateLimited,
        started: false,
        retry_after: Some(s(3)),
    };
    call(&stand, limit).await;
    let status = stand.vitals().await;
    assert_eq!(
        (status.state, status.retry_at.is_some()),
        (ProviderState::Closed, true)
    );
    pass(ms(2_999)).await;
    assert!(stand.admit().await.is_err());
    pass(ms(1)).await;
    assert!(stand.admit().await.is_ok());
    assert_eq!(stand.vitals().await.retry_at, None);
    assert_eq!(probe_count(&stand), 0);
}

#[actix_rt::test(system = "Paused")]
async fn reset_closes_and_discards_failures() {
    let stand = opened(Plan::new("a")).await;
    stand.actor().send(Reset).await.unwrap();
    let status = stand.vitals().await;
    assert_eq!(
        (status.state, status.reason, status.retry_at),
        (ProviderState::Closed, None, None)
    );
    for _ in 0..4 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    assert!(
        stand.admit().await.is_ok(),
        "the earlier failures are discarded"
    );
    pass(s(60)).await;
    assert_eq!(probe_count(&stand), 0, "no probe is due");
}
