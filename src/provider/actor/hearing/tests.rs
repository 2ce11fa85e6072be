//! Events that an instance publishes, events of its peers, and probe leases.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Hear, SpentElsewhere};
use crate::chat::{Fault, ProviderState};
use crate::provider::actor::{DrillOver, Reset};
use crate::provider::backend::Clock;
use crate::provider::breaker::Verdict;
use crate::provider::drill;
use crate::provider::leave::{Held, Leave, Probing};
use crate::provider::news::News;
use crate::provider::paused::{Paused, pass, settled};
use crate::provider::scripted::{fails, says};
use crate::provider::spending::{self, Spent, Terms};
use crate::provider::stand::{Plan, Stand};
use crate::settings;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failed(fault: Fault, retry_after: Option<Duration>) -> Verdict {
    Verdict::Failed {
        fault,
        started: false,
        retry_after,
    }
}

async fn call(stand: &Stand, outcome: Verdict) {
    stand.admit().await.unwrap().settle(outcome);
    settled().await;
}

/// Returns the event that was published last.
fn published(stand: &Stand) -> Option<News> {
    *stand.backend.voice.borrow()
}

async fn receive(stand: &Stand, news: News) {
    stand.actor().send(Hear(news)).await.unwrap();
}

fn tripped(blocked: bool, fault: Fault) -> News {
    News::Tripped {
        blocked,
        fault: Some(fault),
        strikes: 0,
        lasts: s(10),
    }
}

#[actix_rt::test(system = "Paused")]
async fn transitions_are_published_and_single_failures_are_not() {
    let stand = Stand::alone(Plan::new("a"));
    stand
        .upstream
        .follow_when_probed([fails(Fault::Timeout), says("pong")]);
    call(&stand, Verdict::Whole).await;
    call(&stand, failed(Fault::BadRequest, None)).await;
    for _ in 0..4 {
        call(&stand, failed(Fault::Timeout, None)).await;
    }
    assert_eq!(published(&stand), None);
    call(&stand, failed(Fault::Timeout, None)).await;
    let trip = News::Tripped {
        blocked: false,
        fault: Some(Fault::Timeout),
        strikes: 0,
        lasts: s(10),
    };
    assert_eq!(published(&stand), Some(trip));
    pass(s(11)).await;
    let again = News::Tripped {
        blocked: false,
        fault: Some(Fault::Timeout),
        strikes: 1,
        lasts: s(20),
    };
    assert_eq!(published(&stand), Some(again), "the probe failed");
    pass(s(21)).await;
    assert_eq!(published(&stand), Some(News::Well));
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_is_published_once_and_so_is_a_reset() {
    let stand = Stand::alone(Plan::new("a"));
    let under_way = [stand.admit().await.unwrap(), stand.admit().await.unwrap()];
    call(&stand, failed(Fault::RateLimited, Some(s(30)))).await;
    assert_eq!(published(&stand), Some(News::Limited { lasts: s(30) }));
    let mut events = stand.backend.voice.clone();
    events.borrow_and_update();
    for permit in under_way {
        permit.settle(failed(Fault::RateLimited, Some(s(30))));
    }
    settled().await;
    assert!(
        !events.has_changed().unwrap(),
        "running calls report the same rate limit"
    );
    stand.actor().send(Reset).await.unwrap();
    assert_eq!(published(&stand), Some(News::Reset));
}

#[actix_rt::test(system = "Paused")]
async fn peer_events_are_applied_and_not_published_again() {
    for (fault, blocked, state) in [
        (Fault::Unauthorized, true, ProviderState::Blocked),
        (Fault::QuotaSpent, true, ProviderState::Blocked),
        (Fault::Misconfigured, false, ProviderState::Open),
        (Fault::ServerError, false, ProviderState::Open),
        (Fault::Overloaded, false, ProviderState::Open),
        (Fault::Unreachable, false, ProviderState::Closed),
        (Fault::Timeout, false, ProviderState::Closed),
        (Fault::Reset, false, ProviderState::Closed),
    ] {
        let stand = Stand::alone(Plan::new("a"));
        receive(&stand, tripped(blocked, fault)).await;
        let status = stand.vitals().await;
        assert_eq!(
            (status.state, published(&stand)),
            (state, None),
            "{fault:?}"
        );
        assert_eq!(stand.admit().await.is_ok(), state == ProviderState::Closed);
        if state == ProviderState::Closed {
            call(&stand, failed(Fault::Reset, None)).await;
            assert_eq!(
                stand.vitals().await.state,
                ProviderState::Open,
                "warned by {fault:?}"
            );
            continue;
        }
        assert_eq!(status.reason, Some(fault));
        receive(&stand, News::Well).await;
        assert_eq!(
            (stand.vitals().await.state, published(&stand)),
            (ProviderState::Closed, None)
        );
        assert_eq!(
            (stand.upstream.probes().len(), stand.upstream.calls().len()),
            (0, 0)
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn rate_limit_of_a_peer_is_waited_out_and_not_published_again() {
    let stand = Stand::alone(Plan::new("a"));
    receive(&stand, News::Limited { lasts: s(30) }).await;
    assert!(stand.vitals().await.retry_at.is_some() && stand.admit().await.is_err());
    assert_eq!(published(&stand), None);
    // Up to a fifth of the open time later, so that not all instances resume at once.
    pass(s(32)).await;
    assert!(stand.admit().await.is_ok());
    receive(
        &stand,
        News::Limited {
            lasts: Duration::MAX,
        },
    )
    .await;
    pass(s(24 * 3_600 + 2)).await;
    assert!(stand.admit().await.is_ok(), "clamped to a day");
    receive(&stand, News::Limited { lasts: s(600) }).await;
    receive(&stand, News::Reset).await;
    assert!(stand.admit().await.is_ok());
}

#[actix_rt::test(system = "Paused")]
async fn peer_spend_counts_towards_the_budget_and_never_decreases() {
    let terms = Terms {
        prices: Some((1.0, 2.0)),
        daily_budget_usd: Some(1.0),
    };
    let stand = Stand::alone(Plan {
        terms,
        ..Plan::new("a")
    });
    let today = spending::day_of(Clock::start().wall());
    let others = |day, usd| {
        SpentElsewhere(Spent {
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
        assert_eq!(stand.admit().await.is_ok(), admitted, "{message:?}");
    }
}

/// Answers from a list of delays, and records the released leases.
#[derive(Default)]
struct ScriptedCoordinator {
    waits: Mutex<VecDeque<Option<Duration>>>,
    rests: Arc<Mutex<Vec<Duration>>>,
}

struct RecordedLease(Arc<Mutex<Vec<Duration>>>);

impl Held for RecordedLease {
    fn give_back(self: Box<Self>, rest: Duration) {
        self.0.lock().unwrap().push(rest);
    }
}

impl Probing for ScriptedCoordinator {
    fn ask(&self, _: Duration) -> BoxFuture<'static, Leave> {
        let delay = self.waits.lock().unwrap().pop_front().flatten();
        let result = delay.map_or_else(
            || Leave::Go(Box::new(RecordedLease(Arc::clone(&self.rests)))),
            Leave::Wait,
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
    let stand = Stand::alone(Plan {
        probing: Some(coordinator.clone()),
        ..Plan::new("a")
    });
    stand
        .upstream
        .follow_when_probed([fails(Fault::ServerError), says("pong")]);
    for _ in 0..5 {
        call(&stand, failed(Fault::ServerError, None)).await;
    }
    pass(s(12)).await;
    assert_eq!(stand.upstream.probes().len(), 0, "a peer is probing");
    assert_eq!(stand.vitals().await.state, ProviderState::HalfOpen);
    pass(s(8)).await;
    assert_eq!(stand.upstream.probes().len(), 1);
    let rests = || coordinator.rests.lock().unwrap().clone();
    assert_eq!(
        rests(),
        [s(18)],
        "a fifth of ten seconds before its own next probe"
    );
    pass(s(21)).await;
    assert_eq!(stand.vitals().await.state, ProviderState::Closed);
    assert_eq!(
        (stand.upstream.probes().len(), rests()),
        (2, vec![s(18), s(10)])
    );
}

#[actix_rt::test(system = "Paused")]
async fn blocked_provider_without_a_lease_waits_for_the_peers_result() {
    let coordinator = Arc::new(ScriptedCoordinator::default());
    coordinator.waits.lock().unwrap().extend([Some(s(55)); 3]);
    let stand = Stand::alone(Plan {
        probing: Some(coordinator),
        ..Plan::new("a")
    });
    call(&stand, failed(Fault::Unauthorized, None)).await;
    pass(s(150)).await;
    assert_eq!(
        (stand.upstream.probes().len(), stand.vitals().await.state),
        (0, ProviderState::Blocked)
    );
    receive(&stand, News::Well).await;
    assert!(stand.admit().await.is_ok());
    pass(s(600)).await;
    assert_eq!(stand.upstream.probes().len(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn outage_drill_publishes_nothing() {
    let stand = Stand::alone(Plan::new("a"));
    let terms = drill::Terms {
        fault: settings::Fault::Down,
        share: 1.0,
        lasts: s(60),
    };
    let drill = stand
        .backend
        .drills
        .begin(terms, Clock::start().wall())
        .unwrap();
    for _ in 0..5 {
        call(&stand, failed(Fault::Timeout, None)).await;
    }
    assert_eq!(
        (stand.vitals().await.state, published(&stand)),
        (ProviderState::Open, None)
    );
    stand.backend.drills.end(&drill);
    stand.actor().send(DrillOver).await.unwrap();
    stand.backend.drills.lifted();
    assert_eq!(
        (stand.vitals().await.state, published(&stand)),
        (ProviderState::Closed, None),
        "peers are not reset"
    );
    for _ in 0..5 {
        call(&stand, failed(Fault::Timeout, None)).await;
    }
    assert!(
        matches!(published(&stand), Some(News::Tripped { .. })),
        "real failures are published again"
    );
}
