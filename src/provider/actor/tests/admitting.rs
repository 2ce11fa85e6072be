//! Who is let in, and what an attempt that ended does to the windows and the breaker.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn a_full_provider_is_busy_and_not_ill() {
    let stand = Stand::alone(Plan {
        max_concurrent: 2,
        ..Plan::new("a")
    });
    let (one, two) = (stand.admit().await.unwrap(), stand.admit().await.unwrap());
    assert_eq!(
        refusal(stand.admit().await),
        Refusal {
            busy: true,
            retry_at: None
        }
    );
    assert_eq!(stand.vitals().await.in_flight, 2);
    drop(one);
    assert!(stand.admit().await.is_ok());
    two.settle(Verdict::Whole);
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.state, vitals.in_flight, stand.free()),
        (ProviderState::Closed, 0, 2)
    );
}

#[actix_rt::test(system = "Paused")]
async fn what_an_attempt_came_to_is_counted_once() {
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
    let vitals = stand.vitals().await;
    assert_eq!(
        (
            vitals.successes,
            vitals.failures,
            vitals.restarts,
            vitals.in_flight
        ),
        (1, 2, 1, 0)
    );
    assert_eq!(vitals.reason, Some(Fault::Reset));
    let [first, total] = [vitals.first_token, vitals.total].map(|latency| latency.unwrap().p50);
    assert!(
        first.abs_diff(300) <= 6 && total.abs_diff(2_000) <= 40,
        "{first} {total}"
    );
}

/// What was granted is told of in any case: three messages for each place at most.
#[actix_rt::test(system = "Paused")]
async fn a_full_mailbox_loses_no_verdict() {
    let stand = Stand::alone(Plan {
        max_concurrent: 2,
        ..Plan::new("a")
    });
    let (one, two) = (stand.admit().await.unwrap(), stand.admit().await.unwrap());
    let actor = stand.actor();
    // Until this task waits for something, it hears nobody.
    let took = (0..2 * MAILBOX)
        .take_while(|_| actor.try_send(Admit).is_ok())
        .count();
    assert!((MAILBOX..=MAILBOX + 1).contains(&took), "{took}");
    for permit in [one, two] {
        permit.first_token(ms(300));
        permit.settle(Verdict::Whole);
    }
    settled().await;
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.successes, vitals.in_flight, stand.free()),
        (2, 0, 2)
    );
}

#[actix_rt::test(system = "Paused")]
async fn abandoned_calls_move_nothing() {
    let stand = Stand::alone(Plan::new("a"));
    for _ in 0..50 {
        drop(stand.admit().await.unwrap());
    }
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.state, vitals.successes, vitals.failures),
        (ProviderState::Closed, 0, 0)
    );
    assert_eq!(stand.free(), stand.places());
}

#[actix_rt::test(system = "Paused")]
async fn an_open_breaker_says_when_to_ask_again() {
    let stand = opened(Plan::new("a")).await;
    let refused = refusal(stand.admit().await);
    assert_eq!((refused.busy, refused.retry_at), (false, Some(s(10))));
    assert_eq!(stand.free(), stand.places(), "the refused took no place");
}

#[actix_rt::test(system = "Paused")]
async fn a_rate_limit_is_waited_out_closed() {
    let stand = Stand::alone(Plan::new("a"));
    let limit = Verdict::Failed {
        fault: Fault::RateLimited,
        started: false,
        retry_after: Some(s(3)),
    };
    call(&stand, limit).await;
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.state, vitals.retry_at.is_some()),
        (ProviderState::Closed, true)
    );
    pass(ms(2_999)).await;
    assert!(stand.admit().await.is_err());
    pass(ms(1)).await;
    assert!(stand.admit().await.is_ok());
    assert_eq!(stand.vitals().await.retry_at, None);
    assert_eq!(probed(&stand), 0);
}

#[actix_rt::test(system = "Paused")]
async fn reset_closes_and_forgets() {
    let stand = opened(Plan::new("a")).await;
    stand.actor().send(Reset).await.unwrap();
    let vitals = stand.vitals().await;
    assert_eq!(
        (vitals.state, vitals.reason, vitals.retry_at),
        (ProviderState::Closed, None, None)
    );
    for _ in 0..4 {
        call(&stand, failed(Fault::ServerError)).await;
    }
    assert!(
        stand.admit().await.is_ok(),
        "the failures before are forgotten"
    );
    pass(s(60)).await;
    assert_eq!(probed(&stand), 0, "and no probe is due");
}
