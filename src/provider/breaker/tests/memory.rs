//! Snapshots, stale tickets, resets and new configurations.

use super::*;

#[test]
fn outcomes_of_an_older_generation_change_nothing() {
    let later: [fn(&mut Bench); 6] = [
        |bench| bench.open_by_five_failures(),
        |bench| {
            bench.open_by_five_failures();
            bench.pass(s(10));
            bench.breaker.tick(bench.now);
        },
        |bench| {
            bench.open_by_five_failures();
            bench.pass(s(10));
            bench.probe(Verdict::Whole);
        },
        |bench| assert!(bench.visit(failed(Fault::Unauthorized)).is_some()),
        |bench| assert!(bench.breaker.reset(bench.now).is_none()),
        |bench| {
            // Rebuilt from a snapshot, with tickets of the previous breaker still in flight.
            bench.open_by_five_failures();
            let saved = bench.view().saved().unwrap();
            bench.breaker = Breaker::restored(Rules::default(), bench.now, saved);
        },
    ];
    let outcomes = [
        Verdict::Whole,
        Verdict::Abandoned,
        failed(Fault::Reset),
        broken_stream(Fault::Reset),
        failed(Fault::Unauthorized),
        failed_with_retry_after(Fault::RateLimited, Some(s(600))),
    ];
    for (number, later) in later.into_iter().enumerate() {
        let mut bench = Bench::new(Rules::default());
        let old: Vec<_> = (0..60).map(|_| bench.ticket(Who::Visitor)).collect();
        later(&mut bench);
        let before = bench.view();
        for (ticket, outcome) in old.into_iter().zip(outcomes.into_iter().cycle()) {
            assert_eq!(
                bench
                    .breaker
                    .first_token(ticket, s(90), bench.now, NO_JITTER),
                None
            );
            assert_eq!(bench.settle(ticket, outcome), None);
        }
        assert_eq!(bench.view(), before, "scene {number}");
        if before.state == ProviderState::Closed {
            bench.open_by_five_failures();
        }
    }
}

#[test]
fn snapshot_is_restored_open_half_open_or_blocked() {
    let now = s(1_000);
    for (strikes, until, blocked, state, waits) in [
        (0, 1_005, false, ProviderState::Open, Some(5)),
        (3, 1_005, false, ProviderState::Open, Some(5)),
        (0, 900, false, ProviderState::HalfOpen, None),
        (0, 1_000, false, ProviderState::HalfOpen, None),
        (0, 1_000_000_000, false, ProviderState::Open, Some(86_400)),
        (0, 1_030, true, ProviderState::Blocked, Some(30)),
        (0, 900, true, ProviderState::Blocked, None),
    ] {
        let saved = Saved {
            strikes,
            until: s(until),
            blocked,
            fault: Some(Fault::QuotaSpent),
        };
        let breaker = Breaker::restored(Rules::default(), now, saved);
        let mut bench = Bench { breaker, now };
        assert_eq!(
            (bench.state(), bench.remaining_wait()),
            (state, waits.map(s)),
            "{saved:?}"
        );
        assert_eq!(bench.view().cause, Some(Cause::Told));
        assert_eq!(bench.view().fault, Some(Fault::QuotaSpent));
        assert!(bench.rejects(Who::Visitor));
        bench.pass(s(waits.unwrap_or(0)));
        let again = bench.view().saved().unwrap();
        assert_eq!((again.blocked, again.fault), (blocked, saved.fault));
        if !blocked {
            assert_eq!(again.strikes, strikes);
            bench.probe(failed(Fault::Reset)).unwrap();
            assert_eq!(bench.view().strikes, strikes + 1);
        }
    }
    assert_eq!(Breaker::new(Rules::default()).view(now).saved(), None);
}

#[test]
fn only_a_closed_breaker_opens_from_a_peer() {
    let saved = |now| Saved {
        strikes: 1,
        until: now + s(7),
        blocked: false,
        fault: None,
    };
    let mut bench = Bench::new(Rules::default());
    let under_way = bench.ticket(Who::Visitor);
    let transition = bench.breaker.adopt(saved(bench.now), bench.now).unwrap();
    assert_eq!(
        (transition.to, transition.retry_at),
        (ProviderState::Open, Some(bench.now + s(7)))
    );
    assert_eq!(bench.settle(under_way, Verdict::Whole), None);
    for mut bench in [
        bench,
        Bench::half_open(Rules::default()),
        Bench::blocked(Rules::default()),
    ] {
        let before = bench.view();
        assert_eq!(bench.breaker.adopt(saved(bench.now), bench.now), None);
        assert_eq!(bench.view(), before);
    }
}

#[test]
fn reset_closes_and_discards_counts() {
    for mut bench in [
        Bench::opened(Rules::default()),
        Bench::half_open(Rules::default()),
        Bench::blocked(Rules::default()),
    ] {
        let to = bench.breaker.reset(bench.now).unwrap().to;
        assert_eq!(to, ProviderState::Closed);
        assert!(!bench.rejects(Who::Visitor));
        assert_eq!(
            bench.view(),
            View {
                since: bench.now,
                ..Breaker::new(Rules::default()).view(bench.now)
            }
        );
    }
    let mut held = Bench::new(Rules::default());
    held.visit(failed_with_retry_after(Fault::RateLimited, Some(s(30))));
    (0..4).for_each(|_| assert!(held.rejects(Who::Visitor)));
    assert_eq!(held.breaker.reset(held.now), None, "it was closed");
    held.open_by_five_failures();
}

#[test]
fn new_configuration_applies_at_once_and_keeps_the_state() {
    let mut bench = Bench::opened(Rules::default());
    bench.breaker.set_rules(Rules {
        open_for: s(3),
        probes: 2,
        ..probed_by_visitors()
    });
    assert_eq!(bench.remaining_wait(), Some(s(10)));
    bench.pass(s(10));
    assert_eq!(bench.visit(Verdict::Whole), None);
    // One good probe of two, and now one suffices: the next probe decides.
    bench.breaker.set_rules(Rules::default());
    assert_eq!(bench.breaker.due(bench.now), Some(bench.now));
    assert_eq!(
        bench.probe(Verdict::Whole).unwrap().to,
        ProviderState::Closed
    );

    let mut bench = Bench::new(Rules::default());
    (0..4).for_each(|_| assert_eq!(bench.visit(failed(Fault::Reset)), None));
    bench.breaker.set_rules(Rules {
        consecutive_failures: 3,
        ..Rules::default()
    });
    let limit = failed_with_retry_after(Fault::RateLimited, Some(s(2)));
    assert_eq!(
        bench.visit(limit),
        None,
        "four failures exceed the new limit, but a rate limit does not trip on them"
    );
    bench.breaker.set_rules(Rules {
        window: s(30),
        ..Rules::default()
    });
    assert_eq!(bench.remaining_wait(), Some(s(2)), "the rate limit stays");
    bench.pass(s(2));
    bench.open_by_five_failures();
}

#[test]
fn rate_limit_survives_a_lost_breaker() {
    let now = s(1_000);
    let mut breaker = Breaker::held(Rules::default(), now, now + s(20));
    assert_eq!(breaker.view(now).state, ProviderState::Closed);
    assert_eq!(
        breaker.admit(now, Who::Visitor).unwrap_err().retry_at,
        Some(now + s(20))
    );
    assert_eq!(breaker.due(now), None);
    assert!(breaker.admit(now + s(20), Who::Visitor).is_ok());
    let mut endless = Breaker::held(Rules::default(), now, Duration::MAX);
    assert!(endless.admit(now + LONGEST_HOLD, Who::Visitor).is_ok());
    assert!(
        Breaker::held(Rules::default(), now, s(1))
            .admit(now, Who::Visitor)
            .is_ok()
    );
}

#[test]
fn tickets_of_a_lost_breaker_are_stale_for_its_successor() {
    // Both breakers go through the same number of states.
    let mut bench = Bench::half_open(Rules::default());
    let saved = bench.view().saved().unwrap();
    bench.probe(Verdict::Whole).unwrap();
    let old = [(); 5].map(|()| bench.ticket(Who::Visitor));
    bench.pass(s(1));
    bench.breaker = Breaker::restored(Rules::default(), bench.now, saved);
    bench.probe(Verdict::Whole).unwrap();
    for ticket in old {
        assert_eq!(bench.settle(ticket, failed(Fault::Reset)), None);
    }
    bench.open_by_five_failures();
}
