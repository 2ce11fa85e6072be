//! What a breaker makes of what others say.

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
fn a_warned_breaker_opens_at_the_first_hard_failure_once() {
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    assert_eq!(
        bench.visit(failed(Fault::RateLimited)),
        None,
        "a limit is the provider at work"
    );
    assert_eq!(bench.visit(failed(Fault::BadRequest)), None);
    let opened = bench.visit(failed(Fault::Timeout)).unwrap();
    assert_eq!(
        (opened.to, opened.cause),
        (ProviderState::Open, Some(Cause::Warned))
    );
    bench.pass(s(10));
    bench.probe(Verdict::Whole).unwrap();
    bench.opens_by_five();
}

#[test]
fn a_warning_is_over_with_a_first_token_and_with_its_time() {
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    bench.visit(Verdict::Whole);
    bench.opens_by_five();
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    bench.pass(s(60));
    bench.opens_by_five();
    // An answer that breaks is no failed call.
    let mut bench = Bench::new(Rules::default());
    bench.breaker.beware(bench.now);
    assert_eq!(bench.visit(broke(Fault::Reset)), None);
}

#[test]
fn whoever_is_not_closed_knows_better_than_a_warning() {
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
fn a_hold_that_others_tell_is_waited_out_and_bounded() {
    let mut bench = Bench::new(Rules::default());
    bench.breaker.hold(bench.now + s(30), bench.now);
    assert_eq!(
        (bench.state(), bench.waits()),
        (ProviderState::Closed, Some(s(30)))
    );
    assert!(bench.refused(Who::Visitor));
    bench.breaker.hold(bench.now + s(5), bench.now);
    assert_eq!(bench.waits(), Some(s(30)), "never shorter");
    bench.breaker.hold(Duration::MAX, bench.now);
    assert_eq!(bench.waits(), Some(LONGEST_HOLD));
}

#[test]
fn what_it_was_asked_to_wait_itself_is_waited_also_when_others_tell_less() {
    let mut bench = Bench::new(Rules::default());
    bench.visit(failed_asking(Fault::RateLimited, Some(s(40))));
    let adopted = bench
        .breaker
        .adopt(blocked_until(bench.now + s(5)), bench.now)
        .unwrap();
    assert_eq!(
        (adopted.to, adopted.cause),
        (ProviderState::Blocked, Some(Cause::Told))
    );
    assert_eq!(bench.waits(), Some(s(40)));
}

#[test]
fn anothers_good_probe_closes_it_and_one_failure_opens_it_again() {
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
    assert_eq!(
        bench.waits(),
        Some(s(30)),
        "a rate limit is waited out all the same"
    );
}

#[test]
fn a_probe_that_is_put_off_gives_its_place_back_and_comes_later() {
    for mut bench in [
        Bench::half_open(Rules::default()),
        Bench::blocked(Rules::default()),
    ] {
        bench.pass(s(60));
        let ticket = bench.ticket(Who::Probe);
        assert!(bench.refused(Who::Probe));
        bench.breaker.postpone(ticket, bench.now + s(7), bench.now);
        assert_eq!(bench.waits(), Some(s(7)));
        assert!(bench.refused(Who::Probe));
        bench.pass(s(7));
        bench.probe(Verdict::Whole).unwrap();
    }
    // Of an older generation it says nothing.
    let mut bench = Bench::half_open(Rules::default());
    let ticket = bench.ticket(Who::Probe);
    bench.breaker.relieve(bench.now);
    let before = bench.view();
    bench.breaker.postpone(ticket, bench.now + s(7), bench.now);
    assert_eq!(bench.view(), before);
}

proptest! {
    /// Whatever others say, and in whatever order: a provider that is well is asked again within a day, and nothing panics.
    #[test]
    fn nothing_that_others_say_shuts_a_provider_for_good(
        words in prop::collection::vec((0u8..5, 0u64..200_000, 0u64..100), 0..40),
    ) {
        let mut bench = Bench::new(Rules::default());
        for (word, lasts, pause) in words {
            let until = bench.now + s(lasts);
            match word {
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
            prop_assert!(!bench.refused(Who::Visitor));
        } else {
            bench.probe(Verdict::Whole).unwrap();
            prop_assert_eq!(bench.state(), ProviderState::Closed);
        }
    }
}
