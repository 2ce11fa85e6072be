//! Computes the service's status and publishes it on a `watch`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::incidents::IncidentLog;
use super::mode::{ModeDebouncer, current_mode};
use crate::config::RoutingStrategy;
use crate::domain::{
    DrillView, Incident, ProviderState, ProviderView, ServiceLifetime, ServiceMode, StatusView,
    Timestamp,
};
use crate::provider::clock::Clock;
use crate::provider::handle::Provider;
use crate::provider::status::ProviderStatus;
use crate::router::actor::to_candidate;
use crate::router::ordering::{self, Candidate, OrderBy, RoutingConstraints};
use crate::router::runtime_config::{ConfigWatch, RuntimeConfig};
use crate::store::Store;

/// Short enough for a page to show a change at once, long enough to cost nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub const TREND_INTERVAL: Duration = Duration::from_secs(30);

/// Half an hour of points.
pub const MAX_TREND_POINTS: usize = 60;

/// Incidents, the last change of the active provider, and recent latencies.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusHistory {
    /// All saved incidents, newest first.
    pub incidents: Vec<Incident>,
    pub lifetime: ServiceLifetime,
    /// The last time another provider became the active one.
    pub last_provider_change: Option<ActiveProviderChange>,
    pub latency_trends: HashMap<Arc<str>, LatencyTrend>,
}

/// A change of the provider that the next turn would ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveProviderChange {
    /// `None` if no provider was available.
    pub from: Option<Arc<str>>,
    /// `None` if no provider is available.
    pub to: Option<Arc<str>>,
    pub at: Timestamp,
    /// Why the previous provider was unavailable. `None` if it was available and another one is
    /// preferred.
    pub reason: Option<&'static str>,
}

/// The median time to first token of one provider in milliseconds, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyTrend {
    /// At most [`MAX_TREND_POINTS`]. `None` if the provider had no calls.
    pub points: VecDeque<Option<u64>>,
}

impl LatencyTrend {
    pub fn record(&mut self, median: Option<u64>) {
        if self.points.len() >= MAX_TREND_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(median);
    }
}

/// The sentence shown to visitors, starting with what still works. Names a drill as the cause.
const fn visitor_message(mode: ServiceMode, drill: bool) -> &'static str {
    match (mode, drill) {
        (ServiceMode::Normal, _) => "",
        (ServiceMode::Degraded, false) => "Answers come from a backup model.",
        (ServiceMode::Degraded, true) => {
            "Answers come from a backup model. This is an outage drill."
        }
        (ServiceMode::Outage, false) => "You still get saved and prepared replies.",
        (ServiceMode::Outage, true) => {
            "You still get saved and prepared replies. This is an outage drill."
        }
    }
}

pub struct StatusDeps {
    pub config: ConfigWatch,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub random_u64: fn() -> u64,
}

#[derive(Debug, Default)]
pub struct RestoredHistory {
    pub incidents: Vec<Incident>,
    /// `None` on the first start.
    pub lifetime: Option<ServiceLifetime>,
}

fn incident_id(random: fn() -> u64) -> String {
    format!("inc-{:016x}", random())
}

/// The running drills, in order of provider preference.
pub fn active_drills(providers: &[Arc<Provider>]) -> Vec<DrillView> {
    providers
        .iter()
        .filter_map(|provider| Some(provider.fault_switch.active()?.view(&provider.name)))
        .collect()
}

/// The provider that the next turn would ask.
///
/// Deterministic also for strategies that use chance or turns: the heaviest provider, or the first
/// in turn. The page shows changes, not every draw.
pub fn next_provider(config: &RuntimeConfig, now: Timestamp) -> Option<Arc<str>> {
    let is_available = |provider: &&Arc<Provider>| provider.status.borrow().is_available(now);
    // The value must not change while a provider without latencies is being called.
    let candidate = |provider: &Arc<Provider>| Candidate {
        has_call_in_flight: false,
        ..to_candidate(provider)
    };
    let candidates: Vec<_> = config
        .providers
        .iter()
        .filter(is_available)
        .map(candidate)
        .collect();
    let index = match config.settings.routing.strategy {
        RoutingStrategy::Weighted => {
            let weight = |(index, candidate): &(usize, &Candidate)| {
                (candidate.weight, std::cmp::Reverse(*index))
            };
            candidates.iter().enumerate().max_by_key(weight)?.0
        }
        strategy => {
            let order = OrderBy {
                strategy,
                random: 0.0,
                round_robin_next: 0,
            };
            *ordering::order(&candidates, order, &RoutingConstraints::default(), &[]).first()?
        }
    };
    candidates
        .get(index)
        .map(|candidate| Arc::clone(&candidate.name))
}

/// Lists the unavailable providers and their faults, for operators.
fn outage_cause(
    providers: &[(Arc<str>, ProviderStatus)],
    drills: &[DrillView],
    now: Timestamp,
) -> String {
    let unavailable = providers.iter().filter(|(_, provider_status)| {
        provider_status.state != ProviderState::Disabled && !provider_status.is_available(now)
    });
    let descriptions = unavailable.map(|(name, provider_status)| {
        let is_drill = drills.iter().any(|drill| drill.provider == *name);
        let suffix = if is_drill { " (an outage drill)" } else { "" };
        format!(
            "{name}: {}{suffix}",
            provider_status.describe(now).unwrap_or("not known")
        )
    });
    let descriptions: Vec<_> = descriptions.collect();
    if descriptions.is_empty() {
        "No provider is enabled.".to_owned()
    } else {
        descriptions.join("; ")
    }
}

/// Computes the status on a timer and keeps its history.
pub struct StatusPublisher {
    deps: StatusDeps,
    debouncer: ModeDebouncer,
    incidents: IncidentLog,
    view: watch::Sender<Arc<StatusView>>,
    history: watch::Sender<Arc<StatusHistory>>,
}

impl StatusPublisher {
    /// Starts with the status last shown: an open incident continues until the mode is normal.
    pub fn new(means: StatusDeps, past: RestoredHistory) -> Self {
        let now = means.clock.wall();
        let mut incidents = IncidentLog::restore(past.incidents);
        let life = past.lifetime.unwrap_or(ServiceLifetime {
            first_start: now,
            last_seen: now,
        });
        let downtime = incidents.record_downtime(life, now, || incident_id(means.random_u64));
        let open = incidents.running();
        let mode = open.map_or(ServiceMode::Normal, |incident| incident.mode);
        let view = StatusView {
            mode,
            since: open.map_or(now, |incident| incident.started),
            incident: open.map(|incident| incident.id.clone()),
            message: visitor_message(mode, false).to_owned(),
            active: None,
            providers: Vec::new(),
            drill: None,
        };
        let report = StatusHistory {
            incidents: incidents.newest_first().cloned().collect(),
            lifetime: ServiceLifetime {
                last_seen: now,
                ..life
            },
            last_provider_change: None,
            latency_trends: HashMap::new(),
        };
        let view = watch::Sender::new(Arc::new(view));
        let report = watch::Sender::new(Arc::new(report));
        let mut publisher = Self {
            deps: means,
            debouncer: ModeDebouncer::starting_at(mode),
            incidents,
            view,
            history: report,
        };
        if let Some(downtime) = downtime {
            publisher.save_incident(downtime);
        }
        publisher.poll();
        publisher
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<StatusView>> {
        self.view.subscribe()
    }

    pub fn subscribe_history(&self) -> watch::Receiver<Arc<StatusHistory>> {
        self.history.subscribe()
    }

    pub async fn run(mut self) {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        let mut trends = tokio::time::interval(TREND_INTERVAL);
        loop {
            tokio::select! {
                _ = poll.tick() => self.poll(),
                _ = trends.tick() => self.record_trends(),
            }
        }
    }

    fn poll(&mut self) {
        let now = self.deps.clock.wall();
        let config = Arc::clone(&self.deps.config.borrow());
        let providers: Vec<(Arc<str>, ProviderStatus)> = config
            .providers
            .iter()
            .map(|provider| (Arc::clone(&provider.name), provider.status.borrow().clone()))
            .collect();
        let seen = current_mode(
            config.settings.routing.strategy,
            providers.iter().map(|(_, provider_status)| provider_status),
            now,
        );
        let mode = self.debouncer.update(seen, self.deps.clock.now());
        let random = self.deps.random_u64;
        let drills = active_drills(&config.providers);
        let changed = self.incidents.observe(
            mode,
            now,
            || outage_cause(&providers, &drills, now),
            || incident_id(random),
        );
        let before = Arc::clone(&self.view.borrow());
        let active = next_provider(&config, now);
        let switched = (active != before.active && !before.providers.is_empty()).then(|| {
            let previous = providers
                .iter()
                .find(|(name, _)| before.active.as_ref() == Some(name));
            let unavailable =
                previous.filter(|(_, provider_status)| !provider_status.is_available(now));
            ActiveProviderChange {
                from: before.active.clone(),
                to: active.clone(),
                at: now,
                reason: unavailable.and_then(|(_, provider_status)| provider_status.describe(now)),
            }
        });
        let mut view = StatusView {
            active,
            providers: providers
                .into_iter()
                .map(|(name, provider_status)| ProviderView {
                    name,
                    state: provider_status.state,
                })
                .collect(),
            message: visitor_message(mode, !drills.is_empty()).to_owned(),
            drill: drills.into_iter().next(),
            ..StatusView::clone(&before)
        };
        if mode != before.mode {
            view.mode = mode;
            view.since = now;
            view.incident = self.incidents.running().map(|incident| incident.id.clone());
            tracing::info!(mode = ?mode, incident = view.incident, "mode changed");
        }
        if changed.is_some() || switched.is_some() {
            self.history.send_modify(|report| {
                let report = Arc::make_mut(report);
                report.incidents = self.incidents.newest_first().cloned().collect();
                report.last_provider_change = switched.or(report.last_provider_change.take());
            });
        }
        // Publish the history first: a subscriber of the status looks up its incident there.
        if view != *before {
            self.view.send_replace(Arc::new(view));
        }
        if let Some(changed) = changed {
            self.save_incident(changed);
        }
    }

    /// Records a latency point per provider, and that the service is running.
    fn record_trends(&mut self) {
        let config = Arc::clone(&self.deps.config.borrow());
        let mut life = self.history.borrow().lifetime;
        life.last_seen = self.deps.clock.wall();
        self.history.send_modify(|report| {
            let report = Arc::make_mut(report);
            report.lifetime = life;
            report
                .latency_trends
                .retain(|name, _| config.provider(name).is_some());
            for provider in config.providers.iter() {
                let median = provider
                    .status
                    .borrow()
                    .first_token_latency
                    .map(|latency| latency.p50);
                report
                    .latency_trends
                    .entry(Arc::clone(&provider.name))
                    .or_default()
                    .record(median);
            }
        });
        // The write is queued when the call returns, and the store reports its own failures.
        drop(self.deps.store.save_service_lifetime(life));
    }

    /// Starts saving an incident. It is shown even if that fails.
    fn save_incident(&self, incident: Incident) {
        drop(self.deps.store.write_incident(incident));
    }
}

#[cfg(test)]
mod tests;
