//! Polls the service's state and sends the alerts that the rules decide on.

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

/// Changes shorter than this are not noticed.
const LOOK: Duration = Duration::from_millis(200);

/// The first poll is delayed at most this long by loading what was sent before a restart.
const RECALL_LIMIT: Duration = Duration::from_secs(2);

/// An alert waits this long for an incident to belong to, which opens once the mode has lasted for
/// [`WORSEN_DELAY`].
const INCIDENT_WAIT: Duration = HOLD_DOWN.saturating_add(Duration::from_millis(500));

/// Added to the clock, so that alerts of earlier processes have a positive time as well.
const BEFORE: Duration = Duration::from_secs(100 * 24 * 60 * 60);

pub struct Means {
    /// The providers and the sinks.
    pub published: Published,
    pub status: watch::Receiver<Arc<StatusView>>,
    pub reports: watch::Receiver<Arc<Report>>,
    /// Conditions found by the anomaly detector.
    pub warnings: watch::Receiver<Arc<[Finding]>>,
    /// Watched itself; also keeps what the sinks received.
    pub store: Arc<dyn Store>,
    /// Problems found when the store was opened.
    pub opened_with: Vec<String>,
    /// `None` if this is the only instance.
    pub claims: Option<Claims>,
    pub clock: Clock,
    pub random: fn() -> u64,
    /// Returns a random number in 0..1, for retry delays.
    pub chance: fn() -> f64,
}

#[derive(Clone)]
pub struct Alerts {
    sinks: watch::Receiver<Arc<[Arc<Sink>]>>,
    clock: Clock,
}

impl Alerts {
    pub fn start(means: Means) -> Self {
        let (sinks, running_sinks) = watch::channel(Arc::from(Vec::new()));
        let clock = means.clock;
        actix::spawn(async move { Watcher::begin(means, sinks).await.run().await });
        Self {
            sinks: running_sinks,
            clock,
        }
    }

    /// Problems of the sinks for the status page.
    pub fn problems(&self) -> Vec<String> {
        let now = self.clock.wall();
        self.sinks
            .borrow()
            .iter()
            .flat_map(|sink| sink.problems(now))
            .collect()
    }
}

/// A notification that waits for its incident.
struct Held {
    told: Told,
    at: At,
    since: Duration,
}

/// A sink and the task that delivers to it. Dropping it stops the task.
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
    /// The settings that the running sinks were created from.
    settings: Arc<Settings>,
    served: Vec<Served>,
    /// Identifies the configured sinks across instances.
    sinks: String,
    shown: watch::Sender<Arc<[Arc<Sink>]>>,
    held: VecDeque<Held>,
    together: Together<Held>,
    /// The last incident that was open.
    incident: Option<String>,
    looked: bool,
    /// All providers that were unavailable when any last was had an outage drill.
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
        // A mode caused by a drill is shown for a while after it, also across a restart.
        let is_mode_drill = |state: &Known| state.cause == Cause::Mode && state.staged;
        watcher.staged = known.iter().flat_map(|(_, known)| known).any(is_mode_drill);
        watcher.serve(|kind| {
            let known = known
                .iter()
                .find(|(of, _)| *of == kind)
                .map(|(_, known)| known.clone());
            Line::recalled(known.unwrap_or_default())
        });
        let clock = watcher.means.clock;
        let now = clock.wall();
        for state in told_to_all(&watcher.shown.borrow()) {
            let sent_at = (BEFORE + clock.now()).saturating_sub(now.since(state.at));
            watcher
                .together
                .recall(state.cause.clone(), state.level, state.staged);
            watcher
                .rules
                .recall(state.cause, state.level, state.staged, sent_at);
        }
        watcher
    }

    /// Starts the configured sinks and stops all others. Sinks whose target is unchanged continue.
    ///
    /// `initial_queue` returns the queue of a sink kind that had no sink before.
    fn serve(&mut self, mut initial_queue: impl FnMut(Kind) -> Line) {
        let context = Sending {
            store: Arc::clone(&self.means.store),
            clock: self.means.clock,
            chance: self.means.chance,
        };
        let mut previous = std::mem::take(&mut self.served);
        for address in addresses(&self.settings.alerts) {
            let same = previous
                .iter()
                .position(|running| running.address.is(&address));
            if let Some(same) = same {
                self.served.push(previous.swap_remove(same));
                continue;
            }
            let Some(poster) = address.poster() else {
                continue;
            };
            let earlier = previous
                .iter()
                .find(|running| running.address.kind == address.kind);
            let queue = earlier.map_or_else(
                || initial_queue(address.kind),
                |running| running.sink.handed_over(),
            );
            let sink = Arc::new(Sink::new(address.kind, queue));
            let context = context.clone();
            let running = Arc::clone(&sink);
            let task = actix::spawn(async move { running.run(poster, context).await });
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
                .map(|running| Arc::clone(&running.sink))
                .collect(),
        );
    }

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
        let now = BEFORE + self.means.clock.now();
        let at = self.means.clock.wall();
        let view = Arc::clone(&self.means.status.borrow());
        if view.incident.is_some() {
            self.incident.clone_from(&view.incident);
        }
        let config = Arc::clone(&self.means.published.borrow());
        self.rules
            .keep(config.backends.iter().map(|provider| &*provider.name));
        let conditions = self.found(&view, at);
        for condition in &conditions {
            if let Some(notification) = self.rules.see(condition, now) {
                self.held.push_back(Held {
                    told: notification,
                    at,
                    since: now,
                });
            }
            // Keep the order: a notification that waits for its incident holds up those behind it.
        }
        while let Some(first) = self.held.front() {
            let may_have_incident = matches!(
                first.told.found.cause,
                Cause::Provider(_) | Cause::Budget(_)
            );
            let waits =
                may_have_incident && first.told.news() == News::Worse && view.incident.is_none();
            if waits && now.saturating_sub(first.since) < INCIDENT_WAIT {
                break;
            }
            if let Some(next) = self.held.pop_front() {
                self.pass(next, &view).await;
            }
        }
        let served = &self.served;
        let has = |key: &Matter| {
            let known = served.iter().flat_map(|running| running.sink.known());
            known
                .into_iter()
                .any(|state| state.cause == key.cause && state.level >= key.level)
        };
        for (verdict, held) in self
            .together
            .again(&self.sinks, &conditions, now, has)
            .await
        {
            self.act(verdict, held, &view);
        }
    }

    /// Enqueues the notification, or defers it to another instance.
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
        let notification = held.told.clone();
        let cause = &notification.found.cause;
        let news = notification.news();
        match (verdict, news) {
            (Verdict::Tell, _) => self.tell(&held, view),
            (Verdict::Leave, News::Worse) => {
                tracing::info!(
                    ?cause,
                    level = notification.found.level,
                    "alert already claimed by another instance"
                );
                if let Some(held) = self.together.leave(&notification, held) {
                    self.tell(&held, view);
                }
            }
            (Verdict::Leave, News::Better) => {
                self.served
                    .iter()
                    .for_each(|running| running.sink.forget(cause, notification.found.level));
            }
            (Verdict::Leave, News::Flapped) => {}
            (Verdict::TakeOver, _) => {
                let level = notification.found.level.max(notification.before);
                let known = Known {
                    cause: cause.clone(),
                    level,
                    at: held.at,
                    staged: notification.staged,
                };
                self.served
                    .iter()
                    .for_each(|running| running.sink.learn(known.clone()));
                if news == News::Better {
                    self.tell(&held, view);
                }
            }
        }
    }

    /// Collects the current conditions of all subjects.
    fn found(&mut self, view: &StatusView, now: At) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut unavailable_in_drill = Vec::new();
        for provider in self.means.published.borrow().backends.iter() {
            let vitals = provider.vitals.borrow().clone();
            let staged = provider.drills.shadows();
            if vitals.state != ProviderState::Disabled && !vitals.can_be_asked(now) {
                unavailable_in_drill.push(staged);
            }
            found.extend(seen::provider(&provider.name, &vitals, staged, now));
        }
        // While recovery is debounced no provider is unavailable; the last state still holds.
        if !unavailable_in_drill.is_empty() {
            self.staged = unavailable_in_drill.iter().all(|staged| *staged);
        }
        let report = self.means.reports.borrow();
        let open = report
            .incidents
            .first()
            .filter(|incident| incident.ended.is_none());
        found.push(seen::mode(
            view.mode,
            open.map(|incident| incident.cause.as_str()),
            self.staged,
        ));
        // A problem at startup is sent once, and is over if the replacement store works.
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
        let Held {
            told: notification,
            at,
            ..
        } = held;
        let mode = match (&notification.found.cause, notification.found.level) {
            (Cause::Mode, 0) => Mode::Normal,
            (Cause::Mode, 1) => Mode::Degraded,
            (Cause::Mode, _) => Mode::Outage,
            _ => view.mode,
        };
        // A notification of the mode belongs to the incident even if it has just been closed.
        let is_mode = notification.found.cause == Cause::Mode;
        let incident = view
            .incident
            .clone()
            .or_else(|| self.incident.clone().filter(|_| is_mode));
        let alert = Alert::of(
            notification,
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
            cause: notification.found.cause.clone(),
            level: notification.found.level,
            news: notification.news(),
            alert,
        };
        self.served
            .iter()
            .for_each(|running| running.sink.push(envelope.clone(), *at));
    }
}

/// Loads what a sink received before a restart. Empty if the store cannot tell.
async fn recalled(store: &dyn Store, kind: Kind) -> Vec<Known> {
    let read = tokio::time::timeout(RECALL_LIMIT, store.note(kind.note().to_owned())).await;
    let text = read.ok().and_then(Result::ok).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// The alerts that every sink received. An alert missing at one sink is sent again, and the queues
/// of the others skip it.
fn told_to_all(sinks: &[Arc<Sink>]) -> Vec<Known> {
    let delivered: Vec<Vec<Known>> = sinks.iter().map(|sink| sink.known()).collect();
    let Some((first, others)) = delivered.split_first() else {
        return Vec::new();
    };
    let lowest = |state: &Known| {
        let level = |known: &Vec<Known>| {
            known
                .iter()
                .find(|other| other.cause == state.cause)
                .map_or(0, |other| other.level)
        };
        let level = others
            .iter()
            .map(level)
            .fold(state.level, std::cmp::Ord::min);
        (level > 0).then(|| Known {
            level,
            ..state.clone()
        })
    };
    first.iter().filter_map(lowest).collect()
}

#[cfg(test)]
mod tests;
