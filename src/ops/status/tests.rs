//! The next provider, incidents and the saved service lifetime.

use super::*;
use crate::config::{ConfigEnum as _, Settings};
use crate::provider::cost::ProviderPricing;
use crate::provider::paused_system::Paused;
use crate::provider::test_bench::{BenchOptions, ProviderBench};
use crate::store::{DocumentStore as _, MemoryStore};

fn means(
    providers: &Arc<[Arc<Provider>]>,
    strategy: RoutingStrategy,
    store: &Arc<MemoryStore>,
) -> StatusDeps {
    let store = Arc::clone(store);
    let mut settings = Settings::default();
    settings.routing.strategy = strategy;
    let config = RuntimeConfig::new(settings.into(), Arc::clone(providers));
    let published = watch::channel(Arc::new(config)).1;
    StatusDeps {
        config: published,
        store,
        clock: Clock::start(),
        random_u64: || 7,
    }
}

/// The next provider under each strategy, in the order of `Strategy::ALL`.
fn next_providers(benches: &[ProviderBench]) -> Vec<String> {
    let providers: Arc<[_]> = benches
        .iter()
        .map(|bench| Arc::clone(&bench.provider))
        .collect();
    let next = |strategy: &RoutingStrategy| {
        let publisher = StatusPublisher::new(
            means(&providers, *strategy, &Arc::default()),
            RestoredHistory::default(),
        );
        let active = publisher.subscribe().borrow().active.clone();
        active.map(|name| name.to_string()).unwrap_or_default()
    };
    RoutingStrategy::ALL.iter().map(next).collect()
}

#[actix_rt::test(system = "Paused")]
async fn the_next_provider_depends_on_the_strategy() {
    let plans = [("a", 1, 3.0, 900), ("b", 5, 2.0, 300), ("c", 5, 1.0, 600)];
    let mut benches = Vec::new();
    for (name, weight, price, ms) in plans {
        let terms = ProviderPricing {
            prices: Some((price, price)),
            daily_budget_usd: None,
        };
        let bench = ProviderBench::standalone(BenchOptions {
            weight,
            pricing: terms,
            ..BenchOptions::new(name)
        });
        bench
            .try_acquire()
            .await
            .unwrap()
            .record_first_token(Duration::from_millis(ms));
        bench.status().await;
        benches.push(bench);
    }
    // priority, weighted, round_robin, fastest, cheapest
    assert_eq!(next_providers(&benches), ["a", "b", "a", "b", "c"]);
    let later = Some(
        Clock::start()
            .wall()
            .saturating_add(Duration::from_secs(3_600)),
    );
    let open = ProviderStatus {
        state: ProviderState::Open,
        retry_at: later,
        ..ProviderStatus::default()
    };
    benches[0] = ProviderBench::standalone(BenchOptions {
        initial_status: open.clone(),
        ..BenchOptions::new("a")
    });
    benches[0].status().await;
    assert_eq!(next_providers(&benches), ["b", "b", "b", "b", "c"]);
    for index in [1, 2] {
        benches[index] = ProviderBench::standalone(BenchOptions {
            initial_status: open.clone(),
            ..BenchOptions::new("b")
        });
        benches[index].status().await;
    }
    assert_eq!(next_providers(&benches), [""; 5]);
}

/// Polls once a second for `times` seconds and returns the status after that.
async fn poll_for(publisher: &mut StatusPublisher, times: u32) -> Arc<StatusView> {
    for _ in 0..times {
        tokio::time::advance(Duration::from_secs(1)).await;
        publisher.poll();
    }
    Arc::clone(&publisher.view.borrow())
}

#[actix_rt::test(system = "Paused")]
async fn an_incident_is_saved_and_continues_after_a_restart() {
    let later = Some(
        Clock::start()
            .wall()
            .saturating_add(Duration::from_secs(3_600)),
    );
    let open = ProviderStatus {
        state: ProviderState::Open,
        retry_at: later,
        last_fault: Some(crate::domain::FaultKind::Timeout),
        ..ProviderStatus::default()
    };
    let down = ProviderBench::standalone(BenchOptions {
        initial_status: open,
        ..BenchOptions::new("a")
    });
    down.status().await;
    let well = ProviderBench::standalone(BenchOptions::new("a"));
    well.status().await;
    let down: Arc<[_]> = Arc::new([Arc::clone(&down.provider)]);
    let well: Arc<[_]> = Arc::new([Arc::clone(&well.provider)]);
    let store = Arc::new(MemoryStore::default());
    let mut publisher = StatusPublisher::new(
        means(&down, RoutingStrategy::Priority, &store),
        RestoredHistory::default(),
    );
    let reports = publisher.subscribe_history();
    assert_eq!(publisher.subscribe().borrow().incident, None, "debounced");
    let view = poll_for(&mut publisher, 4).await;
    assert_eq!(
        (view.mode, view.incident.as_deref()),
        (ServiceMode::Outage, Some("inc-0000000000000007"))
    );
    let incidents = reports.borrow().incidents.clone();
    assert_eq!(
        (
            incidents[0].id.as_str(),
            incidents[0].mode,
            incidents[0].ended
        ),
        ("inc-0000000000000007", ServiceMode::Outage, None)
    );
    assert_eq!(incidents[0].cause, "a: no answer in time");
    assert_eq!(store.incidents().await.unwrap(), incidents, "saved");

    // The service restarts, and the provider works again.
    let restored = RestoredHistory {
        incidents,
        lifetime: store.service_lifetime().await.unwrap(),
    };
    let mut publisher =
        StatusPublisher::new(means(&well, RoutingStrategy::Priority, &store), restored);
    let view = Arc::clone(&publisher.view.borrow());
    assert_eq!(
        (view.mode, view.incident.as_deref()),
        (ServiceMode::Outage, Some("inc-0000000000000007"))
    );
    let view = poll_for(&mut publisher, 12).await;
    assert_eq!(
        (view.mode, view.incident.as_deref()),
        (ServiceMode::Normal, None)
    );
    let saved = store.incidents().await.unwrap();
    assert!(saved.len() == 1 && saved[0].ended.is_some(), "{saved:?}");
    assert_eq!(publisher.subscribe_history().borrow().incidents, saved);
}

#[test]
fn old_points_are_dropped() {
    let mut trend = LatencyTrend::default();
    (0..100).for_each(|n| trend.record(Some(n)));
    assert_eq!(
        (trend.points.len(), trend.points[0]),
        (MAX_TREND_POINTS, Some(40))
    );
}
