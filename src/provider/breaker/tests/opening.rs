//! Opening, blocking and rate limits: their conditions and durations.

use super::*;

#[test]
fn five_consecutive_hard_failures_open_the_breaker() {
    for fault in faults(BreakerImpact::Failure) {
        let mut bench = Bench::new(BreakerConfig::default());
        (0..4).for_each(|_| assert_eq!(bench.visit(failed(fault)), None));
        let expected = Transition {
            from: ProviderState::Closed,
            to: ProviderState::Open,
            retry_at: Some(bench.now + s(10)),
            fault: Some(fault),
            trip_reason: Some(TripReason::ConsecutiveFailures),
        };
        assert_eq!(bench.visit(failed(fault)), Some(expected));
    }
}

#[test]
fn first_token_resets_consecutive_failures() {
    let mut bench = Bench::new(BreakerConfig {
        min_calls: 1_000,
        ..BreakerConfig::default()
    });
    for _ in 0..20 {
        (0..4).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::Reset)), None));
        let under_way = bench.ticket(CallOrigin::Turn);
        bench
            .breaker
            .record_first_token(under_way, s(0), bench.now, NO_JITTER);
    }
}

#[test]
fn rate_limit_does_not_change_consecutive_failures() {
    let mut bench = Bench::new(BreakerConfig {
        min_calls: 1_000,
        ..BreakerConfig::default()
    });
    (0..100).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::RateLimited)), None));
    (0..4).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::Reset)), None));
    assert_eq!(bench.visit(failed(FaultKind::RateLimited)), None);
    assert_eq!(
        bench.visit(failed(FaultKind::Reset)).unwrap().trip_reason,
        Some(TripReason::ConsecutiveFailures)
    );
}

#[test]
fn half_of_ten_calls_failing_in_the_window_open_the_breaker() {
    // (successes, seconds of pause, number of the failure that opens the breaker)
    for (good, pause, opens_at) in [
        (5, 0, Some(5)),
        (6, 0, Some(6)),
        (20, 0, None),
        (20, 54, None),
        (20, 60, Some(10)),
        (0, 0, Some(10)),
    ] {
        for fault in [FaultKind::RateLimited, FaultKind::ServerError] {
            let rules = BreakerConfig {
                consecutive_failures: 1_000,
                ..BreakerConfig::default()
            };
            let mut bench = Bench::new(rules);
            (0..good).for_each(|_| assert_eq!(bench.visit(CallOutcome::Success), None));
            bench.pass(s(pause));
            let opened = (1..=19).find(|_| {
                let transition = bench.visit(failed(fault));
                transition.is_some_and(|to| to.trip_reason == Some(TripReason::FailureRate))
            });
            assert_eq!(opened, opens_at, "{good} successes, {pause} s, {fault}");
        }
    }
}

#[test]
fn alternating_successes_and_failures_open_the_breaker() {
    let mut bench = Bench::new(BreakerConfig::default());
    let calls = [CallOutcome::Success, failed(FaultKind::ServerError)]
        .into_iter()
        .cycle();
    let opened = calls
        .take(20)
        .position(|outcome| bench.visit(outcome).is_some());
    assert_eq!(opened, Some(9));
}

#[test]
fn outcomes_that_say_nothing_about_health_are_not_counted() {
    let neutral: Vec<_> = faults(BreakerImpact::Ignored)
        .map(failed)
        .chain([CallOutcome::Abandoned])
        .collect();
    let mut bench = Bench::new(BreakerConfig::default());
    let hundred = || neutral.iter().copied().cycle().take(100);
    hundred().for_each(|outcome| assert_eq!(bench.visit(outcome), None));
    // Nor do they reset consecutive failures or lower the rate.
    (0..4).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::Reset)), None));
    hundred().for_each(|outcome| assert_eq!(bench.visit(outcome), None));
    assert!(bench.visit(failed(FaultKind::Reset)).is_some());
}

#[test]
fn broken_streams_have_their_own_limits() {
    let whole = CallOutcome::Success;
    let broken = broken_stream(FaultKind::Truncated);
    let limited = broken_stream(FaultKind::RateLimited);
    for (ends, opens) in [
        (vec![broken, broken, broken], true),
        (vec![broken, broken, whole, broken, broken], false),
        (vec![broken, limited, broken, limited], false),
        (vec![broken, limited, broken, limited, broken], true),
        (
            vec![
                broken,
                CallOutcome::Abandoned,
                broken,
                broken_stream(FaultKind::Diverged),
                broken,
            ],
            true,
        ),
        // Three of ten, and three of fewer than ten.
        (
            [vec![whole; 6], vec![broken, broken, whole, broken]].concat(),
            true,
        ),
        (
            [vec![whole; 5], vec![broken, broken, whole, broken]].concat(),
            false,
        ),
        ([vec![whole; 7], vec![limited; 3]].concat(), true),
        ([vec![whole; 8], vec![limited; 3]].concat(), false),
    ] {
        let mut bench = Bench::new(BreakerConfig::default());
        let last = ends.iter().map(|end| bench.visit(*end)).collect::<Vec<_>>();
        let (last, before) = last.split_last().unwrap();
        assert!(before.iter().all(Option::is_none), "{ends:?}");
        let cause = last.map(|to| to.trip_reason);
        assert_eq!(
            cause,
            opens.then_some(Some(TripReason::BrokenStreams)),
            "{ends:?}"
        );
    }
}

#[test]
fn broken_stream_counts_as_a_successful_call() {
    let rules = BreakerConfig {
        stream_failure_rate: 2.0,
        ..BreakerConfig::default()
    };
    let mut bench = Bench::new(rules);
    // Two consecutive broken streams, again and again: a complete answer resets their count, and no
    // call counts as failed.
    for _ in 0..50 {
        for end in [
            broken_stream(FaultKind::Reset),
            broken_stream(FaultKind::Reset),
            CallOutcome::Success,
        ] {
            assert_eq!(bench.visit(end), None);
        }
    }
    (0..4).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::Reset)), None));
    assert_eq!(bench.visit(broken_stream(FaultKind::Reset)), None);
    (0..4).for_each(|_| assert_eq!(bench.visit(failed(FaultKind::Reset)), None));
}

#[test]
fn refused_key_and_spent_quota_block_at_once() {
    for fault in faults(BreakerImpact::Block) {
        for outcome in [failed(fault), broken_stream(fault)] {
            let mut bench = Bench::new(BreakerConfig::default());
            let transition = bench.visit(outcome).unwrap();
            assert_eq!(
                (transition.to, transition.fault),
                (ProviderState::Blocked, Some(fault))
            );
            assert_eq!(transition.trip_reason, Some(TripReason::Blocked));
            assert_eq!(bench.remaining_wait(), Some(s(60)));
        }
    }
}

/// Makes two calls a second with this first-token latency, until one opens the breaker or `time` is
/// over.
fn first_tokens(bench: &mut Bench, latency: Duration, time: Duration) -> Option<Transition> {
    let end = bench.now + time;
    while bench.now < end {
        let ticket = bench.ticket(CallOrigin::Turn);
        if let Some(transition) = bench
            .breaker
            .record_first_token(ticket, latency, bench.now, NO_JITTER)
        {
            return Some(transition);
        }
        bench.settle(ticket, CallOutcome::Success);
        bench.pass(Duration::from_millis(500));
    }
    None
}

#[test]
fn slow_first_tokens_open_the_breaker_and_are_the_baseline_after_recovery() {
    let mut bench = Bench::new(BreakerConfig::default());
    let fast = Duration::from_millis(300);
    let slow = s(3);
    assert_eq!(first_tokens(&mut bench, fast, s(120)), None);
    let transition = first_tokens(&mut bench, slow, s(60)).unwrap();
    assert_eq!(
        (transition.to, transition.fault),
        (ProviderState::Open, None)
    );
    assert_eq!(transition.trip_reason, Some(TripReason::SlowCalls));
    bench.pass(s(10));
    assert_eq!(
        bench.probe(CallOutcome::Success).unwrap().to,
        ProviderState::Closed
    );
    assert_eq!(first_tokens(&mut bench, slow, s(600)), None);
    assert!(first_tokens(&mut bench, 10 * slow, s(60)).is_some());
}

#[test]
fn open_time_doubles_up_to_its_max_with_a_fifth_of_jitter() {
    let rules = BreakerConfig::default();
    let ms = Duration::from_millis;
    for (strikes, min, middle, max) in [
        (0, 8_000, 10_000, 12_000),
        (1, 16_000, 20_000, 24_000),
        (2, 20_000, 22_500, 25_000),
        (3, 20_000, 22_500, 25_000),
        (u32::MAX, 20_000, 22_500, 25_000),
    ] {
        for (random, expected) in [(0.0, min), (NO_JITTER, middle), (1.0, max)] {
            let time = rules.open_duration(strikes, random);
            assert_eq!(
                time,
                ms(expected),
                "{strikes} failed probes, random {random}"
            );
        }
    }
}

#[test]
fn retry_after_is_the_minimum_open_time() {
    // (fault of the failed probe, Retry-After in seconds, open time in milliseconds). One failed
    // probe alone means 20 s; a longer Retry-After gets one more second.
    for (fault, retry_after, time) in [
        (FaultKind::ServerError, None, 20_000),
        (FaultKind::ServerError, Some(0), 20_000),
        (FaultKind::ServerError, Some(5), 20_000),
        (FaultKind::ServerError, Some(60), 61_000),
        (FaultKind::ServerError, Some(1_000_000_000), 301_000),
        (FaultKind::RateLimited, Some(600), 601_000),
        (FaultKind::RateLimited, Some(1_000_000_000), 86_401_000),
        (FaultKind::Overloaded, Some(600), 601_000),
    ] {
        let mut bench = Bench::half_open(BreakerConfig::default());
        bench
            .probe(failed_with_retry_after(fault, retry_after.map(s)))
            .unwrap();
        assert_eq!(
            bench.remaining_wait(),
            Some(Duration::from_millis(time)),
            "{fault}, {retry_after:?}"
        );
    }
}

#[test]
fn rate_limit_is_waited_out_while_closed() {
    for fault in [FaultKind::RateLimited, FaultKind::Overloaded] {
        for (retry_after, wait) in [
            (None, None),
            (Some(0), None),
            (Some(30), Some(30)),
            (Some(1_000_000_000), Some(86_400)),
        ] {
            let mut bench = Bench::new(BreakerConfig::default());
            assert_eq!(
                bench.visit(failed_with_retry_after(fault, retry_after.map(s))),
                None
            );
            assert_eq!(bench.state(), ProviderState::Closed);
            assert_eq!(
                bench.remaining_wait(),
                wait.map(s),
                "{fault}, {retry_after:?}"
            );
            let rejection = bench.breaker.admit(bench.now, CallOrigin::Turn).err();
            assert_eq!(
                rejection.and_then(|rejection| rejection.retry_at),
                wait.map(|wait| bench.now + s(wait))
            );
            bench.pass(s(wait.unwrap_or(0)));
            assert!(!bench.rejects(CallOrigin::Turn));
            assert_eq!(bench.remaining_wait(), None);
        }
    }
    let mut bench = Bench::new(BreakerConfig::default());
    bench.visit(failed_with_retry_after(FaultKind::ServerError, Some(s(30))));
    assert!(
        !bench.rejects(CallOrigin::Turn),
        "only rate limits are waited out"
    );
}

#[test]
fn longest_retry_after_counts_and_successes_do_not_shorten_it() {
    let mut bench = Bench::new(BreakerConfig::default());
    let tickets = [(); 4].map(|()| bench.ticket(CallOrigin::Turn));
    let limits = [30, 40, 10]
        .map(|retry_after| failed_with_retry_after(FaultKind::RateLimited, Some(s(retry_after))));
    for (ticket, outcome) in tickets
        .into_iter()
        .zip(limits.into_iter().chain([CallOutcome::Success]))
    {
        assert_eq!(bench.settle(ticket, outcome), None);
    }
    assert_eq!(bench.remaining_wait(), Some(s(40)));
}

#[test]
fn rate_limit_still_holds_after_consecutive_failures_open_the_breaker() {
    let mut bench = Bench::new(BreakerConfig::default());
    let tickets = [(); 5].map(|()| bench.ticket(CallOrigin::Turn));
    bench.visit(failed_with_retry_after(FaultKind::RateLimited, Some(s(40))));
    let last = tickets
        .map(|ticket| bench.settle(ticket, failed(FaultKind::Reset)))
        .into_iter()
        .last();
    assert_eq!(last.flatten().unwrap().to, ProviderState::Open);
    assert_eq!(bench.remaining_wait(), Some(s(40)));
}

#[test]
fn rate_limit_still_holds_after_slow_first_tokens_open_the_breaker() {
    let mut bench = Bench::new(BreakerConfig::default());
    assert_eq!(
        first_tokens(&mut bench, Duration::from_millis(300), s(60)),
        None
    );
    let slow: Vec<_> = (0..40).map(|_| bench.ticket(CallOrigin::Turn)).collect();
    bench.visit(failed_with_retry_after(FaultKind::RateLimited, Some(s(40))));
    let first_token = |ticket: &Ticket| {
        bench
            .breaker
            .record_first_token(*ticket, s(3), bench.now, NO_JITTER)
    };
    let opened = slow.iter().find_map(first_token).unwrap();
    assert_eq!(
        (opened.trip_reason, bench.remaining_wait()),
        (Some(TripReason::SlowCalls), Some(s(40)))
    );
}

#[test]
fn extreme_configuration_does_not_panic() {
    let rules = BreakerConfig {
        consecutive_failures: 0,
        failure_rate: f64::NAN,
        min_calls: 0,
        window: Duration::ZERO,
        slow_factor: f64::NAN,
        slow_rate: -1.0,
        stream_failure_rate: f64::INFINITY,
        open_for: Duration::MAX,
        open_max: Duration::MAX / 4,
        blocked_for: Duration::MAX,
        probes: 0,
        recovery_probe: true,
        probe_lease: Duration::MAX,
    };
    let mut bench = Bench::new(rules);
    (0..100).for_each(|_| assert_eq!(bench.visit(CallOutcome::Success), None));
    assert_eq!(
        bench.visit(failed(FaultKind::Reset)).unwrap().to,
        ProviderState::Open
    );
    bench.now = Duration::MAX / 2;
    assert_eq!(
        bench.probe(CallOutcome::Success).unwrap().to,
        ProviderState::Closed
    );
}
