//! Looks at the service's state, and tells what the rules say is to be told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::alert::{Alert, Scene};
use super::cause::{Cause, Finding};
use super::line::{Envelope, Known};
use super::post::{Form, Poster};
use super::rules::{News, Rules, Told};
use super::seen;
use super::sign::Signer;
use super::sink::{Kind, Sending, Sink};
use crate::chat::{At, Mode, StatusView};
use crate::ops::mode::HOLD_DOWN;
use crate::ops::report::Report;
use crate::provider::backend::{Backend, Clock};
use crate::settings::AlertSettings;
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
    /// All backends.
    pub backends: Arc<[Arc<Backend>]>,
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
    /// Watches from now on, on a task of the calling thread, and tells the sinks of `settings`.
    pub fn start(means: Means, settings: AlertSettings) -> Self {
        let (sinks, shown) = watch::channel(Arc::from(Vec::new()));
        let clock = means.clock;
        actix::spawn(async move { Watcher::begin(means, settings, sinks).await.run().await });
        Self { sinks: shown, clock }
    }

    /// What is wrong with the sinks, in sentences for the status.
    pub fn problems(&self) -> Vec<String> {
        let now = self.clock.wall();
        self.sinks.borrow().iter().flat_map(|sink| sink.problems(now)).collect()
    }
}

/// Something to be told that waits for its incident.
struct Held {
    told: Told,
    at: At,
    since: Duration,
}

struct Watcher {
    means: Means,
    rules: Rules,
    sinks: Arc<[Arc<Sink>]>,
    tasks: Vec<JoinHandle<()>>,
    held: VecDeque<Held>,
    /// The incident that ran last.
    incident: Option<String>,
    /// Whether it was looked before.
    looked: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Watcher {
    async fn begin(means: Means, settings: AlertSettings, shown: watch::Sender<Arc<[Arc<Sink>]>>) -> Self {
        let sending = Sending { store: Arc::clone(&means.store), clock: means.clock, chance: means.chance };
        let (mut sinks, mut tasks) = (Vec::new(), Vec::new());
        for (kind, poster) in posters(&settings) {
            let sink = Arc::new(Sink::new(kind, recalled(&*means.store, kind).await));
            let (sending, running) = (sending.clone(), Arc::clone(&sink));
            tasks.push(actix::spawn(async move { running.run(poster, sending).await }));
            sinks.push(sink);
        }
        let sinks: Arc<[Arc<Sink>]> = sinks.into();
        shown.send_replace(Arc::clone(&sinks));
        let mut rules = Rules::new(settings.min_interval);
        let now = means.clock.wall();
        for one in told_to_all(&sinks) {
            rules.recall(
                one.cause,
                one.level,
                (BEFORE + means.clock.now()).saturating_sub(now.since(one.at)),
            );
        }
        Self { means, rules, sinks, tasks, held: VecDeque::new(), incident: None, looked: false }
    }

    async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let (now, at) = (BEFORE + self.means.clock.now(), self.means.clock.wall());
        let view = Arc::clone(&self.means.status.borrow());
        if view.incident.is_some() {
            self.incident.clone_from(&view.incident);
        }
        self.rules.keep(self.means.backends.iter().map(|one| &*one.name));
        for found in self.found(&view, at) {
            if let Some(told) = self.rules.see(&found, now) {
                self.held.push_back(Held { told, at, since: now });
            }
        }
        while let Some(first) = self.held.front() {
            let may_belong = matches!(first.told.found.cause, Cause::Provider(_) | Cause::Budget(_));
            let waits = may_belong && first.told.news() == News::Worse && view.incident.is_none();
            if waits && now.saturating_sub(first.since) < INCIDENT_WAIT {
                break;
            }
            if let Some(next) = self.held.pop_front() {
                self.tell(&next, &view);
            }
        }
    }

    /// All that can be seen now.
    fn found(&mut self, view: &StatusView, now: At) -> Vec<Finding> {
        let mut found = Vec::new();
        for backend in self.means.backends.iter() {
            let vitals = backend.vitals.borrow().clone();
            found.extend(seen::provider(&backend.name, &vitals, now));
        }
        let report = self.means.reports.borrow();
        let running = report.incidents.first().filter(|one| one.ended.is_none());
        found.push(seen::mode(view.mode, running.map(|one| one.cause.as_str())));
        // What was wrong at the start is told once, and is over where the store that was begun instead works.
        let opened_with =
            self.means.opened_with.first().filter(|_| !self.looked || !self.means.store.lasting());
        self.looked = true;
        found.push(seen::store(opened_with.map(String::as_str).or(self.means.store.problem())));
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
        let incident = view.incident.clone().or_else(|| self.incident.clone().filter(|_| ended));
        let alert = Alert::of(told, Scene { mode, incident, at: *at });
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
        self.sinks.iter().for_each(|sink| sink.push(envelope.clone(), *at));
    }
}

/// How each sink that is configured is reached. One that cannot be is said in the log; the configuration was checked before.
fn posters(settings: &AlertSettings) -> Vec<(Kind, Poster)> {
    let signer = settings.webhook_secret.as_ref().and_then(|secret| Signer::new(secret.expose()));
    let slack = settings.slack_webhook.as_ref().map(|url| (Kind::Slack, Poster::new(url, Form::Slack)));
    let webhook = settings.webhook.as_ref().map(|url| (Kind::Webhook, Poster::new(url, Form::Json(signer))));
    let made = |(kind, poster): (Kind, Result<Poster, &'static str>)| match poster {
        Ok(poster) => Some((kind, poster)),
        Err(why) => {
            tracing::error!(sink = kind.words(), why, "alerts are not sent there");
            None
        }
    };
    [slack, webhook].into_iter().flatten().filter_map(made).collect()
}

/// What earlier processes told a sink; nothing where the store does not say.
async fn recalled(store: &dyn Store, kind: Kind) -> Vec<Known> {
    let read = tokio::time::timeout(RECALL_LIMIT, store.note(kind.note().to_owned())).await;
    let text = read.ok().and_then(Result::ok).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// What every sink was told. What one does not know is told again, and passed over by who knows it.
fn told_to_all(sinks: &[Arc<Sink>]) -> Vec<Known> {
    let all: Vec<Vec<Known>> = sinks.iter().map(|sink| sink.known()).collect();
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let least = |one: &Known| {
        let level = |known: &Vec<Known>| {
            known.iter().find(|other| other.cause == one.cause).map_or(0, |other| other.level)
        };
        let level = others.iter().map(level).fold(one.level, std::cmp::Ord::min);
        (level > 0).then(|| Known { level, ..one.clone() })
    };
    first.iter().filter_map(least).collect()
}

#[cfg(test)]
mod tests;
