//! The watcher over a state that is set by hand, on a paused clock.

mod instances;

use super::sinks::SinkConfig;
use super::*;
use crate::config::Secret;
use crate::domain::{Incident, ProviderState, ServiceLifetime};
use crate::provider::handle::Provider;
use crate::provider::paused_system::Paused;
use crate::provider::status::ProviderStatus;
use crate::provider::test_bench::{BenchOptions, ProviderBench};
use crate::router::runtime_config::RuntimeConfig;
use crate::store::MemoryStore;
use crate::store::flaky::{FlakyStore, StoreFault};

/// A watcher with one sink that sends nothing, and the state it watches.
struct Watched {
    watcher: AlertWatcher,
    provider_status: watch::Sender<ProviderStatus>,
    view: watch::Sender<Arc<StatusView>>,
    report: watch::Sender<Arc<StatusHistory>>,
    warnings: watch::Sender<Arc<[AlertCondition]>>,
    store: Arc<FlakyStore>,
}

async fn watched(opened_with: &[&str]) -> Watched {
    among(None, opened_with).await
}

/// A watcher among instances with these claims.
async fn among(claims: Option<AlertClaims>, opened_with: &[&str]) -> Watched {
    let bench = ProviderBench::standalone(BenchOptions::new("a"));
    let provider_status = watch::Sender::new(ProviderStatus::default());
    let provider = Arc::into_inner(bench.provider).map(|provider| Provider {
        status: provider_status.subscribe(),
        ..provider
    });
    let view = StatusView {
        mode: ServiceMode::Normal,
        since: Timestamp(0),
        incident: None,
        message: String::new(),
        active: None,
        providers: Vec::new(),
        drill: None,
    };
    let report = StatusHistory {
        incidents: Vec::new(),
        lifetime: ServiceLifetime {
            first_start: Timestamp(0),
            last_seen: Timestamp(0),
        },
        last_provider_change: None,
        latency_trends: std::collections::HashMap::default(),
    };
    let view = watch::Sender::new(Arc::new(view));
    let report = watch::Sender::new(Arc::new(report));
    let store = Arc::new(FlakyStore::wrapping(Arc::new(MemoryStore::default())));
    let settings = Arc::new(Settings::default());
    let config = RuntimeConfig::new(settings, Arc::new([Arc::new(provider.unwrap())]));
    let warnings = watch::Sender::new(Arc::from(Vec::new()));
    let means = AlertDeps {
        config: watch::channel(Arc::new(config)).1,
        status: view.subscribe(),
        history: report.subscribe(),
        warnings: warnings.subscribe(),
        store: Arc::clone(&store) as Arc<dyn Store>,
        startup_problems: opened_with
            .iter()
            .map(|problem| (*problem).to_owned())
            .collect(),
        claims,
        clock: Clock::start(),
        random_u64: || 7,
        random_unit: || 0.5,
    };
    let mut watcher = AlertWatcher::start(means, watch::channel(Arc::from(Vec::new())).0).await;
    let sink = Arc::new(Sink::new(SinkKind::Webhook, AlertQueue::default()));
    let address = SinkConfig {
        kind: SinkKind::Webhook,
        url: Secret::new("http://localhost/"),
        secret: None,
    };
    let task = actix::spawn(std::future::ready(()));
    watcher.running.push(RunningSink {
        sink,
        config: address,
        task,
    });
    Watched {
        watcher,
        provider_status,
        view,
        report,
        warnings,
        store,
    }
}

impl Watched {
    /// Advances the clock, polling as usual, and returns the alerts sent meanwhile.
    async fn after(&mut self, time: Duration) -> Vec<Alert> {
        let polls = time.as_millis() / POLL_INTERVAL.as_millis();
        for _ in 0..polls {
            tokio::time::advance(POLL_INTERVAL).await;
            self.watcher.poll().await;
        }
        let sink = &self.watcher.running[0].sink;
        std::iter::from_fn(|| sink.pop_delivered()).collect()
    }

    fn provider(&self, state: ProviderState) {
        self.provider_status
            .send_modify(|provider_status| provider_status.state = state);
    }

    fn mode(&self, mode: ServiceMode, incident: Option<&str>) {
        self.report.send_modify(|report| {
            let started = Incident {
                id: "inc-1".into(),
                mode,
                started: Timestamp(1),
                ended: incident.is_none().then_some(Timestamp(2)),
                cause: "a: it cannot be reached".into(),
            };
            Arc::make_mut(report).incidents = vec![started];
        });
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            view.mode = mode;
            view.incident = incident.map(str::to_owned);
        });
    }
}

fn events(alerts: &[Alert]) -> Vec<(&'static str, Option<&str>)> {
    alerts
        .iter()
        .map(|alert| (alert.event, alert.incident.as_deref()))
        .collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[actix_rt::test(system = "Paused")]
async fn an_alert_waits_for_its_incident_but_not_for_long() {
    let mut watched = watched(&[]).await;
    assert_eq!(watched.after(SECOND).await, []);
    watched.provider(ProviderState::Open);
    assert_eq!(watched.after(SECOND).await, []);
    watched.mode(ServiceMode::Outage, Some("inc-1"));
    let alerts = watched.after(SECOND).await;
    assert_eq!(
        events(&alerts),
        [
            ("provider_down", Some("inc-1")),
            ("mode_changed", Some("inc-1"))
        ]
    );
    assert_eq!(alerts[1].reason.as_deref(), Some("a: it cannot be reached"));
    watched.provider(ProviderState::HalfOpen);
    assert_eq!(
        watched.after(SECOND).await,
        [],
        "half-open is neither down nor back"
    );
    watched.provider(ProviderState::Closed);
    assert_eq!(
        events(&watched.after(SECOND).await),
        [("provider_up", Some("inc-1"))]
    );
    watched.mode(ServiceMode::Normal, None);
    let alerts = watched.after(SECOND).await;
    assert_eq!(
        (events(&alerts), alerts[0].mode),
        (vec![("mode_changed", Some("inc-1"))], ServiceMode::Normal)
    );
    // An alert without an incident is sent after the grace period.
    watched.after(SECOND * 600).await;
    watched.provider(ProviderState::Blocked);
    assert_eq!(
        events(&watched.after(SECOND * 3).await),
        [("provider_down", None)]
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_hundred_flaps_yield_three_alerts() {
    let mut watched = watched(&[]).await;
    let mut alerts = Vec::new();
    for _ in 0..100 {
        watched.provider(ProviderState::Open);
        alerts.extend(watched.after(SECOND).await);
        watched.provider(ProviderState::Closed);
        alerts.extend(watched.after(SECOND).await);
    }
    alerts.extend(watched.after(SECOND * 600).await);
    let names: Vec<_> = alerts.iter().map(|alert| alert.event).collect();
    assert_eq!(names, ["provider_down", "provider_up", "provider_flapped"]);
    assert!(alerts[2].held_back >= 98, "{}", alerts[2].text);
}

#[actix_rt::test(system = "Paused")]
async fn store_failures_and_startup_problems_are_sent() {
    let mut watched = watched(&[]).await;
    watched.store.set_fault(StoreFault::Failing);
    assert_eq!(
        events(&watched.after(SECOND).await),
        [("store_failed", None)]
    );
    watched.store.set_fault(StoreFault::None);
    assert_eq!(
        events(&watched.after(SECOND).await),
        [("store_recovered", None)]
    );

    let mut watched = self::watched(&["The saved conversations were damaged."]).await;
    // The startup problem is sent once, and the replacement store works.
    let alerts = watched.after(SECOND).await;
    assert_eq!(
        events(&alerts),
        [("store_failed", None), ("store_recovered", None)]
    );
    assert_eq!(alerts[0].text, "The saved conversations were damaged.");
    assert_eq!(watched.after(SECOND * 600).await, []);
}

#[actix_rt::test(system = "Paused")]
async fn a_spent_budget_is_sent_and_is_no_outage_of_the_provider() {
    let mut watched = watched(&[]).await;
    let midnight = watched
        .watcher
        .deps
        .clock
        .wall()
        .saturating_add(SECOND * 3_600);
    watched
        .provider_status
        .send_modify(|provider_status| provider_status.budget_resets_at = Some(midnight));
    let alerts = watched.after(SECOND * 3).await;
    assert_eq!(events(&alerts), [("budget_spent", None)]);
    assert_eq!(
        (alerts[0].provider.as_deref(), alerts[0].reason.as_deref()),
        (Some("a"), Some("budget_spent"))
    );
}

#[actix_rt::test(system = "Paused")]
async fn an_early_warning_is_sent_and_cleared() {
    let mut watched = watched(&[]).await;
    let warn = |watched: &Watched, level: u8| {
        let finding = AlertCondition {
            subject: AlertSubject::Warning(super::super::AnomalyMetric::FirstToken),
            severity: level,
            reason: (level > 0)
                .then(|| "first_token_p95: Usual is 1.0 s; now it is 4.0 s.".to_owned()),
            description: "Usual is 1.0 s; now it is 4.0 s.".to_owned(),
            is_drill: false,
        };
        watched.warnings.send_replace(Arc::from(vec![finding]));
    };
    warn(&watched, 1);
    let alerts = watched.after(SECOND).await;
    assert_eq!(events(&alerts), [("early_warning", None)]);
    assert!(
        alerts[0].text.contains("Usual is 1.0 s")
            && alerts[0].reason.as_ref().unwrap().contains("p95")
    );
    warn(&watched, 0);
    assert_eq!(
        events(&watched.after(SECOND).await),
        [("early_warning_over", None)]
    );
}
