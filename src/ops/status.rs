//! The service's state as everyone is told it: computed here, published on a `watch`.

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

/// How often the state is looked at: often enough for a page that shows a change at once, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(200);

/// What visitors are told: what still works first; and where it is staged, that it is.
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

/// What the board needs to know and to do.
pub struct Means {
    /// The providers, and how one of them is chosen.
    pub published: Published,
    /// Where incidents are kept.
    pub store: Arc<dyn Store>,
    /// The clocks.
    pub clock: Clock,
    /// A random number, for ids.
    pub random: fn() -> u64,
}

/// What the store remembers of the service's bad times.
#[derive(Debug, Default)]
pub struct Past {
    /// The incidents.
    pub incidents: Vec<Incident>,
    /// When the service was seen to run; none where this is its first start.
    pub life: Option<Life>,
}

fn id(random: fn() -> u64) -> String {
    format!("inc-{:016x}", random())
}

/// The drills that run, in order of preference.
pub fn drills(backends: &[Arc<Backend>]) -> Vec<DrillView> {
    backends
        .iter()
        .filter_map(|one| Some(one.drills.running()?.view(&one.name)))
        .collect()
}

/// Who would be asked next. Where chance or turns decide, it is the heaviest, or the first of those that take turns: the page is told of
/// changes, not of every draw.
pub fn active(table: &Table, now: At) -> Option<Arc<str>> {
    let can = |one: &&Arc<Backend>| one.vitals.borrow().can_be_asked(now);
    // Nor does it change with every call to one that is not known yet.
    let candidate = |one: &Arc<Backend>| Candidate {
        asked: false,
        ..candidate(one)
    };
    let candidates: Vec<_> = table.backends.iter().filter(can).map(candidate).collect();
    let place = match table.settings.routing.strategy {
        Strategy::Weighted => {
            let heaviest =
                |(place, one): &(usize, &Candidate)| (one.weight, std::cmp::Reverse(*place));
            candidates.iter().enumerate().max_by_key(heaviest)?.0
        }
        strategy => {
            let by = Order {
                strategy,
                chance: 0.0,
                turn_of: 0,
            };
            *rank::order(&candidates, by, &Wish::default(), &[]).first()?
        }
    };
    candidates.get(place).map(|one| Arc::clone(&one.name))
}

/// Who cannot be asked, and why, for the operator.
fn cause(all: &[(Arc<str>, Vitals)], drills: &[DrillView], now: At) -> String {
    let down = all
        .iter()
        .filter(|(_, vitals)| vitals.state != ProviderState::Disabled && !vitals.can_be_asked(now));
    let told = down.map(|(name, vitals)| {
        let staged = drills.iter().any(|drill| drill.provider == *name);
        let staged = if staged { " (an outage drill)" } else { "" };
        format!(
            "{name}: {}{staged}",
            vitals.words(now).unwrap_or("not known")
        )
    });
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        "No provider is enabled.".to_owned()
    } else {
        told.join("; ")
    }
}

/// Computes the state, and keeps its history.
pub struct StatusBoard {
    means: Means,
    held: Held,
    incidents: Incidents,
    view: watch::Sender<Arc<StatusView>>,
    report: watch::Sender<Arc<Report>>,
}

impl StatusBoard {
    /// A board which begins as the service was shown last: an incident that ran then goes on, until normal is seen.
    pub fn new(means: Means, past: Past) -> Self {
        let now = means.clock.wall();
        let mut incidents = Incidents::recalled(past.incidents);
        let life = past.life.unwrap_or(Life {
            first: now,
            last: now,
        });
        let gone = incidents.back(life, now, || id(means.random));
        let running = incidents.running();
        let mode = running.map_or(Mode::Normal, |one| one.mode);
        let view = StatusView {
            mode,
            since: running.map_or(now, |one| one.started),
            incident: running.map(|one| one.id.clone()),
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
        let (view, report) = (
            watch::Sender::new(Arc::new(view)),
            watch::Sender::new(Arc::new(report)),
        );
        let mut board = Self {
            means,
            held: Held::showing(mode),
            incidents,
            view,
            report,
        };
        if let Some(gone) = gone {
            board.keep(gone);
        }
        board.look();
        board
    }

    /// The state, now and later.
    pub fn watch(&self) -> watch::Receiver<Arc<StatusView>> {
        self.view.subscribe()
    }

    /// The history that goes with it.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.report.subscribe()
    }

    /// Looks at the providers now and then, for ever.
    pub async fn run(mut self) {
        let (mut tick, mut trend) = (
            tokio::time::interval(LOOK),
            tokio::time::interval(TREND_EVERY),
        );
        loop {
            tokio::select! {
                _ = tick.tick() => self.look(),
                _ = trend.tick() => self.note(),
            }
        }
    }

    fn look(&mut self) {
        let now = self.means.clock.wall();
        let table = Arc::clone(&self.means.published.borrow());
        let all: Vec<(Arc<str>, Vitals)> = table
            .backends
            .iter()
            .map(|one| (Arc::clone(&one.name), one.vitals.borrow().clone()))
            .collect();
        let seen = mode_of(
            table.settings.routing.strategy,
            all.iter().map(|(_, vitals)| vitals),
            now,
        );
        let mode = self.held.see(seen, self.means.clock.now());
        let random = self.means.random;
        let drills = drills(&table.backends);
        let changed = self
            .incidents
            .see(mode, now, || cause(&all, &drills, now), || id(random));
        let before = Arc::clone(&self.view.borrow());
        let active = active(&table, now);
        let switched = (active != before.active && !before.providers.is_empty()).then(|| {
            let was = all
                .iter()
                .find(|(name, _)| before.active.as_ref() == Some(name));
            let reason = was.filter(|(_, vitals)| !vitals.can_be_asked(now));
            Switch {
                from: before.active.clone(),
                to: active.clone(),
                at: now,
                reason: reason.and_then(|(_, vitals)| vitals.words(now)),
            }
        });
        let mut view = StatusView {
            active,
            providers: all
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
            view.incident = self.incidents.running().map(|one| one.id.clone());
            tracing::info!(mode = ?mode, incident = view.incident, "mode changed");
        }
        if changed.is_some() || switched.is_some() {
            self.report.send_modify(|report| {
                let report = Arc::make_mut(report);
                report.incidents = self.incidents.newest_first().cloned().collect();
                report.switched = switched.or(report.switched.take());
            });
        }
        // The history first: who sees the state finds its incident there.
        if view != *before {
            self.view.send_replace(Arc::new(view));
        }
        if let Some(changed) = changed {
            self.keep(changed);
        }
    }

    /// Notes how fast the providers are, and that the service runs.
    fn note(&mut self) {
        let table = Arc::clone(&self.means.published.borrow());
        let mut life = self.report.borrow().life;
        life.last = self.means.clock.wall();
        self.report.send_modify(|report| {
            let report = Arc::make_mut(report);
            report.life = life;
            report
                .trends
                .retain(|name, _| table.backend(name).is_some());
            for one in table.backends.iter() {
                let median = one.vitals.borrow().first_token.map(|latency| latency.p50);
                report
                    .trends
                    .entry(Arc::clone(&one.name))
                    .or_default()
                    .note(median);
            }
        });
        // On its way when the call returns; how it comes out is for the store to say.
        drop(self.means.store.write_life(life));
    }

    /// An incident that is not kept is shown all the same.
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
        let table = Table::first(settings.into(), Arc::clone(backends));
        let published = watch::channel(Arc::new(table)).1;
        Means {
            published,
            store,
            clock: Clock::start(),
            random: || 7,
        }
    }

    /// Who would be asked next under each strategy, in the order that they are listed to the operator.
    fn active(stands: &[Stand]) -> Vec<String> {
        let backends: Arc<[_]> = stands
            .iter()
            .map(|stand| Arc::clone(&stand.backend))
            .collect();
        let next = |strategy: &Strategy| {
            let board = StatusBoard::new(
                means(&backends, *strategy, &Arc::default()),
                Past::default(),
            );
            let active = board.watch().borrow().active.clone();
            active.map(|name| name.to_string()).unwrap_or_default()
        };
        Strategy::ALL.iter().map(next).collect()
    }

    #[actix_rt::test(system = "Paused")]
    async fn who_is_next_is_said_by_the_strategy() {
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
        assert_eq!(active(&stands), ["a", "b", "a", "b", "c"]);
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
        assert_eq!(active(&stands), ["b", "b", "b", "b", "c"]);
        for place in [1, 2] {
            stands[place] = Stand::alone(Plan {
                vitals: open.clone(),
                ..Plan::new("b")
            });
            stands[place].vitals().await;
        }
        assert_eq!(active(&stands), [""; 5]);
    }

    /// A board over one provider whose state is set by hand, and what it says after the holds have passed.
    async fn looks(board: &mut StatusBoard, times: u32) -> Arc<StatusView> {
        for _ in 0..times {
            tokio::time::advance(Duration::from_secs(1)).await;
            board.look();
        }
        Arc::clone(&board.view.borrow())
    }

    #[actix_rt::test(system = "Paused")]
    async fn an_incident_is_told_kept_and_goes_on_after_a_restart() {
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
        let (down, well): (Arc<[_]>, Arc<[_]>) = (
            Arc::new([Arc::clone(&down.backend)]),
            Arc::new([Arc::clone(&well.backend)]),
        );
        let store = Arc::new(MemoryStore::default());
        let mut board = StatusBoard::new(means(&down, Strategy::Priority, &store), Past::default());
        let reports = board.reports();
        assert_eq!(board.watch().borrow().incident, None, "held back");
        let view = looks(&mut board, 4).await;
        assert_eq!(
            (view.mode, view.incident.as_deref()),
            (Mode::Outage, Some("inc-0000000000000007"))
        );
        let told = reports.borrow().incidents.clone();
        assert_eq!(
            (told[0].id.as_str(), told[0].mode, told[0].ended),
            ("inc-0000000000000007", Mode::Outage, None)
        );
        assert_eq!(told[0].cause, "a: no answer in time");
        assert_eq!(store.incidents().await.unwrap(), told, "kept");

        // The service comes back, with the provider well again.
        let past = Past {
            incidents: told,
            life: store.life().await.unwrap(),
        };
        let mut board = StatusBoard::new(means(&well, Strategy::Priority, &store), past);
        let view = Arc::clone(&board.view.borrow());
        assert_eq!(
            (view.mode, view.incident.as_deref()),
            (Mode::Outage, Some("inc-0000000000000007"))
        );
        let view = looks(&mut board, 12).await;
        assert_eq!((view.mode, view.incident.as_deref()), (Mode::Normal, None));
        let kept = store.incidents().await.unwrap();
        assert!(kept.len() == 1 && kept[0].ended.is_some(), "{kept:?}");
        assert_eq!(board.reports().borrow().incidents, kept);
    }
}
