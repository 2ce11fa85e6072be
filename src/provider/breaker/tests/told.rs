//! Events of other instances.

use proptest::prelude::*;

use super::*;

fn blocked_until(until: Duration) -> BreakerSnapshot {
    BreakerSnapshot {
        failed_probes: 2,
        retry_at: until,
        is_blocked: true,
        fault: Some(FaultKind::Unauthorized),
    }
}

#[test]
fn warned_breaker_opens_at_the_first_hard_failure_once() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.expect_failure(bench.now);
    assert_eq!(
        bench.visit(failed(FaultKind::RateLimited)),
        None,
        "a rate limit is not a hard failure"
    );
    assert_eq!(bench.visit(failed(FaultKind::BadRequest)), None);
    let opened = bench.visit(failed(FaultKind::Timeout)).unwrap();
    assert_eq!(
        (opened.to, opened.trip_reason),
        (ProviderState::Open, Some(TripReason::PeerWarning))
    );
    bench.pass(s(10));
    bench.probe(CallOutcome::Success).unwrap();
    bench.open_by_five_failures();
}

#[test]
fn warning_ends_with_a_first_token_or_after_a_window() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.expect_failure(bench.now);
    bench.visit(CallOutcome::Success);
    bench.open_by_five_failures();
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.expect_failure(bench.now);
    bench.pass(s(60));
    bench.open_by_five_failures();
    // A broken stream is no failed call.
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.expect_failure(bench.now);
    assert_eq!(bench.visit(broken_stream(FaultKind::Reset)), None);
}

#[test]
fn peer_events_do_not_change_a_breaker_that_is_not_closed() {
    for mut bench in [
        Bench::opened(BreakerConfig::default()),
        Bench::half_open(BreakerConfig::default()),
        Bench::blocked(BreakerConfig::default()),
    ] {
        let before = bench.view();
        bench.breaker.expect_failure(bench.now);
        bench.breaker.hold_until(bench.now + s(600), bench.now);
        assert_eq!(
            bench
                .breaker
                .open_from_peer(blocked_until(bench.now + s(600)), bench.now),
            None
        );
        assert_eq!(bench.view(), before);
    }
}

#[test]
fn rate_limit_of_a_peer_is_waited_out_and_clamped() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.hold_until(bench.now + s(30), bench.now);
    assert_eq!(
        (bench.state(), bench.remaining_wait()),
        (ProviderState::Closed, Some(s(30)))
    );
    assert!(bench.rejects(CallOrigin::Turn));
    bench.breaker.hold_until(bench.now + s(5), bench.now);
    assert_eq!(bench.remaining_wait(), Some(s(30)), "never shorter");
    bench.breaker.hold_until(Duration::MAX, bench.now);
    assert_eq!(bench.remaining_wait(), Some(MAX_RATE_LIMIT_WAIT));
}

#[test]
fn peer_event_does_not_shorten_an_own_rate_limit() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.visit(failed_with_retry_after(FaultKind::RateLimited, Some(s(40))));
    let transition = bench
        .breaker
        .open_from_peer(blocked_until(bench.now + s(5)), bench.now)
        .unwrap();
    assert_eq!(
        (transition.to, transition.trip_reason),
        (ProviderState::Blocked, Some(TripReason::Restored))
    );
    assert_eq!(bench.remaining_wait(), Some(s(40)));
}

#[test]
fn good_probe_of_a_peer_closes_and_one_failure_opens_again() {
    for mut bench in [
        Bench::opened(BreakerConfig::default()),
        Bench::half_open(BreakerConfig::default()),
        Bench::blocked(BreakerConfig::default()),
    ] {
        let closed = bench.breaker.close_from_peer(bench.now).unwrap();
        assert_eq!(
            (closed.to, closed.trip_reason),
            (ProviderState::Closed, Some(TripReason::Restored))
        );
        assert_eq!(bench.breaker.close_from_peer(bench.now), None);
        let opened = bench.visit(failed(FaultKind::Unreachable)).unwrap();
        assert_eq!(opened.trip_reason, Some(TripReason::PeerWarning));
    }
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.hold_until(bench.now + s(30), bench.now);
    assert_eq!(bench.breaker.close_from_peer(bench.now), None);
    assert_eq!(bench.remaining_wait(), Some(s(30)), "the rate limit stays");
}

#[test]
fn postponed_probe_releases_its_slot_and_comes_later() {
    for mut bench in [
        Bench::half_open(BreakerConfig::default()),
        Bench::blocked(BreakerConfig::default()),
    ] {
        bench.pass(s(60));
        let ticket = bench.ticket(CallOrigin::Probe);
        assert!(bench.rejects(CallOrigin::Probe));
        bench
            .breaker
            .postpone_probe(ticket, bench.now + s(7), bench.now);
        assert_eq!(bench.remaining_wait(), Some(s(7)));
        assert!(bench.rejects(CallOrigin::Probe));
        bench.pass(s(7));
        bench.probe(CallOutcome::Success).unwrap();
    }
    // A ticket of an older generation changes nothing.
    let mut bench = Bench::half_open(BreakerConfig::default());
    let ticket = bench.ticket(CallOrigin::Probe);
    bench.breaker.close_from_peer(bench.now);
    let before = bench.view();
    bench
        .breaker
        .postpone_probe(ticket, bench.now + s(7), bench.now);
    assert_eq!(bench.view(), before);
}

proptest! {
    /// After any sequence of peer events a healthy provider is called again within a day.
    #[test]
    fn peer_events_never_shut_out_a_provider_for_good(
        events in prop::collection::vec((0u8..5, 0u64..200_000, 0u64..100), 0..40),
    ) {
        let mut bench = Bench::new(BreakerConfig::default());
        for (event, lasts, pause) in events {
            let until = bench.now + s(lasts);
            match event {
                0 => drop(bench.breaker.open_from_peer(blocked_until(until), bench.now)),
                1 => bench.breaker.hold_until(until, bench.now),
                2 => bench.breaker.expect_failure(bench.now),
                3 => drop(bench.breaker.close_from_peer(bench.now)),
                _ => if let Ok(ticket) = bench.breaker.admit(bench.now, CallOrigin::Probe) {
                    bench.breaker.postpone_probe(ticket, until, bench.now);
                }
            }
            bench.pass(s(pause));
        }
        bench.pass(MAX_RATE_LIMIT_WAIT);
        if bench.state() == ProviderState::Closed {
            prop_assert!(!bench.rejects(CallOrigin::Turn));
        } else {
            bench.probe(CallOutcome::Success).unwrap();
            prop_assert_eq!(bench.state(), ProviderState::Closed);
        }
    }
}
