//! Looks at the service's state, and tells what the rules say is to be told.

mod address;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::address::{Address, addresses};
use super::alert::{Alert, Scene};
use super::cause::{Cause, Finding};
use super::claims::{Claims, Matter, Verdict};
use super::line::{Envelope, Known, Line};
use super::rules::{News, Rules, Told};
use super::seen;
use super::sink::{Kind, Sending, Sink};
use super::together::Together;
use crate::chat::{At, Mode, ProviderState, StatusView};
use crate::ops::mode::HOLD_DOWN;
use crate::ops::report::Report;
use crate::provider::backend::Clock;
use crate::router::table::Published;
use crate::settings::Settings;
use crate::store::Store;

/// How often it is looked. A change that is over sooner is none.
const LOOK: Duration = Duration::from_millis(200);

/// How long reading what earlier processes told may hold the first look.
const RECALL_LIMIT: Duration = Duration::from_secs(2);

/// How long an alert waits for the incident that it may belong to: an incident is opened once its mode has lasted.
const INCIDENT_WAIT: Duration = HOLD_DOWN.saturating_add(Duration::from_millis(500));

/// Moments of the rules count from so long before the start, so that what an earlier process told has one too.
const BEFORE: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// What is watched, and what that needs.
pub struct Means {
    /// The providers, and who is told.
    pub published: Published,
    /// The state that everyone is told.
    pub status: watch::Receiver<Arc<StatusView>>,
    /// Its history.
    pub reports: watch::Receiver<Arc<Report>>,
    /// What early warning finds.
    pub warnings: watch::Receiver<Arc<[Finding]>>,
    /// The store: watched, and where it is noted what was told.
    pub store: Arc<dyn Store>,
    /// What was wrong with the store when it was opened.
    pub opened_with: Vec<String>,
    /// Which of several instances tells; none where this is the only one.
    pub claims: Option<Claims>,
    /// The clocks.
    pub clock: Clock,
    /// A random number, for ids.
    pub random: fn() -> u64,
    /// A random number in 0..1, for waits.
    pub chance: fn() -> f64,
}

/// Alerts that are being told; what is dropped stops.
#[derive(Clone)]
pub struct Alerts {
    sinks: watch::Receiver<Arc<[Arc<Sink>]>>,
    clock: Clock,
}

impl Alerts {
    /// Watches from now on, on a task of the calling thread, and tells the sinks that are configured.
    pub fn start(means: Means) -> Self {
        let (sinks, shown) = watch::channel(Arc::from(Vec::new()));
        let clock = means.clock;
        actix::spawn(async move { Watcher::begin(means, sinks).await.run().await });
        Self {
            sinks: shown,
            clock,
        }
    }

    /// What is wrong with the sinks, in sentences for the status.
    pub fn problems(&self) -> Vec<String> {
        let now = self.clock.wall();
        self.sinks
            .borrow()
            .iter()
            .flat_map(|sink| sink.problems(now))
            .collect()
    }
}

/// Something to be told that waits for its incident.
struct Held {
    told: Told,
    at: At,
    since: Duration,
}

/// A sink that is being served.
struct Served {
    sink: Arc<Sink>,
    address: Address,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watcher {
    means: Means,
    rules: Rules,
    /// The settings by which the sinks are served.
    settings: Arc<Settings>,
    served: Vec<Served>,
    /// What those that are to be served are called together.
    sinks: String,
    shown: watch::Sender<Arc<[Arc<Sink>]>>,
    held: VecDeque<Held>,
    together: Together<Held>,
    /// The incident that ran last.
    incident: Option<String>,
    /// Whether it was looked before.
    looked: bool,
    /// Whether all trouble that there was when there last was any is a drill's doing.
    staged: bool,
}

impl Watcher {
    async fn begin(mut means: Means, shown: watch::Sender<Arc<[Arc<Sink>]>>) -> Self {
        let settings = Arc::clone(&means.published.borrow().settings);
        let rules = Rules::new(settings.alerts.min_interval);
        let together = Together::new(means.claims.take());
        let mut watcher = Self {
            means,
            rules,
            settings,
            served: Vec::new(),
            sinks: String::new(),
            shown,
            held: VecDeque::new(),
            together,
            incident: None,
            looked: false,
            staged: false,
        };
        let mut known = Vec::new();
        for kind in Kind::ALL {
            known.push((kind, recalled(&*watcher.means.store, kind).await));
        }
        // A mode that a drill brought about is shown for a while longer, also after a restart in the middle of it.
        let by_drill = |one: &Known| one.cause == Cause::Mode && one.staged;
        watcher.staged = known.iter().flat_map(|(_, known)| known).any(by_drill);
        watcher.serve(|kind| {
            let known = known
                .iter()
                .find(|(of, _)| *of == kind)
                .map(|(_, known)| known.clone());
            Line::recalled(known.unwrap_or_default())
        });
        let (clock, now) = (watcher.means.clock, watcher.means.clock.wall());
        for one in told_to_all(&watcher.shown.borrow()) {
            let told = (BEFORE + clock.now()).saturating_sub(now.since(one.at));
            watcher
                .together
                .recall(one.cause.clone(), one.level, one.staged);
            watcher.rules.recall(one.cause, one.level, one.staged, told);
        }
        watcher
    }

    /// Serves the sinks of the settings: those whose address did not change go on; `line` gives what waits for another.
    fn serve(&mut self, mut line: impl FnMut(Kind) -> Line) {
        let sending = Sending {
            store: Arc::clone(&self.means.store),
            clock: self.means.clock,
            chance: self.means.chance,
        };
        let mut before = std::mem::take(&mut self.served);
        for address in addresses(&self.settings.alerts) {
            let same = before.iter().position(|one| one.address.is(&address));
            if let Some(same) = same {
                self.served.push(before.swap_remove(same));
                continue;
            }
            let Some(poster) = address.poster() else {
                continue;
            };
            let earlier = before.iter().find(|one| one.address.kind == address.kind);
            let waiting = earlier.map_or_else(|| line(address.kind), |one| one.sink.handed_over());
            let sink = Arc::new(Sink::new(address.kind, waiting));
            let (sending, running) = (sending.clone(), Arc::clone(&sink));
            let task = actix::spawn(async move { running.run(poster, sending).await });
            self.served.push(Served {
                sink,
                address,
                task,
            });
        }
        self.sinks = address::name(&self.settings.alerts);
        self.shown.send_replace(
            self.served
                .iter()
                .map(|one| Arc::clone(&one.sink))
                .collect(),
        );
    }

    /// Takes over what a reload changed.
    fn follow(&mut self) {
        let settings = Arc::clone(&self.means.published.borrow().settings);
        if Arc::ptr_eq(&settings, &self.settings) {
            return;
        }
        self.rules.set_interval(settings.alerts.min_interval);
        self.settings = settings;
        self.serve(|_| Line::default());
    }

    async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.follow();
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let (now, at) = (BEFORE + self.means.clock.now(), self.means.clock.wall());
        let view = Arc::clone(&self.means.status.borrow());
        if view.incident.is_some() {
            self.incident.clone_from(&view.incident);
        }
        let table = Arc::clone(&self.means.published.borrow());
        self.rules.keep(table.backends.iter().map(|one| &*one.name));
        let found = self.found(&view, at);
        for one in &found {
            if let Some(told) = self.rules.see(one, now) {
                self.held.push_back(Held {
                    told,
                    at,
                    since: now,
                });
            }
        }
        while let Some(first) = self.held.front() {
            let may_belong = matches!(
                first.told.found.cause,
                Cause::Provider(_) | Cause::Budget(_)
            );
            let waits = may_belong && first.told.news() == News::Worse && view.incident.is_none();
            if waits && now.saturating_sub(first.since) < INCIDENT_WAIT {
                break;
            }
            if let Some(next) = self.held.pop_front() {
                self.pass(next, &view).await;
            }
        }
        let served = &self.served;
        let has = |matter: &Matter| {
            let known = served.iter().flat_map(|one| one.sink.known());
            known
                .into_iter()
                .any(|one| one.cause == matter.cause && one.level >= matter.level)
        };
        for (verdict, held) in self.together.again(&self.sinks, &found, now, has).await {
            self.act(verdict, held, &view);
        }
    }

    /// Tells it, or leaves that to another instance.
    async fn pass(&mut self, held: Held, view: &StatusView) {
        if self.served.is_empty() {
            return self.tell(&held, view);
        }
        let interval = self.settings.alerts.min_interval;
        let verdict = self
            .together
            .verdict(&self.sinks, &held.told, interval)
            .await;
        self.act(verdict, held, view);
    }

    fn act(&mut self, verdict: Verdict, held: Held, view: &StatusView) {
        let told = held.told.clone();
        let (cause, news) = (&told.found.cause, told.news());
        match (verdict, news) {
            (Verdict::Tell, _) => self.tell(&held, view),
            (Verdict::Leave, News::Worse) => {
                tracing::info!(
                    ?cause,
                    level = told.found.level,
                    "an alert is another instance's to tell"
                );
                if let Some(beyond) = self.together.leave(&told, held) {
                    self.tell(&beyond, view);
                }
            }
            (Verdict::Leave, News::Better) => {
                self.served
                    .iter()
                    .for_each(|one| one.sink.forget(cause, told.found.level));
            }
            (Verdict::Leave, News::Flapped) => {}
            (Verdict::TakeOver, _) => {
                let level = told.found.level.max(told.before);
                let known = Known {
                    cause: cause.clone(),
                    level,
                    at: held.at,
                    staged: told.staged,
                };
                self.served
                    .iter()
                    .for_each(|one| one.sink.learn(known.clone()));
                if news == News::Better {
                    self.tell(&held, view);
                }
            }
        }
    }

    /// All that can be seen now.
    fn found(&mut self, view: &StatusView, now: At) -> Vec<Finding> {
        let (mut found, mut trouble) = (Vec::new(), Vec::new());
        for backend in self.means.published.borrow().backends.iter() {
            let vitals = backend.vitals.borrow().clone();
            let staged = backend.drills.shadows();
            if vitals.state != ProviderState::Disabled && !vitals.can_be_asked(now) {
                trouble.push(staged);
            }
            found.extend(seen::provider(&backend.name, &vitals, staged, now));
        }
        // On the way up the mode is held back after all are well: it is as it was then.
        if !trouble.is_empty() {
            self.staged = trouble.iter().all(|staged| *staged);
        }
        let report = self.means.reports.borrow();
        let running = report.incidents.first().filter(|one| one.ended.is_none());
        found.push(seen::mode(
            view.mode,
            running.map(|one| one.cause.as_str()),
            self.staged,
        ));
        // What was wrong at the start is told once, and is over where the store that was begun instead works.
        let opened_with = self
            .means
            .opened_with
            .first()
            .filter(|_| !self.looked || !self.means.store.lasting());
        self.looked = true;
        found.push(seen::store(
            opened_with
                .map(String::as_str)
                .or(self.means.store.problem()),
        ));
        found.extend(self.means.warnings.borrow().iter().cloned());
        found
    }

    fn tell(&self, held: &Held, view: &StatusView) {
        let Held { told, at, .. } = held;
        let mode = match (&told.found.cause, told.found.level) {
            (Cause::Mode, 0) => Mode::Normal,
            (Cause::Mode, 1) => Mode::Degraded,
            (Cause::Mode, _) => Mode::Outage,
            _ => view.mode,
        };
        // A mode that is normal again ends the incident that ran.
        let ended = told.found.cause == Cause::Mode;
        let incident = view
            .incident
            .clone()
            .or_else(|| self.incident.clone().filter(|_| ended));
        let alert = Alert::of(
            told,
            Scene {
                mode,
                incident,
                at: *at,
            },
        );
        tracing::warn!(event = alert.event, provider = alert.provider.as_deref(), mode = ?alert.mode,
            incident = alert.incident, reason = alert.reason, held_back = alert.held_back, "alert");
        let random = self.means.random;
        let envelope = Envelope {
            id: format!("msg_{:016x}{:016x}", random(), random()),
            cause: told.found.cause.clone(),
            level: told.found.level,
            news: told.news(),
            alert,
        };
        self.served
            .iter()
            .for_each(|one| one.sink.push(envelope.clone(), *at));
    }
}

/// What earlier processes told a sink; nothing where the store does not say.
async fn recalled(store: &dyn Store, kind: Kind) -> Vec<Known> {
    let read = tokio::time::timeout(RECALL_LIMIT, store.note(kind.note().to_owned())).await;
    let text = read.ok().and_then(Result::ok).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// What every sink was told. What one does not know is told again, and passed over by who knows it.
fn told_to_all(sinks: &[Arc<Sink>]) -> Vec<Known> {
    let all: Vec<Vec<Known>> = sinks.iter().map(|sink| sink.known()).collect();
    let Some((first, others)) = all.split_first() else {
        return Vec::new();
    };
    let least = |one: &Known| {
        let level = |known: &Vec<Known>| {
            known
                .iter()
                .find(|other| other.cause == one.cause)
                .map_or(0, |other| other.level)
        };
        let level = others.iter().map(level).fold(one.level, std::cmp::Ord::min);
        (level > 0).then(|| Known {
            level,
            ..one.clone()
        })
    };
    first.iter().filter_map(least).collect()
}

#[cfg(test)]
mod tests;
