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
            bench.probe(CallOutcome::Success);
        },
        |bench| assert!(bench.visit(failed(FaultKind::Unauthorized)).is_some()),
        |bench| assert!(bench.breaker.reset(bench.now).is_none()),
        |bench| {
            // Rebuilt from a snapshot, with tickets of the previous breaker still in flight.
            bench.open_by_five_failures();
            let saved = bench.view().snapshot().unwrap();
            bench.breaker = Breaker::from_snapshot(BreakerConfig::default(), bench.now, saved);
        },
    ];
    let outcomes = [
        CallOutcome::Success,
        CallOutcome::Abandoned,
        failed(FaultKind::Reset),
        broken_stream(FaultKind::Reset),
        failed(FaultKind::Unauthorized),
        failed_with_retry_after(FaultKind::RateLimited, Some(s(600))),
    ];
    for (number, later) in later.into_iter().enumerate() {
        let mut bench = Bench::new(BreakerConfig::default());
        let old: Vec<_> = (0..60).map(|_| bench.ticket(CallOrigin::Turn)).collect();
        later(&mut bench);
        let before = bench.view();
        for (ticket, outcome) in old.into_iter().zip(outcomes.into_iter().cycle()) {
            assert_eq!(
                bench
                    .breaker
                    .record_first_token(ticket, s(90), bench.now, NO_JITTER),
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
        let saved = BreakerSnapshot {
            failed_probes: strikes,
            retry_at: s(until),
            is_blocked: blocked,
            fault: Some(FaultKind::QuotaSpent),
        };
        let breaker = Breaker::from_snapshot(BreakerConfig::default(), now, saved);
        let mut bench = Bench { breaker, now };
        assert_eq!(
            (bench.state(), bench.remaining_wait()),
            (state, waits.map(s)),
            "{saved:?}"
        );
        assert_eq!(bench.view().trip_reason, Some(TripReason::Restored));
        assert_eq!(bench.view().fault, Some(FaultKind::QuotaSpent));
        assert!(bench.rejects(CallOrigin::Turn));
        bench.pass(s(waits.unwrap_or(0)));
        let again = bench.view().snapshot().unwrap();
        assert_eq!((again.is_blocked, again.fault), (blocked, saved.fault));
        if !blocked {
            assert_eq!(again.failed_probes, strikes);
            bench.probe(failed(FaultKind::Reset)).unwrap();
            assert_eq!(bench.view().failed_probes, strikes + 1);
        }
    }
    assert_eq!(
        Breaker::new(BreakerConfig::default()).view(now).snapshot(),
        None
    );
}

#[test]
fn only_a_closed_breaker_opens_from_a_peer() {
    let saved = |now| BreakerSnapshot {
        failed_probes: 1,
        retry_at: now + s(7),
        is_blocked: false,
        fault: None,
    };
    let mut bench = Bench::new(BreakerConfig::default());
    let under_way = bench.ticket(CallOrigin::Turn);
    let transition = bench
        .breaker
        .open_from_peer(saved(bench.now), bench.now)
        .unwrap();
    assert_eq!(
        (transition.to, transition.retry_at),
        (ProviderState::Open, Some(bench.now + s(7)))
    );
    assert_eq!(bench.settle(under_way, CallOutcome::Success), None);
    for mut bench in [
        bench,
        Bench::half_open(BreakerConfig::default()),
        Bench::blocked(BreakerConfig::default()),
    ] {
        let before = bench.view();
        assert_eq!(
            bench.breaker.open_from_peer(saved(bench.now), bench.now),
            None
        );
        assert_eq!(bench.view(), before);
    }
}

#[test]
fn reset_closes_and_discards_counts() {
    for mut bench in [
        Bench::opened(BreakerConfig::default()),
        Bench::half_open(BreakerConfig::default()),
        Bench::blocked(BreakerConfig::default()),
    ] {
        let to = bench.breaker.reset(bench.now).unwrap().to;
        assert_eq!(to, ProviderState::Closed);
        assert!(!bench.rejects(CallOrigin::Turn));
        assert_eq!(
            bench.view(),
            BreakerView {
                since: bench.now,
                ..Breaker::new(BreakerConfig::default()).view(bench.now)
            }
        );
    }
    let mut held = Bench::new(BreakerConfig::default());
    held.visit(failed_with_retry_after(FaultKind::RateLimited, Some(s(30))));
    (0..4).for_each(|_| assert!(held.rejects(CallOrigin::Turn)));
    assert_eq!(held.breaker.reset(held.now), None, "it was closed");
    held.open_by_five_failures();
}

#[test]
fn new_configuration_applies_at_once_and_keeps_the_state() {
    let mut bench = Bench::opened(BreakerConfig::default());
    bench.breaker.set_config(BreakerConfig {
        open_for: s(3),
        probes: 2,
        ..probed_by_visitors()
    });
    assert_eq!(bench.remaining_wait(), Some(s(10)));
    bench.pass(s(10));
    assert_eq!(bench.visit(CallOutcome::Success), None);
    // One good probe of two, and now one suffices: the next probe decides.
    bench.breaker.set_config(BreakerConfig::default());
    assert_eq!(bench.breaker.next_probe_at(bench.now), Some(bench.now));
    assert_eq!(
        bench.probe(CallOutcome::Success).unwrap().to,
        ProviderState::Closed
    );

    let mut bench = Bench::new(BreakerConfig::default());
    (0..4).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::Reset)), None));
    bench.breaker.set_config(BreakerConfig {
        consecutive_failures: 3,
        ..BreakerConfig::default()
    });
    let limit = failed_with_retry_after(FaultKind::RateLimited, Some(s(2)));
    assert_eq!(
        bench.visit(limit),
        None,
        "four failures exceed the new limit, but a rate limit does not trip on them"
    );
    bench.breaker.set_config(BreakerConfig {
        window: s(30),
        ..BreakerConfig::default()
    });
    assert_eq!(bench.remaining_wait(), Some(s(2)), "the rate limit stays");
    bench.pass(s(2));
    bench.open_by_five_failures();
}

#[test]
fn rate_limit_survives_a_lost_breaker() {
    let now = s(1_000);
    let mut breaker = Breaker::rate_limited_until(BreakerConfig::default(), now, now + s(20));
    assert_eq!(breaker.view(now).state, ProviderState::Closed);
    assert_eq!(
        breaker.admit(now, CallOrigin::Turn).unwrap_err().retry_at,
        Some(now + s(20))
    );
    assert_eq!(breaker.next_probe_at(now), None);
    assert!(breaker.admit(now + s(20), CallOrigin::Turn).is_ok());
    let mut endless = Breaker::rate_limited_until(BreakerConfig::default(), now, Duration::MAX);
    assert!(
        endless
            .admit(now + MAX_RATE_LIMIT_WAIT, CallOrigin::Turn)
            .is_ok()
    );
    assert!(
        Breaker::rate_limited_until(BreakerConfig::default(), now, s(1))
            .admit(now, CallOrigin::Turn)
            .is_ok()
    );
}

#[test]
fn tickets_of_a_lost_breaker_are_stale_for_its_successor() {
    // Both breakers go through the same number of states.
    let mut bench = Bench::half_open(BreakerConfig::default());
    let saved = bench.view().snapshot().unwrap();
    bench.probe(CallOutcome::Success).unwrap();
    let old = [(); 5].map(|()| bench.ticket(CallOrigin::Turn));
    bench.pass(s(1));
    bench.breaker = Breaker::from_snapshot(BreakerConfig::default(), bench.now, saved);
    bench.probe(CallOutcome::Success).unwrap();
    for ticket in old {
        assert_eq!(bench.settle(ticket, failed(FaultKind::Reset)), None);
    }
    bench.open_by_five_failures();
}
