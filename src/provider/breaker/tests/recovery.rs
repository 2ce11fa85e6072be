//! Probes: which calls probe, how many at once, and what closes the breaker.

use super::*;

const PROBED_BY: [(bool, CallOrigin, CallOrigin); 2] = [
    (true, CallOrigin::Probe, CallOrigin::Turn),
    (false, CallOrigin::Turn, CallOrigin::Probe),
];

fn probed_by(recovery_probe: bool) -> BreakerConfig {
    BreakerConfig {
        recovery_probe,
        ..BreakerConfig::default()
    }
}

#[test]
fn closed_breaker_admits_visitors_and_no_probe() {
    for (recovery_probe, ..) in PROBED_BY {
        let mut bench = Bench::new(probed_by(recovery_probe));
        assert!(!bench.rejects(CallOrigin::Turn));
        assert!(bench.rejects(CallOrigin::Probe));
        assert_eq!(bench.breaker.next_probe_at(bench.now), None);
    }
}

#[test]
fn open_breaker_admits_nothing_and_half_open_only_probes() {
    for (recovery_probe, prober, other) in PROBED_BY {
        let mut bench = Bench::opened(probed_by(recovery_probe));
        let until = bench.now + s(10);
        bench.pass(s(10) - Duration::from_nanos(1));
        for origin in [CallOrigin::Turn, CallOrigin::Probe] {
            let rejection = BreakerRejection {
                state: ProviderState::Open,
                retry_at: Some(until),
            };
            assert_eq!(bench.breaker.admit(bench.now, origin), Err(rejection));
        }
        assert_eq!(bench.breaker.next_probe_at(bench.now), Some(until));
        bench.now = until;
        assert_eq!(bench.state(), ProviderState::HalfOpen, "before any call");
        let rejection = BreakerRejection {
            state: ProviderState::HalfOpen,
            retry_at: None,
        };
        assert_eq!(bench.breaker.admit(bench.now, other), Err(rejection));
        bench.ticket(prober);
        assert!(bench.rejects(prober), "one at once");
    }
}

#[test]
fn tick_reports_the_end_of_the_open_time_once() {
    let mut bench = Bench::opened(BreakerConfig::default());
    assert_eq!(bench.breaker.tick(bench.now), None);
    bench.pass(s(11));
    let transition = bench.breaker.tick(bench.now).unwrap();
    assert_eq!(
        (transition.from, transition.to),
        (ProviderState::Open, ProviderState::HalfOpen)
    );
    assert_eq!(transition.retry_at, None);
    assert_eq!(bench.breaker.tick(bench.now), None);
    assert_eq!(bench.view().since, bench.now - s(1));
}

#[test]
fn good_probe_closes_with_fresh_counts() {
    for (recovery_probe, prober, _) in PROBED_BY {
        let mut bench = Bench::half_open(probed_by(recovery_probe));
        let expected = Transition {
            from: ProviderState::HalfOpen,
            to: ProviderState::Closed,
            retry_at: None,
            fault: None,
            trip_reason: None,
        };
        assert_eq!(bench.call(prober, CallOutcome::Success), Some(expected));
        bench.open_by_five_failures();
        assert_eq!(bench.view().failed_probes, 0);
        assert_eq!(bench.remaining_wait(), Some(s(10)));
    }
}

#[test]
fn failed_probe_opens_again_for_longer() {
    for fault in faults(BreakerImpact::Failure).chain(faults(BreakerImpact::RateOnly)) {
        for outcome in [failed(fault), broken_stream(fault)] {
            let mut bench = Bench::half_open(BreakerConfig::default());
            let transition = bench.probe(outcome).unwrap();
            assert_eq!(
                (transition.from, transition.to),
                (ProviderState::HalfOpen, ProviderState::Open)
            );
            assert_eq!(
                (transition.fault, transition.trip_reason),
                (Some(fault), Some(TripReason::ProbeFailed))
            );
            assert_eq!(
                (bench.view().failed_probes, bench.remaining_wait()),
                (1, Some(s(20)))
            );
            bench.pass(s(20));
            bench.probe(outcome).unwrap();
            assert_eq!(bench.view().failed_probes, 2);
        }
    }
}

#[test]
fn probe_with_a_refused_key_blocks() {
    let mut bench = Bench::half_open(BreakerConfig::default());
    assert_eq!(
        bench.probe(failed(FaultKind::QuotaSpent)).unwrap().to,
        ProviderState::Blocked
    );
}

#[test]
fn three_concurrent_probes_and_three_good_ones_close() {
    let mut bench = Bench::half_open(three_probes());
    let [first, second, third] = [(); 3].map(|()| bench.ticket(CallOrigin::Probe));
    assert!(bench.rejects(CallOrigin::Probe));
    assert_eq!(bench.settle(first, CallOutcome::Success), None);
    assert!(
        bench.rejects(CallOrigin::Probe),
        "no more than are still needed"
    );
    assert_eq!(bench.settle(second, CallOutcome::Abandoned), None);
    bench.pass(s(10));
    let again = bench.ticket(CallOrigin::Probe);
    assert_eq!(bench.settle(third, CallOutcome::Success), None);
    assert_eq!(
        bench.settle(again, CallOutcome::Success).unwrap().to,
        ProviderState::Closed
    );
}

#[test]
fn slow_probe_keeps_its_slot_in_the_next_probation() {
    let mut bench = Bench::half_open(three_probes());
    let [bad, slow, slower] = [(); 3].map(|()| bench.ticket(CallOrigin::Probe));
    bench.settle(bad, failed(FaultKind::Reset)).unwrap();
    bench.pass(s(20));
    bench.ticket(CallOrigin::Probe);
    assert!(bench.rejects(CallOrigin::Probe), "three are in flight");
    assert_eq!(bench.settle(slow, CallOutcome::Success), None);
    bench.ticket(CallOrigin::Probe);
    assert!(bench.rejects(CallOrigin::Probe));
    // The slot of the probe without an outcome expires, and its late outcome is ignored.
    bench.pass(s(80));
    bench.ticket(CallOrigin::Probe);
    assert_eq!(bench.settle(slower, failed(FaultKind::Reset)), None);
    assert_eq!(bench.state(), ProviderState::HalfOpen);
}

#[test]
fn abandoned_probe_releases_its_slot() {
    for (recovery_probe, prober, _) in PROBED_BY {
        let mut bench = Bench::half_open(probed_by(recovery_probe));
        assert_eq!(bench.call(prober, CallOutcome::Abandoned), None);
        assert_eq!(bench.state(), ProviderState::HalfOpen);
        // An abandoned visitor's call says nothing about the next one, but an owner that drops its
        // probes must not send them without a pause.
        let pause = recovery_probe.then_some(s(10));
        assert_eq!(
            (bench.remaining_wait(), bench.rejects(prober)),
            (pause, pause.is_some())
        );
        bench.pass(pause.unwrap_or_default());
        if recovery_probe {
            assert!(!bench.rejects(prober));
        }
    }
}

#[test]
fn lost_probe_releases_its_slot_on_expiry() {
    for (recovery_probe, prober, _) in PROBED_BY {
        let mut bench = Bench::half_open(probed_by(recovery_probe));
        let lost = bench.ticket(prober);
        assert_eq!(
            bench.breaker.next_probe_at(bench.now),
            recovery_probe.then_some(bench.now + s(100))
        );
        bench.pass(s(100) - Duration::from_nanos(1));
        assert!(bench.rejects(prober));
        bench.pass(Duration::from_nanos(1));
        assert_eq!(
            bench.breaker.next_probe_at(bench.now),
            recovery_probe.then_some(bench.now)
        );
        let next = bench.ticket(prober);
        assert_eq!(
            bench.settle(lost, failed(FaultKind::Reset)),
            None,
            "too late"
        );
        assert_eq!(
            bench.settle(next, CallOutcome::Success).unwrap().to,
            ProviderState::Closed
        );
    }
}

#[test]
fn visitors_probe_after_an_inconclusive_own_probe() {
    for fault in faults(BreakerImpact::Ignored) {
        for mut bench in [
            Bench::half_open(BreakerConfig::default()),
            Bench::blocked(BreakerConfig::default()),
        ] {
            bench.pass(s(60));
            let state = bench.state();
            assert_eq!(bench.probe(failed(fault)), None);
            assert_eq!(bench.state(), state, "says nothing about its health");
            let pause = if state == ProviderState::Blocked {
                s(60)
            } else {
                s(10)
            };
            assert_eq!(bench.remaining_wait(), Some(pause));
            assert_eq!(
                bench.breaker.next_probe_at(bench.now),
                None,
                "the own probe would only take their slot"
            );
            assert!(bench.rejects(CallOrigin::Turn));
            bench.pass(pause);
            assert!(bench.rejects(CallOrigin::Probe));
            assert_eq!(bench.visit(failed(fault)), None);
            assert_eq!(
                bench.visit(CallOutcome::Success).unwrap().to,
                ProviderState::Closed
            );
        }
    }
}

#[test]
fn blocked_breaker_is_probed_rarely_and_a_good_probe_closes_it() {
    for (recovery_probe, prober, other) in PROBED_BY {
        let mut bench = Bench::blocked(BreakerConfig {
            probes: 3,
            ..probed_by(recovery_probe)
        });
        for fault in [
            FaultKind::Unauthorized,
            FaultKind::QuotaSpent,
            FaultKind::ServerError,
            FaultKind::RateLimited,
        ] {
            assert!(bench.rejects(prober));
            assert_eq!(
                bench.breaker.next_probe_at(bench.now),
                recovery_probe.then_some(bench.now + s(60))
            );
            bench.pass(s(60));
            assert!(bench.rejects(other));
            assert_eq!(
                bench.call(prober, failed(fault)),
                None,
                "no change, no alert"
            );
            assert_eq!(
                (bench.state(), bench.remaining_wait()),
                (ProviderState::Blocked, Some(s(60)))
            );
        }
        assert_eq!(bench.view().fault, Some(FaultKind::QuotaSpent));
        bench.pass(s(60));
        let only = bench.ticket(prober);
        assert!(
            bench.rejects(prober),
            "one at a time, even if half-open allows more"
        );
        assert_eq!(
            bench.settle(only, CallOutcome::Success).unwrap().to,
            ProviderState::Closed
        );
    }
}

#[test]
fn blocked_breaker_respects_a_longer_retry_after() {
    for (asked, waits) in [(30, 60), (120, 121), (1_000_000_000, 301)] {
        let mut bench = Bench::new(BreakerConfig::default());
        bench
            .visit(failed_with_retry_after(
                FaultKind::QuotaSpent,
                Some(s(asked)),
            ))
            .unwrap();
        assert_eq!(bench.remaining_wait(), Some(s(waits)), "{asked}");
    }
}
