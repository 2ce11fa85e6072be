//! Events of other instances.

use proptest::prelude::*;

use super::*;

fn blocked_until(until: Duration) -> Saved {
    Saved {
        strikes: 2,
        until,
        blocked: true,
        fault: Some(Fault::Unauthorized),
    }
}

#[test]
fn warned_breaker_opens_at_the_first_hard_failure_once() {
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    assert_eq!(
        bench.visit(failed(Fault::RateLimited)),
        None,
        "a rate limit is not a hard failure"
    );
    assert_eq!(bench.visit(failed(Fault::BadRequest)), None);
    let opened = bench.visit(failed(Fault::Timeout)).unwrap();
    assert_eq!(
        (opened.to, opened.cause),
        (ProviderState::Open, Some(Cause::Warned))
    );
    bench.pass(s(10));
    bench.probe(Verdict::Whole).unwrap();
    bench.open_by_five_failures();
}

#[test]
fn warning_ends_with_a_first_token_or_after_a_window() {
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    bench.visit(Verdict::Whole);
    bench.open_by_five_failures();
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    bench.pass(s(60));
    bench.open_by_five_failures();
    // A broken stream is no failed call.
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    assert_eq!(bench.visit(broken_stream(Fault::Reset)), None);
}

#[test]
fn peer_events_do_not_change_a_breaker_that_is_not_closed() {
    for mut bench in [
        Bench::opened(Rules::default()),
        Bench::half_open(Rules::default()),
        Bench::blocked(Rules::default()),
    ] {
        let before = bench.view();
        bench.breaker.beware(bench.now);
        bench.breaker.hold(bench.now + s(600), bench.now);
        assert_eq!(
            bench
                .breaker
                .adopt(blocked_until(bench.now + s(600)), bench.now),
            None
        );
        assert_eq!(bench.view(), before);
    }
}

#[test]
fn rate_limit_of_a_peer_is_waited_out_and_clamped() {
    let mut bench = Bench::new(Rules::default());
    bench.breaker.hold(bench.now + s(30), bench.now);
    assert_eq!(
        (bench.state(), bench.remaining_wait()),
        (ProviderState::Closed, Some(s(30)))
    );
    assert!(bench.rejects(Who::Visitor));
    bench.breaker.hold(bench.now + s(5), bench.now);
    assert_eq!(bench.remaining_wait(), Some(s(30)), "never shorter");
    bench.breaker.hold(Duration::MAX, bench.now);
    assert_eq!(bench.remaining_wait(), Some(LONGEST_HOLD));
}

#[test]
fn peer_event_does_not_shorten_an_own_rate_limit() {
    let mut bench = Bench::new(Rules::default());
    bench.visit(failed_with_retry_after(Fault::RateLimited, Some(s(40))));
    let transition = bench
        .breaker
        .adopt(blocked_until(bench.now + s(5)), bench.now)
        .unwrap();
    assert_eq!(
        (transition.to, transition.cause),
        (ProviderState::Blocked, Some(Cause::Told))
    );
    assert_eq!(bench.remaining_wait(), Some(s(40)));
}

#[test]
fn good_probe_of_a_peer_closes_and_one_failure_opens_again() {
    for mut bench in [
        Bench::opened(Rules::default()),
        Bench::half_open(Rules::default()),
        Bench::blocked(Rules::default()),
    ] {
        let closed = bench.breaker.relieve(bench.now).unwrap();
        assert_eq!(
            (closed.to, closed.cause),
            (ProviderState::Closed, Some(Cause::Told))
        );
        assert_eq!(bench.breaker.relieve(bench.now), None);
        let opened = bench.visit(failed(Fault::Unreachable)).unwrap();
        assert_eq!(opened.cause, Some(Cause::Warned));
    }
    let mut bench = Bench::new(Rules::default());
    bench.breaker.hold(bench.now + s(30), bench.now);
    assert_eq!(bench.breaker.relieve(bench.now), None);
    assert_eq!(bench.remaining_wait(), Some(s(30)), "the rate limit stays");
}

#[test]
fn postponed_probe_releases_its_slot_and_comes_later() {
    for mut bench in [
        Bench::half_open(Rules::default()),
        Bench::blocked(Rules::default()),
    ] {
        bench.pass(s(60));
        let ticket = bench.ticket(Who::Probe);
        assert!(bench.rejects(Who::Probe));
        bench.breaker.postpone(ticket, bench.now + s(7), bench.now);
        assert_eq!(bench.remaining_wait(), Some(s(7)));
        assert!(bench.rejects(Who::Probe));
        bench.pass(s(7));
        bench.probe(Verdict::Whole).unwrap();
    }
    // A ticket of an older generation changes nothing.
    let mut bench = Bench::half_open(Rules::default());
    let ticket = bench.ticket(Who::Probe);
    bench.breaker.relieve(bench.now);
    let before = bench.view();
    bench.breaker.postpone(ticket, bench.now + s(7), bench.now);
    assert_eq!(bench.view(), before);
}

proptest! {
    /// After any sequence of peer events a healthy provider is called again within a day.
    #[test]
    fn peer_events_never_shut_out_a_provider_for_good(
        events in prop::collection::vec((0u8..5, 0u64..200_000, 0u64..100), 0..40),
    ) {
        let mut bench = Bench::new(Rules::default());
        for (event, lasts, pause) in events {
            let until = bench.now + s(lasts);
            match event {
                0 => drop(bench.breaker.adopt(blocked_until(until), bench.now)),
                1 => bench.breaker.hold(until, bench.now),
                2 => bench.breaker.beware(bench.now),
                3 => drop(bench.breaker.relieve(bench.now)),
                _ => if let Ok(ticket) = bench.breaker.admit(bench.now, Who::Probe) {
                    bench.breaker.postpone(ticket, until, bench.now);
                }
            }
            bench.pass(s(pause));
        }
        bench.pass(LONGEST_HOLD);
        if bench.state() == ProviderState::Closed {
            prop_assert!(!bench.rejects(Who::Visitor));
        } else {
            bench.probe(Verdict::Whole).unwrap();
            prop_assert_eq!(bench.state(), ProviderState::Closed);
        }
    }
}
