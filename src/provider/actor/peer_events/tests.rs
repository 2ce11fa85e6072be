//! Events that an instance publishes, events of its peers, and probe leases.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{ApplyPeerEvent, SetPeerSpend};
use crate::config;
use crate::domain::{FaultKind, ProviderState};
use crate::provider::actor::probes::{ProbeCoordinator, ProbeLease, ProbeLeaseResult};
use crate::provider::actor::{ClearAfterDrill, ResetBreaker};
use crate::provider::breaker::CallOutcome;
use crate::provider::clock::Clock;
use crate::provider::cost::{self, DailySpend, ProviderPricing};
use crate::provider::event::ProviderEvent;
use crate::provider::fault_injection;
use crate::provider::paused_system::{Paused, advance, run_until_idle};
use crate::provider::scripted_client::{fail_with, reply};
use crate::provider::test_bench::{BenchOptions, ProviderBench};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failed(fault: FaultKind, retry_after: Option<Duration>) -> CallOutcome {
    CallOutcome::Failed {
        fault,
        had_text: false,
        retry_after,
    }
}

async fn call(bench: &ProviderBench, outcome: CallOutcome) {
    bench.try_acquire().await.unwrap().complete(outcome);
    run_until_idle().await;
}

/// Returns the event that was published last.
fn published(bench: &ProviderBench) -> Option<ProviderEvent> {
    *bench.provider.events.borrow()
}

async fn receive(bench: &ProviderBench, news: ProviderEvent) {
    bench.actor().send(ApplyPeerEvent(news)).await.unwrap();
}

fn tripped(blocked: bool, fault: FaultKind) -> ProviderEvent {
    ProviderEvent::Opened {
        is_blocked: blocked,
        fault: Some(fault),
        failed_probes: 0,
        duration: s(10),
    }
}

#[actix_rt::test(system = "Paused")]
async fn transitions_are_published_and_single_failures_are_not() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    bench
        .client
        .set_probe_scripts([fail_with(FaultKind::Timeout), reply("pong")]);
    call(&bench, CallOutcome::Success).await;
    call(&bench, failed(FaultKind::BadRequest, None)).await;
    for _ in 0..4 {
        call(&bench, failed(FaultKind::Timeout, None)).await;
    }
    assert_eq!(published(&bench), None);
    call(&bench, failed(FaultKind::Timeout, None)).await;
    let trip = ProviderEvent::Opened {
        is_blocked: false,
        fault: Some(FaultKind::Timeout),
        failed_probes: 0,
        duration: s(10),
    };
    assert_eq!(published(&bench), Some(trip));
    advance(s(11)).await;
    let again = ProviderEvent::Opened {
        is_blocked: false,
        fault: Some(FaultKind::Timeout),
        failed_probes: 1,
        duration: s(20),
    };
    assert_eq!(published(&bench), Some(again), "the probe failed");
    advance(s(21)).await;
    assert_eq!(published(&bench), Some(ProviderEvent::Recovered));
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_is_published_once_and_so_is_a_reset() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    let under_way = [
        bench.try_acquire().await.unwrap(),
        bench.try_acquire().await.unwrap(),
    ];
    call(&bench, failed(FaultKind::RateLimited, Some(s(30)))).await;
    assert_eq!(
        published(&bench),
        Some(ProviderEvent::RateLimited { duration: s(30) })
    );
    let mut events = bench.provider.events.clone();
    events.borrow_and_update();
    for permit in under_way {
        permit.complete(failed(FaultKind::RateLimited, Some(s(30))));
    }
    run_until_idle().await;
    assert!(
        !events.has_changed().unwrap(),
        "running calls report the same rate limit"
    );
    bench.actor().send(ResetBreaker).await.unwrap();
    assert_eq!(published(&bench), Some(ProviderEvent::Reset));
}

#[actix_rt::test(system = "Paused")]
async fn peer_events_are_applied_and_not_published_again() {
    for (fault, blocked, state) in [
        (FaultKind::Unauthorized, true, ProviderState::Blocked),
        (FaultKind::QuotaSpent, true, ProviderState::Blocked),
        (FaultKind::Misconfigured, false, ProviderState::Open),
        (FaultKind::ServerError, false, ProviderState::Open),
        (FaultKind::Overloaded, false, ProviderState::Open),
        (FaultKind::Unreachable, false, ProviderState::Closed),
        (FaultKind::Timeout, false, ProviderState::Closed),
        (FaultKind::Reset, false, ProviderState::Closed),
    ] {
        let bench = ProviderBench::standalone(BenchOptions::new("a"));
        receive(&bench, tripped(blocked, fault)).await;
        let status = bench.status().await;
        assert_eq!(
            (status.state, published(&bench)),
            (state, None),
            "{fault:?}"
        );
        assert_eq!(
            bench.try_acquire().await.is_ok(),
            state == ProviderState::Closed
        );
        if state == ProviderState::Closed {
            call(&bench, failed(FaultKind::Reset, None)).await;
            assert_eq!(
                bench.status().await.state,
                ProviderState::Open,
                "warned by {fault:?}"
            );
            continue;
        }
        assert_eq!(status.last_fault, Some(fault));
        receive(&bench, ProviderEvent::Recovered).await;
        assert_eq!(
            (bench.status().await.state, published(&bench)),
            (ProviderState::Closed, None)
        );
        assert_eq!(
            (bench.client.probes().len(), bench.client.calls().len()),
            (0, 0)
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_of_a_peer_is_waited_out_and_not_published_again() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    receive(&bench, ProviderEvent::RateLimited { duration: s(30) }).await;
    assert!(bench.status().await.retry_at.is_some() && bench.try_acquire().await.is_err());
    assert_eq!(published(&bench), None);
    // Up to a fifth of the open time later, so that not all instances resume at once.
    advance(s(32)).await;
    assert!(bench.try_acquire().await.is_ok());
    receive(
        &bench,
        ProviderEvent::RateLimited {
            duration: Duration::MAX,
        },
    )
    .await;
    advance(s(24 * 3_600 + 2)).await;
    assert!(bench.try_acquire().await.is_ok(), "clamped to a day");
    receive(&bench, ProviderEvent::RateLimited { duration: s(600) }).await;
    receive(&bench, ProviderEvent::Reset).await;
    assert!(bench.try_acquire().await.is_ok());
}

#[actix_rt::test(system = "Paused")]
async fn peer_spend_counts_towards_the_budget_and_never_decreases() {
    let terms = ProviderPricing {
        prices: Some((1.0, 2.0)),
        daily_budget_usd: Some(1.0),
    };
    let bench = ProviderBench::standalone(BenchOptions {
        pricing: terms,
        ..BenchOptions::new("a")
    });
    let today = cost::utc_day(Clock::start().wall());
    let others = |day, usd| {
        SetPeerSpend(DailySpend {
            day,
            usd,
            estimated: false,
        })
    };
    for (message, admitted) in [
        (others(today, 0.75), true),
        (others(today - 1, 5.0), true),
        (others(today, 1.0), false),
        (others(today, 0.1), false),
        (others(today + 1, 0.1), true),
    ] {
        bench.actor().send(message).await.unwrap();
        assert_eq!(bench.try_acquire().await.is_ok(), admitted, "{message:?}");
    }
}

/// Answers from a list of delays, and records the released leases.
#[derive(Default)]
struct ScriptedCoordinator {
    waits: Mutex<VecDeque<Option<Duration>>>,
    rests: Arc<Mutex<Vec<Duration>>>,
}

struct RecordedLease(Arc<Mutex<Vec<Duration>>>);

impl ProbeLease for RecordedLease {
    fn release(self: Box<Self>, rest: Duration) {
        self.0.lock().unwrap().push(rest);
    }
}

impl ProbeCoordinator for ScriptedCoordinator {
    fn request_lease(&self, _: Duration) -> BoxFuture<'static, ProbeLeaseResult> {
        let delay = self.waits.lock().unwrap().pop_front().flatten();
        let result = delay.map_or_else(
            || ProbeLeaseResult::Granted(Box::new(RecordedLease(Arc::clone(&self.rests)))),
            ProbeLeaseResult::HeldElsewhere,
        );
        Box::pin(std::future::ready(result))
    }
}

#[actix_rt::test(system = "Paused")]
async fn probe_needs_a_lease_and_releases_it_with_a_delay_for_peers() {
    let coordinator = Arc::new(ScriptedCoordinator::default());
    coordinator
        .waits
        .lock()
        .unwrap()
        .extend([Some(s(7)), None, None]);
    let bench = ProviderBench::standalone(BenchOptions {
        probe_coordinator: Some(coordinator.clone()),
        ..BenchOptions::new("a")
    });
    bench
        .client
        .set_probe_scripts([fail_with(FaultKind::ServerError), reply("pong")]);
    for _ in 0..5 {
        call(&bench, failed(FaultKind::ServerError, None)).await;
    }
    advance(s(12)).await;
    assert_eq!(bench.client.probes().len(), 0, "a peer is probing");
    assert_eq!(bench.status().await.state, ProviderState::HalfOpen);
    advance(s(8)).await;
    assert_eq!(bench.client.probes().len(), 1);
    let rests = || coordinator.rests.lock().unwrap().clone();
    assert_eq!(
        rests(),
        [s(18)],
        "a fifth of ten seconds before its own next probe"
    );
    advance(s(21)).await;
    assert_eq!(bench.status().await.state, ProviderState::Closed);
    assert_eq!(
        (bench.client.probes().len(), rests()),
        (2, vec![s(18), s(10)])
    );
}

#[actix_rt::test(system = "Paused")]
async fn blocked_provider_without_a_lease_waits_for_the_peers_result() {
    let coordinator = Arc::new(ScriptedCoordinator::default());
    coordinator.waits.lock().unwrap().extend([Some(s(55)); 3]);
    let bench = ProviderBench::standalone(BenchOptions {
        probe_coordinator: Some(coordinator),
        ..BenchOptions::new("a")
    });
    call(&bench, failed(FaultKind::Unauthorized, None)).await;
    advance(s(150)).await;
    assert_eq!(
        (bench.client.probes().len(), bench.status().await.state),
        (0, ProviderState::Blocked)
    );
    receive(&bench, ProviderEvent::Recovered).await;
    assert!(bench.try_acquire().await.is_ok());
    advance(s(600)).await;
    assert_eq!(bench.client.probes().len(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn outage_drill_publishes_nothing() {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    let terms = fault_injection::DrillSpec {
        fault: config::InjectedFault::Down,
        share: 1.0,
        duration: s(60),
    };
    let drill = bench
        .provider
        .fault_switch
        .start(terms, Clock::start().wall())
        .unwrap();
    for _ in 0..5 {
        call(&bench, failed(FaultKind::Timeout, None)).await;
    }
    assert_eq!(
        (bench.status().await.state, published(&bench)),
        (ProviderState::Open, None)
    );
    bench.provider.fault_switch.stop(&drill);
    bench.actor().send(ClearAfterDrill).await.unwrap();
    bench.provider.fault_switch.mark_recovered();
    assert_eq!(
        (bench.status().await.state, published(&bench)),
        (ProviderState::Closed, None),
        "peers are not reset"
    );
    for _ in 0..5 {
        call(&bench, failed(FaultKind::Timeout, None)).await;
    }
    assert!(
        matches!(published(&bench), Some(ProviderEvent::Opened { .. })),
        "real failures are published again"
    );
}
