//! Computes the service's status and publishes it on a `watch`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::incidents::Incidents;
use super::mode::{Held, mode_of};
use super::report::{Report, Switch, TREND_EVERY};
use crate::chat::{At, DrillView, Incident, Life, Mode, ProviderState, ProviderView, StatusView};
use crate::provider::backend::{Backend, Clock, Vitals};
use crate::router::actor::candidate;
use crate::router::rank::{self, Candidate, Order, Wish};
use crate::router::table::{Published, Table};
use crate::settings::Strategy;
use crate::store::Store;

/// Short enough for a page to show a change at once, long enough to cost nothing.
const LOOK: Duration = Duration::from_millis(200);

/// The sentence shown to visitors, starting with what still works. Names a drill as the cause.
const fn message(mode: Mode, drill: bool) -> &'static str {
    match (mode, drill) {
        (Mode::Normal, _) => "",
        (Mode::Degraded, false) => "Answers come from a backup model.",
        (Mode::Degraded, true) => "Answers come from a backup model. This is an outage drill.",
        (Mode::Outage, false) => "You still get saved and prepared replies.",
        (Mode::Outage, true) => {
            "You still get saved and prepared replies. This is an outage drill."
        }
    }
}

pub struct Means {
    pub published: Published,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub random: fn() -> u64,
}

#[derive(Debug, Default)]
pub struct Past {
    pub incidents: Vec<Incident>,
    /// `None` on the first start.
    pub life: Option<Life>,
}

fn id(random: fn() -> u64) -> String {
    format!("inc-{:016x}", random())
}

/// The running drills, in order of provider preference.
pub fn drills(backends: &[Arc<Backend>]) -> Vec<DrillView> {
    backends
        .iter()
        .filter_map(|provider| Some(provider.drills.running()?.view(&provider.name)))
        .collect()
}

/// The provider that the next turn would ask.
///
/// Deterministic also for strategies that use chance or turns: the heaviest provider, or the first
/// in turn. The page shows changes, not every draw.
pub fn active(config: &Table, now: At) -> Option<Arc<str>> {
    let is_available = |provider: &&Arc<Backend>| provider.vitals.borrow().can_be_asked(now);
    // The value must not change while a provider without latencies is being called.
    let candidate = |provider: &Arc<Backend>| Candidate {
        asked: false,
        ..candidate(provider)
    };
    let candidates: Vec<_> = config
        .backends
        .iter()
        .filter(is_available)
        .map(candidate)
        .collect();
    let index = match config.settings.routing.strategy {
        Strategy::Weighted => {
            let weight = |(index, candidate): &(usize, &Candidate)| {
                (candidate.weight, std::cmp::Reverse(*index))
            };
            candidates.iter().enumerate().max_by_key(weight)?.0
        }
        strategy => {
            let order = Order {
                strategy,
                chance: 0.0,
                turn_of: 0,
            };
            *rank::order(&candidates, order, &Wish::default(), &[]).first()?
        }
    };
    candidates
        .get(index)
        .map(|candidate| Arc::clone(&candidate.name))
}

/// Lists the unavailable providers and their faults, for operators.
fn cause(providers: &[(Arc<str>, Vitals)], drills: &[DrillView], now: At) -> String {
    let unavailable = providers
        .iter()
        .filter(|(_, vitals)| vitals.state != ProviderState::Disabled && !vitals.can_be_asked(now));
    let descriptions = unavailable.map(|(name, vitals)| {
        let is_drill = drills.iter().any(|drill| drill.provider == *name);
        let suffix = if is_drill { " (an outage drill)" } else { "" };
        format!(
            "{name}: {}{suffix}",
            vitals.words(now).unwrap_or("not known")
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
pub struct StatusBoard {
    means: Means,
    held: Held,
    incidents: Incidents,
    view: watch::Sender<Arc<StatusView>>,
    report: watch::Sender<Arc<Report>>,
}

impl StatusBoard {
    /// Starts with the status last shown: an open incident continues until the mode is normal.
    pub fn new(means: Means, past: Past) -> Self {
        let now = means.clock.wall();
        let mut incidents = Incidents::recalled(past.incidents);
        let life = past.life.unwrap_or(Life {
            first: now,
            last: now,
        });
        let downtime = incidents.back(life, now, || id(means.random));
        let open = incidents.running();
        let mode = open.map_or(Mode::Normal, |incident| incident.mode);
        let view = StatusView {
            mode,
            since: open.map_or(now, |incident| incident.started),
            incident: open.map(|incident| incident.id.clone()),
            message: message(mode, false).to_owned(),
            active: None,
            providers: Vec::new(),
            drill: None,
        };
        let report = Report {
            incidents: incidents.newest_first().cloned().collect(),
            life: Life { last: now, ..life },
            switched: None,
            trends: HashMap::new(),
        };
        let view = watch::Sender::new(Arc::new(view));
        let report = watch::Sender::new(Arc::new(report));
        let mut publisher = Self {
            means,
            held: Held::showing(mode),
            incidents,
            view,
            report,
        };
        if let Some(downtime) = downtime {
            publisher.keep(downtime);
        }
        publisher.look();
        publisher
    }

    pub fn watch(&self) -> watch::Receiver<Arc<StatusView>> {
        self.view.subscribe()
    }

    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    pub async fn run(mut self) {
        let mut poll = tokio::time::interval(LOOK);
        let mut trends = tokio::time::interval(TREND_EVERY);
        loop {
            tokio::select! {
                _ = poll.tick() => self.look(),
                _ = trends.tick() => self.note(),
            }
        }
    }

    fn look(&mut self) {
        let now = self.means.clock.wall();
        let config = Arc::clone(&self.means.published.borrow());
        let providers: Vec<(Arc<str>, Vitals)> = config
            .backends
            .iter()
            .map(|provider| (Arc::clone(&provider.name), provider.vitals.borrow().clone()))
            .collect();
        let seen = mode_of(
            config.settings.routing.strategy,
            providers.iter().map(|(_, vitals)| vitals),
            now,
        );
        let mode = self.held.see(seen, self.means.clock.now());
        let random = self.means.random;
        let drills = drills(&config.backends);
        let changed =
            self.incidents
                .see(mode, now, || cause(&providers, &drills, now), || id(random));
        let before = Arc::clone(&self.view.borrow());
        let active = active(&config, now);
        let switched = (active != before.active && !before.providers.is_empty()).then(|| {
            let previous = providers
                .iter()
                .find(|(name, _)| before.active.as_ref() == Some(name));
            let unavailable = previous.filter(|(_, vitals)| !vitals.can_be_asked(now));
            Switch {
                from: before.active.clone(),
                to: active.clone(),
                at: now,
                reason: unavailable.and_then(|(_, vitals)| vitals.words(now)),
            }
        });
        let mut view = StatusView {
            active,
            providers: providers
                .into_iter()
                .map(|(name, vitals)| ProviderView {
                    name,
                    state: vitals.state,
                })
                .collect(),
            message: message(mode, !drills.is_empty()).to_owned(),
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
            self.report.send_modify(|report| {
                let report = Arc::make_mut(report);
                report.incidents = self.incidents.newest_first().cloned().collect();
                report.switched = switched.or(report.switched.take());
            });
        }
        // Publish the history first: a subscriber of the status looks up its incident there.
        if view != *before {
            self.view.send_replace(Arc::new(view));
        }
        if let Some(changed) = changed {
            self.keep(changed);
        }
    }

    /// Records a latency point per provider, and that the service is running.
    fn note(&mut self) {
        let config = Arc::clone(&self.means.published.borrow());
        let mut life = self.report.borrow().life;
        life.last = self.means.clock.wall();
        self.report.send_modify(|report| {
            let report = Arc::make_mut(report);
            report.life = life;
            report
                .trends
                .retain(|name, _| config.backend(name).is_some());
            for provider in config.backends.iter() {
                let median = provider
                    .vitals
                    .borrow()
                    .first_token
                    .map(|latency| latency.p50);
                report
                    .trends
                    .entry(Arc::clone(&provider.name))
                    .or_default()
                    .note(median);
            }
        });
        // The write is queued when the call returns, and the store reports its own failures.
        drop(self.means.store.write_life(life));
    }

    /// Starts saving an incident. It is shown even if that fails.
    fn keep(&self, incident: Incident) {
        drop(self.means.store.write_incident(incident));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::paused::Paused;
    use crate::provider::spending::Terms;
    use crate::provider::stand::{Plan, Stand};
    use crate::settings::{Choice as _, Settings};
    use crate::store::MemoryStore;

    fn means(
        backends: &Arc<[Arc<Backend>]>,
        strategy: Strategy,
        store: &Arc<MemoryStore>,
    ) -> Means {
        let store = Arc::clone(store);
        let mut settings = Settings::default();
        settings.routing.strategy = strategy;
        let config = Table::first(settings.into(), Arc::clone(backends));
        let published = watch::channel(Arc::new(config)).1;
        Means {
            published,
            store,
            clock: Clock::start(),
            random: || 7,
        }
    }

    /// The next provider under each strategy, in the order of `Strategy::ALL`.
    fn next_providers(stands: &[Stand]) -> Vec<String> {
        let backends: Arc<[_]> = stands
            .iter()
            .map(|stand| Arc::clone(&stand.backend))
            .collect();
        let next = |strategy: &Strategy| {
            let publisher = StatusBoard::new(
                means(&backends, *strategy, &Arc::default()),
                Past::default(),
            );
            let active = publisher.watch().borrow().active.clone();
            active.map(|name| name.to_string()).unwrap_or_default()
        };
        Strategy::ALL.iter().map(next).collect()
    }

    #[actix_rt::test(system = "Paused")]
    async fn the_next_provider_depends_on_the_strategy() {
        let plans = [("a", 1, 3.0, 900), ("b", 5, 2.0, 300), ("c", 5, 1.0, 600)];
        let mut stands = Vec::new();
        for (name, weight, price, ms) in plans {
            let terms = Terms {
                prices: Some((price, price)),
                daily_budget_usd: None,
            };
            let stand = Stand::alone(Plan {
                weight,
                terms,
                ..Plan::new(name)
            });
            stand
                .admit()
                .await
                .unwrap()
                .first_token(Duration::from_millis(ms));
            stand.vitals().await;
            stands.push(stand);
        }
        // priority, weighted, round_robin, fastest, cheapest
        assert_eq!(next_providers(&stands), ["a", "b", "a", "b", "c"]);
        let later = Some(Clock::start().wall().plus(Duration::from_secs(3_600)));
        let open = Vitals {
            state: ProviderState::Open,
            retry_at: later,
            ..Vitals::default()
        };
        stands[0] = Stand::alone(Plan {
            vitals: open.clone(),
            ..Plan::new("a")
        });
        stands[0].vitals().await;
        assert_eq!(next_providers(&stands), ["b", "b", "b", "b", "c"]);
        for index in [1, 2] {
            stands[index] = Stand::alone(Plan {
                vitals: open.clone(),
                ..Plan::new("b")
            });
            stands[index].vitals().await;
        }
        assert_eq!(next_providers(&stands), [""; 5]);
    }

    /// Polls once a second for `times` seconds and returns the status after that.
    async fn poll_for(publisher: &mut StatusBoard, times: u32) -> Arc<StatusView> {
        for _ in 0..times {
            tokio::time::advance(Duration::from_secs(1)).await;
            publisher.look();
        }
        Arc::clone(&publisher.view.borrow())
    }

    #[actix_rt::test(system = "Paused")]
    async fn an_incident_is_saved_and_continues_after_a_restart() {
        let later = Some(Clock::start().wall().plus(Duration::from_secs(3_600)));
        let open = Vitals {
            state: ProviderState::Open,
            retry_at: later,
            reason: Some(crate::chat::Fault::Timeout),
            ..Vitals::default()
        };
        let down = Stand::alone(Plan {
            vitals: open,
            ..Plan::new("a")
        });
        down.vitals().await;
        let well = Stand::alone(Plan::new("a"));
        well.vitals().await;
        let down: Arc<[_]> = Arc::new([Arc::clone(&down.backend)]);
        let well: Arc<[_]> = Arc::new([Arc::clone(&well.backend)]);
        let store = Arc::new(MemoryStore::default());
        let mut publisher =
            StatusBoard::new(means(&down, Strategy::Priority, &store), Past::default());
        let reports = publisher.reports();
        assert_eq!(publisher.watch().borrow().incident, None, "debounced");
        let view = poll_for(&mut publisher, 4).await;
        assert_eq!(
            (view.mode, view.incident.as_deref()),
            (Mode::Outage, Some("inc-0000000000000007"))
        );
        let incidents = reports.borrow().incidents.clone();
        assert_eq!(
            (
                incidents[0].id.as_str(),
                incidents[0].mode,
                incidents[0].ended
            ),
            ("inc-0000000000000007", Mode::Outage, None)
        );
        assert_eq!(incidents[0].cause, "a: no answer in time");
        assert_eq!(store.incidents().await.unwrap(), incidents, "saved");

        // The service restarts, and the provider works again.
        let restored = Past {
            incidents,
            life: store.life().await.unwrap(),
        };
        let mut publisher = StatusBoard::new(means(&well, Strategy::Priority, &store), restored);
        let view = Arc::clone(&publisher.view.borrow());
        assert_eq!(
            (view.mode, view.incident.as_deref()),
            (Mode::Outage, Some("inc-0000000000000007"))
        );
        let view = poll_for(&mut publisher, 12).await;
        assert_eq!((view.mode, view.incident.as_deref()), (Mode::Normal, None));
        let saved = store.incidents().await.unwrap();
        assert!(saved.len() == 1 && saved[0].ended.is_some(), "{saved:?}");
        assert_eq!(publisher.reports().borrow().incidents, saved);
    }
}
