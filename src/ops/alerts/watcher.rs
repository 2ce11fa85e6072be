//! Polls the service's state and sends the alerts that the rules decide on.

mod sinks;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::sinks::{
    RunningSink, delivered_everywhere, load_delivered, sinks_fingerprint, start_sinks,
};
use super::claims::{AlertClaims, AlertKey, AlertOwnership};
use super::conditions;
use super::dedup::AlertDedup;
use super::payload::{Alert, AlertContext};
use super::queue::{AlertQueue, DeliveredState, QueuedAlert};
use super::rules::{AlertChange, AlertCondition, AlertRules, AlertSubject, Notification};
use super::sink::{Sink, SinkContext, SinkKind};
use crate::config::Settings;
use crate::domain::{ProviderState, ServiceMode, StatusView, Timestamp};
use crate::ops::mode::WORSEN_DELAY;
use crate::ops::status::StatusHistory;
use crate::provider::clock::Clock;
use crate::router::runtime_config::ConfigWatch;
use crate::store::Store;

/// Changes shorter than this are not noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// An alert waits this long for an incident to belong to, which opens once the mode has lasted for
/// [`WORSEN_DELAY`].
const INCIDENT_GRACE: Duration = WORSEN_DELAY.saturating_add(Duration::from_millis(500));

/// Added to the clock, so that alerts of earlier processes have a positive time as well.
const EPOCH_OFFSET: Duration = Duration::from_secs(100 * 24 * 60 * 60);

pub struct AlertDeps {
    /// The providers and the sinks.
    pub config: ConfigWatch,
    pub status: watch::Receiver<Arc<StatusView>>,
    pub history: watch::Receiver<Arc<StatusHistory>>,
    /// Conditions found by the anomaly detector.
    pub warnings: watch::Receiver<Arc<[AlertCondition]>>,
    /// Watched itself; also keeps what the sinks received.
    pub store: Arc<dyn Store>,
    /// Problems found when the store was opened.
    pub startup_problems: Vec<String>,
    /// `None` if this is the only instance.
    pub claims: Option<AlertClaims>,
    pub clock: Clock,
    pub random_u64: fn() -> u64,
    /// Returns a random number in 0..1, for retry delays.
    pub random_unit: fn() -> f64,
}

#[derive(Clone)]
pub struct Alerts {
    sinks: watch::Receiver<Arc<[Arc<Sink>]>>,
    clock: Clock,
}

impl Alerts {
    pub fn start(means: AlertDeps) -> Self {
        let (sinks, running_sinks) = watch::channel(Arc::from(Vec::new()));
        let clock = means.clock;
        actix::spawn(async move { AlertWatcher::start(means, sinks).await.run().await });
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
struct PendingNotification {
    notification: Notification,
    observed_at: Timestamp,
    since: Duration,
}

struct AlertWatcher {
    deps: AlertDeps,
    rules: AlertRules,
    /// The settings that the running sinks were created from.
    settings: Arc<Settings>,
    running: Vec<RunningSink>,
    /// Identifies the configured sinks across instances.
    sinks_fingerprint: String,
    published_sinks: watch::Sender<Arc<[Arc<Sink>]>>,
    pending: VecDeque<PendingNotification>,
    dedup: AlertDedup<PendingNotification>,
    /// The last incident that was open.
    last_incident: Option<String>,
    has_polled: bool,
    /// All providers that were unavailable when any last was had an outage drill.
    is_mode_drill: bool,
}

impl AlertWatcher {
    async fn start(mut means: AlertDeps, shown: watch::Sender<Arc<[Arc<Sink>]>>) -> Self {
        let settings = Arc::clone(&means.config.borrow().settings);
        let rules = AlertRules::new(settings.alerts.min_interval);
        let together = AlertDedup::new(means.claims.take());
        let mut watcher = Self {
            deps: means,
            rules,
            settings,
            running: Vec::new(),
            sinks_fingerprint: String::new(),
            published_sinks: shown,
            pending: VecDeque::new(),
            dedup: together,
            last_incident: None,
            has_polled: false,
            is_mode_drill: false,
        };
        let mut known = Vec::new();
        for kind in SinkKind::ALL {
            known.push((kind, load_delivered(&*watcher.deps.store, kind).await));
        }
        // A mode caused by a drill is shown for a while after it, also across a restart.
        let is_mode_drill =
            |state: &DeliveredState| state.subject == AlertSubject::Mode && state.is_drill;
        watcher.is_mode_drill = known.iter().flat_map(|(_, known)| known).any(is_mode_drill);
        watcher.update_sinks(|kind| {
            let known = known
                .iter()
                .find(|(of, _)| *of == kind)
                .map(|(_, known)| known.clone());
            AlertQueue::restore(known.unwrap_or_default())
        });
        let clock = watcher.deps.clock;
        let now = clock.wall();
        for state in delivered_everywhere(&watcher.published_sinks.borrow()) {
            let sent_at = (EPOCH_OFFSET + clock.now()).saturating_sub(now.since(state.at));
            watcher
                .dedup
                .restore(state.subject.clone(), state.severity, state.is_drill);
            watcher
                .rules
                .restore(state.subject, state.severity, state.is_drill, sent_at);
        }
        watcher
    }

    /// Starts the configured sinks and stops all others. `initial_queue` returns the queue of a
    /// sink kind that had no sink before.
    fn update_sinks(&mut self, initial_queue: impl FnMut(SinkKind) -> AlertQueue) {
        let context = SinkContext {
            store: Arc::clone(&self.deps.store),
            clock: self.deps.clock,
            random_unit: self.deps.random_unit,
        };
        let previous = std::mem::take(&mut self.running);
        self.running = start_sinks(previous, &self.settings.alerts, &context, initial_queue);
        self.sinks_fingerprint = sinks_fingerprint(&self.settings.alerts);
        let sinks = self.running.iter().map(|running| Arc::clone(&running.sink));
        self.published_sinks.send_replace(sinks.collect());
    }

    fn apply_reload(&mut self) {
        let settings = Arc::clone(&self.deps.config.borrow().settings);
        if Arc::ptr_eq(&settings, &self.settings) {
            return;
        }
        self.rules.set_interval(settings.alerts.min_interval);
        self.settings = settings;
        self.update_sinks(|_| AlertQueue::default());
    }

    async fn run(mut self) {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.apply_reload();
            self.poll().await;
        }
    }

    async fn poll(&mut self) {
        let now = EPOCH_OFFSET + self.deps.clock.now();
        let at = self.deps.clock.wall();
        let view = Arc::clone(&self.deps.status.borrow());
        if view.incident.is_some() {
            self.last_incident.clone_from(&view.incident);
        }
        let config = Arc::clone(&self.deps.config.borrow());
        self.rules
            .retain_providers(config.providers.iter().map(|provider| &*provider.name));
        let conditions = self.conditions(&view, at);
        for condition in &conditions {
            if let Some(notification) = self.rules.observe(condition, now) {
                self.pending.push_back(PendingNotification {
                    notification,
                    observed_at: at,
                    since: now,
                });
            }
            // Keep the order: a notification that waits for its incident holds up those behind it.
        }
        while let Some(first) = self.pending.front() {
            let may_have_incident = matches!(
                first.notification.condition.subject,
                AlertSubject::Provider(_) | AlertSubject::Budget(_)
            );
            let waits = may_have_incident
                && first.notification.change() == AlertChange::Raised
                && view.incident.is_none();
            if waits && now.saturating_sub(first.since) < INCIDENT_GRACE {
                break;
            }
            if let Some(next) = self.pending.pop_front() {
                self.route(next, &view).await;
            }
        }
        let served = &self.running;
        let has = |key: &AlertKey| {
            let known = served
                .iter()
                .flat_map(|running| running.sink.delivered_states());
            known
                .into_iter()
                .any(|state| state.subject == key.subject && state.severity >= key.severity)
        };
        for (verdict, held) in self
            .dedup
            .recheck(&self.sinks_fingerprint, &conditions, now, has)
            .await
        {
            self.dispatch(verdict, held, &view);
        }
    }

    /// Enqueues the notification, or defers it to another instance.
    async fn route(&mut self, held: PendingNotification, view: &StatusView) {
        if self.running.is_empty() {
            return self.enqueue(&held, view);
        }
        let interval = self.settings.alerts.min_interval;
        let verdict = self
            .dedup
            .ownership(&self.sinks_fingerprint, &held.notification, interval)
            .await;
        self.dispatch(verdict, held, view);
    }

    fn dispatch(&mut self, verdict: AlertOwnership, held: PendingNotification, view: &StatusView) {
        let notification = held.notification.clone();
        let cause = &notification.condition.subject;
        let news = notification.change();
        match (verdict, news) {
            (AlertOwnership::Send, _) => self.enqueue(&held, view),
            (AlertOwnership::OwnedElsewhere, AlertChange::Raised) => {
                tracing::info!(
                    ?cause,
                    level = notification.condition.severity,
                    "alert already claimed by another instance"
                );
                if let Some(held) = self.dedup.defer(&notification, held) {
                    self.enqueue(&held, view);
                }
            }
            (AlertOwnership::OwnedElsewhere, AlertChange::Cleared) => {
                self.running.iter().for_each(|running| {
                    running
                        .sink
                        .mark_cleared(cause, notification.condition.severity)
                });
            }
            (AlertOwnership::OwnedElsewhere, AlertChange::Flapped) => {}
            (AlertOwnership::TakeOver, _) => {
                let level = notification
                    .condition
                    .severity
                    .max(notification.previous_severity);
                let known = DeliveredState {
                    subject: cause.clone(),
                    severity: level,
                    at: held.observed_at,
                    is_drill: notification.is_drill,
                };
                self.running
                    .iter()
                    .for_each(|running| running.sink.mark_sent_elsewhere(known.clone()));
                if news == AlertChange::Cleared {
                    self.enqueue(&held, view);
                }
            }
        }
    }

    /// Collects the current conditions of all subjects.
    fn conditions(&mut self, view: &StatusView, now: Timestamp) -> Vec<AlertCondition> {
        let mut found = Vec::new();
        let mut unavailable_in_drill = Vec::new();
        for provider in self.deps.config.borrow().providers.iter() {
            let provider_status = provider.status.borrow().clone();
            let staged = provider.fault_switch.affects_breaker();
            if provider_status.state != ProviderState::Disabled
                && !provider_status.is_available(now)
            {
                unavailable_in_drill.push(staged);
            }
            found.extend(conditions::provider_conditions(
                &provider.name,
                &provider_status,
                staged,
                now,
            ));
        }
        // While recovery is debounced no provider is unavailable; the last state still holds.
        if !unavailable_in_drill.is_empty() {
            self.is_mode_drill = unavailable_in_drill.iter().all(|staged| *staged);
        }
        let report = self.deps.history.borrow();
        let open = report
            .incidents
            .first()
            .filter(|incident| incident.ended.is_none());
        found.push(conditions::mode_condition(
            view.mode,
            open.map(|incident| incident.cause.as_str()),
            self.is_mode_drill,
        ));
        // A problem at startup is sent once, and is over if the replacement store works.
        let opened_with = self
            .deps
            .startup_problems
            .first()
            .filter(|_| !self.has_polled || !self.deps.store.is_durable());
        self.has_polled = true;
        found.push(conditions::store_condition(
            opened_with
                .map(String::as_str)
                .or(self.deps.store.problem()),
        ));
        found.extend(self.deps.warnings.borrow().iter().cloned());
        found
    }

    fn enqueue(&self, held: &PendingNotification, view: &StatusView) {
        let notification = &held.notification;
        let condition = &notification.condition;
        let mode = match (&condition.subject, condition.severity) {
            (AlertSubject::Mode, 0) => ServiceMode::Normal,
            (AlertSubject::Mode, 1) => ServiceMode::Degraded,
            (AlertSubject::Mode, _) => ServiceMode::Outage,
            _ => view.mode,
        };
        // A notification of the mode belongs to the incident even if it has just been closed.
        let is_mode = condition.subject == AlertSubject::Mode;
        let incident = view
            .incident
            .clone()
            .or_else(|| self.last_incident.clone().filter(|_| is_mode));
        let alert = Alert::new(
            notification,
            AlertContext {
                mode,
                incident,
                at: held.observed_at,
            },
        );
        tracing::warn!(event = alert.event, provider = alert.provider.as_deref(), mode = ?alert.mode,
            incident = alert.incident, reason = alert.reason, held_back = alert.held_back, "alert");
        let random = self.deps.random_u64;
        let envelope = QueuedAlert {
            id: format!("msg_{:016x}{:016x}", random(), random()),
            subject: condition.subject.clone(),
            severity: condition.severity,
            change: notification.change(),
            alert,
        };
        for running in &self.running {
            running.sink.push(envelope.clone(), held.observed_at);
        }
    }
}

#[cfg(test)]
mod tests;
