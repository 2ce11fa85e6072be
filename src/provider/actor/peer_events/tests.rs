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

async fn call(stand: &ProviderBench, outcome: CallOutcome) {
    stand.try_acquire().await.unwrap().complete(outcome);
    run_until_idle().await;
}

/// Returns the event that was published last.
fn published(stand: &ProviderBench) -> Option<ProviderEvent> {
    *stand.provider.events.borrow()
}

async fn receive(stand: &ProviderBench, news: ProviderEvent) {
    stand.actor().send(ApplyPeerEvent(news)).await.unwrap();
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
    let stand = ProviderBench::standalone(BenchOptions::new("a"));
    stand
        .client
        .set_probe_scripts([fail_with(FaultKind::Timeout), reply("pong")]);
    call(&stand, CallOutcome::Success).await;
    call(&stand, failed(FaultKind::BadRequest, None)).await;
    for _ in 0..4 {
        call(&stand, failed(FaultKind::Timeout, None)).await;
    }
    assert_eq!(published(&stand), None);
    call(&stand, failed(FaultKind::Timeout, None)).await;
    let trip = ProviderEvent::Opened {
        is_blocked: false,
        fault: Some(FaultKind::Timeout),
        failed_probes: 0,
        duration: s(10),
    };
    assert_eq!(published(&stand), Some(trip));
    advance(s(11)).await;
    let again = ProviderEvent::Opened {
        is_blocked: false,
        fault: Some(FaultKind::Timeout),
        failed_probes: 1,
        duration: s(20),
    };
    assert_eq!(published(&stand), Some(again), "the probe failed");
    advance(s(21)).await;
    assert_eq!(published(&stand), Some(ProviderEvent::Recovered));
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_is_published_once_and_so_is_a_reset() {
    let stand = ProviderBench::standalone(BenchOptions::new("a"));
    let under_way = [
        stand.try_acquire().await.unwrap(),
        stand.try_acquire().await.unwrap(),
    ];
    call(&stand, failed(FaultKind::RateLimited, Some(s(30)))).await;
    assert_eq!(
        published(&stand),
        Some(ProviderEvent::RateLimited { duration: s(30) })
    );
    let mut events = stand.provider.events.clone();
    events.borrow_and_update();
    for permit in under_way {
        permit.complete(failed(FaultKind::RateLimited, Some(s(30))));
    }
    run_until_idle().await;
    assert!(
        !events.has_changed().unwrap(),
        "running calls report the same rate limit"
    );
    stand.actor().send(ResetBreaker).await.unwrap();
    assert_eq!(published(&stand), Some(ProviderEvent::Reset));
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
        let stand = ProviderBench::standalone(BenchOptions::new("a"));
        receive(&stand, tripped(blocked, fault)).await;
        let status = stand.status().await;
        assert_eq!(
            (status.state, published(&stand)),
            (state, None),
            "{fault:?}"
        );
        assert_eq!(
            stand.try_acquire().await.is_ok(),
            state == ProviderState::Closed
        );
        if state == ProviderState::Closed {
            call(&stand, failed(FaultKind::Reset, None)).await;
            assert_eq!(
                stand.status().await.state,
                ProviderState::Open,
                "warned by {fault:?}"
            );
            continue;
        }
        assert_eq!(status.last_fault, Some(fault));
        receive(&stand, ProviderEvent::Recovered).await;
        assert_eq!(
            (stand.status().await.state, published(&stand)),
            (ProviderState::Closed, None)
        );
        assert_eq!(
            (stand.client.probes().len(), stand.client.calls().len()),
            (0, 0)
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_of_a_peer_is_waited_out_and_not_published_again() {
    let stand = ProviderBench::standalone(BenchOptions::new("a"));
    receive(&stand, ProviderEvent::RateLimited { duration: s(30) }).await;
    assert!(stand.status().await.retry_at.is_some() && stand.try_acquire().await.is_err());
    assert_eq!(published(&stand), None);
    // Up to a fifth of the open time later, so that not all instances resume at once.
    advance(s(32)).await;
    assert!(stand.try_acquire().await.is_ok());
    receive(
        &stand,
        ProviderEvent::RateLimited {
            duration: Duration::MAX,
        },
    )
    .await;
    advance(s(24 * 3_600 + 2)).await;
    assert!(stand.try_acquire().await.is_ok(), "clamped to a day");
    receive(&stand, ProviderEvent::RateLimited { duration: s(600) }).await;
    receive(&stand, ProviderEvent::Reset).await;
    assert!(stand.try_acquire().await.is_ok());
}

#[actix_rt::test(system = "Paused")]
async fn peer_spend_counts_towards_the_budget_and_never_decreases() {
    let terms = ProviderPricing {
        prices: Some((1.0, 2.0)),
        daily_budget_usd: Some(1.0),
    };
    let stand = ProviderBench::standalone(BenchOptions {
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
        stand.actor().send(message).await.unwrap();
        assert_eq!(stand.try_acquire().await.is_ok(), admitted, "{message:?}");
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
    let stand = ProviderBench::standalone(BenchOptions {
        probe_coordinator: Some(coordinator.clone()),
        ..BenchOptions::new("a")
    });
    stand
        .client
        .set_probe_scripts([fail_with(FaultKind::ServerError), reply("pong")]);
    for _ in 0..5 {
        call(&stand, failed(FaultKind::ServerError, None)).await;
    }
    advance(s(12)).await;
    assert_eq!(stand.client.probes().len(), 0, "a peer is probing");
    assert_eq!(stand.status().await.state, ProviderState::HalfOpen);
    advance(s(8)).await;
    assert_eq!(stand.client.probes().len(), 1);
    let rests = || coordinator.rests.lock().unwrap().clone();
    assert_eq!(
        rests(),
        [s(18)],
        "a fifth of ten seconds before its own next probe"
    );
    advance(s(21)).await;
    assert_eq!(stand.status().await.state, ProviderState::Closed);
    assert_eq!(
        (stand.client.probes().len(), rests()),
        (2, vec![s(18), s(10)])
    );
}

#[actix_rt::test(system = "Paused")]
async fn blocked_provider_without_a_lease_waits_for_the_peers_result() {
    let coordinator = Arc::new(ScriptedCoordinator::default());
    coordinator.waits.lock().unwrap().extend([Some(s(55)); 3]);
    let stand = ProviderBench::standalone(BenchOptions {
        probe_coordinator: Some(coordinator),
        ..BenchOptions::new("a")
    });
    call(&stand, failed(FaultKind::Unauthorized, None)).await;
    advance(s(150)).await;
    assert_eq!(
        (stand.client.probes().len(), stand.status().await.state),
        (0, ProviderState::Blocked)
    );
    receive(&stand, ProviderEvent::Recovered).await;
    assert!(stand.try_acquire().await.is_ok());
    advance(s(600)).await;
    assert_eq!(stand.client.probes().len(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn outage_drill_publishes_nothing() {
    let stand = ProviderBench::standalone(BenchOptions::new("a"));
    let terms = fault_injection::DrillSpec {
        fault: config::InjectedFault::Down,
        share: 1.0,
        duration: s(60),
    };
    let drill = stand
        .provider
        .fault_switch
        .start(terms, Clock::start().wall())
        .unwrap();
    for _ in 0..5 {
        call(&stand, failed(FaultKind::Timeout, None)).await;
    }
    assert_eq!(
        (stand.status().await.state, published(&stand)),
        (ProviderState::Open, None)
    );
    stand.provider.fault_switch.stop(&drill);
    stand.actor().send(ClearAfterDrill).await.unwrap();
    stand.provider.fault_switch.mark_recovered();
    assert_eq!(
        (stand.status().await.state, published(&stand)),
        (ProviderState::Closed, None),
        "peers are not reset"
    );
    for _ in 0..5 {
        call(&stand, failed(FaultKind::Timeout, None)).await;
    }
    assert!(
        matches!(published(&stand), Some(ProviderEvent::Opened { .. })),
        "real failures are published again"
    );
}
