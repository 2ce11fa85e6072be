//! Outage drills: starts and stops them, cleans up after them, and keeps their reports.
//!
//! At most one drill runs per provider, each on a task of its own (`course`). If that task dies,
//! the drill ends with it. It also ends when its time is over, because the fault switch itself
//! knows when that is.

mod report;
mod run;
mod storage;

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::DrillSettings;
use crate::domain::{DrillView, ProviderState, ServiceMode, StatusView, Timestamp};
use crate::provider::fault_injection::DrillSpec;
use crate::provider::handle::Provider;
use crate::turn::service::TurnService;

pub use report::{BreakerTimeline, CallCounts, DrillReport, EndedBy};

use report::ReportLog;
use run::DrillRun;

/// The maximum wait of a stop request for the effects to be cleared.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

const MINUTE_MS: u64 = 60_000;

/// The number of missed minutes that are checked later, after the machine slept or its clock was
/// set. Nobody expects a drill that starts later than that.
const MAX_CATCH_UP_MINUTES: u64 = 2;

pub struct DrillDeps {
    /// Answers the turns, and has the providers.
    pub service: Arc<TurnService>,
    pub status: watch::Receiver<Arc<StatusView>>,
    /// Runs the drills' tasks, which outlive the request that starts a drill.
    pub runtime: Handle,
}

pub struct DrillService {
    deps: DrillDeps,
    state: Mutex<DrillState>,
}

#[derive(Default)]
struct DrillState {
    running: BTreeMap<Arc<str>, RunningDrill>,
    reports: ReportLog,
    /// Slots with a report of an earlier process that cannot be decoded, until they are reused.
    unreadable_slots: BTreeSet<usize>,
}

/// A running drill, as seen by those who may stop it.
#[derive(Clone)]
struct RunningDrill {
    view: DrillView,
    /// Set to `true` to stop the drill.
    stop: watch::Sender<bool>,
    /// Becomes `true` once the drill has ended and its effects are cleared.
    finished: watch::Receiver<bool>,
}

/// Why a drill was not started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartDrillError {
    #[error("no provider has that name; there are: {}", .0.join(", "))]
    UnknownProvider(Vec<String>),
    #[error("a drill ({}) runs at {} until {}; end it first", .0.fault, .0.provider, .0.until)]
    AlreadyRunning(DrillView),
    #[error("the provider is switched off, so a drill would show nothing; enable it first")]
    ProviderDisabled,
}

impl DrillService {
    /// Starts without drills. Scheduled ones run if [`run_schedule`] runs.
    pub fn new(means: DrillDeps) -> Arc<Self> {
        Arc::new(Self {
            deps: means,
            state: Mutex::default(),
        })
    }

    /// Starts a drill, which ends by itself when its time is over.
    pub fn start(
        self: &Arc<Self>,
        provider: &str,
        terms: DrillSpec,
        scheduled: bool,
    ) -> Result<DrillView, StartDrillError> {
        let provider_handle = self.find_provider(provider)?;
        if provider_handle.status.borrow().state == ProviderState::Disabled {
            return Err(StartDrillError::ProviderDisabled);
        }
        let name = Arc::clone(&provider_handle.name);
        let mut state = self.state.lock();
        if let Some(known) = state.running.get(&name) {
            return Err(StartDrillError::AlreadyRunning(known.view.clone()));
        }
        let id = format!("drill-{:016x}", (self.deps.service.random_u64)());
        let started = DrillRun::start(&self.deps.service, provider_handle, terms, id, scheduled);
        let run = started.map_err(|known| StartDrillError::AlreadyRunning(known.view(&name)))?;
        let view = run.view();
        let (stop, stopped) = watch::channel(false);
        let (finished_sender, finished) = watch::channel(false);
        state.running.insert(
            Arc::clone(&name),
            RunningDrill {
                view: view.clone(),
                stop,
                finished,
            },
        );
        drop(state);
        tracing::warn!(provider = %name, fault = view.fault, share = view.share, until = %view.until, scheduled,
            "an outage drill begins");
        let guard = FinishGuard {
            service: Arc::clone(self),
            provider: name,
            finished: finished_sender,
        };
        self.deps.runtime.spawn(async move {
            let drills = Arc::clone(&guard.service);
            let file = |report| drills.add_report(report);
            run.run(stopped, file, move || drop(guard)).await;
        });
        Ok(view)
    }

    /// Stops the drill of this provider, or all. Returns the drills that ran once their effects are
    /// cleared, or after `STOP_TIMEOUT`.
    ///
    /// # Errors
    /// No provider has that name.
    pub async fn stop(&self, provider: Option<&str>) -> Result<Vec<DrillView>, StartDrillError> {
        let chosen = match provider {
            Some(name) => {
                let running = self.state.lock().running.get(name).cloned();
                if running.is_none() {
                    self.find_provider(name)?;
                }
                running.into_iter().collect()
            }
            None => self
                .state
                .lock()
                .running
                .values()
                .cloned()
                .collect::<Vec<_>>(),
        };
        for drill in &chosen {
            drill.stop.send_replace(true);
        }
        let mut stopped = Vec::new();
        for mut drill in chosen {
            if tokio::time::timeout(STOP_TIMEOUT, drill.finished.wait_for(|over| *over))
                .await
                .is_err()
            {
                tracing::warn!(provider = %drill.view.provider, "breaker not yet reset after drill");
            }
            stopped.push(drill.view);
        }
        Ok(stopped)
    }

    pub fn running(&self) -> Vec<DrillView> {
        self.state
            .lock()
            .running
            .values()
            .map(|drill| drill.view.clone())
            .collect()
    }

    pub fn reports(&self) -> Vec<DrillReport> {
        self.state.lock().reports.newest_first()
    }

    /// Runs a scheduled drill, or adds a report that it was skipped, and why.
    fn run_scheduled(self: &Arc<Self>, plan: &DrillSettings) {
        let terms = DrillSpec {
            fault: plan.fault,
            share: 1.0,
            duration: plan.duration,
        };
        let reason = match self.reason_to_skip() {
            Some(reason) => reason,
            None => match self.start(&plan.provider, terms, true) {
                Ok(_) => return,
                Err(error) => error.to_string(),
            },
        };
        tracing::warn!(provider = plan.provider, fault = %plan.fault, reason, "scheduled drill skipped");
        let service = &self.deps.service;
        let now = service.clock.wall();
        self.add_report(DrillReport {
            id: format!("drill-{:016x}", (service.random_u64)()),
            drill: DrillView {
                provider: plan.provider.as_str().into(),
                fault: plan.fault.to_string(),
                share: 1.0,
                from: now,
                until: now.saturating_add(plan.duration),
            },
            scheduled: true,
            skipped: Some(reason),
            ended: None,
            ended_by: None,
            calls: CallCounts::default(),
            turns: Default::default(),
            breaker: BreakerTimeline::default(),
        });
    }

    /// Returns a reason to skip scheduled drills now.
    fn reason_to_skip(&self) -> Option<String> {
        if let Some(drill) = self.running().first() {
            return Some(format!("another drill runs, at {}", drill.provider));
        }
        match self.deps.status.borrow().mode {
            ServiceMode::Normal => None,
            ServiceMode::Degraded => {
                Some("the service was not in its normal mode: degraded".to_owned())
            }
            ServiceMode::Outage => {
                Some("the service was not in its normal mode: an outage".to_owned())
            }
        }
    }

    fn find_provider(&self, name: &str) -> Result<Arc<Provider>, StartDrillError> {
        let config = self.deps.service.config();
        let names = || {
            config
                .providers
                .iter()
                .map(|provider| provider.name.to_string())
                .collect()
        };
        config
            .provider(name)
            .cloned()
            .ok_or_else(|| StartDrillError::UnknownProvider(names()))
    }
}

/// Starts scheduled drills until the service stops: each minute of the wall clock, which `wall`
/// reads, is checked once.
pub async fn run_schedule(drills: Arc<DrillService>, wall: impl Fn() -> Timestamp) {
    let mut last = minute_of(wall());
    loop {
        let now = wall();
        let rest_ms = MINUTE_MS - now.0 % MINUTE_MS;
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
        let now = minute_of(wall());
        // Read the configuration each time: a reload may have changed it.
        let config = drills.deps.service.config();
        for minute in missed_minutes(last, now) {
            for drill in config
                .settings
                .drills
                .iter()
                .filter(|drill| drill.at.matches_at(Timestamp(minute * MINUTE_MS)))
            {
                drills.run_scheduled(drill);
            }
        }
        last = now;
    }
}

fn minute_of(at: Timestamp) -> u64 {
    at.0 / MINUTE_MS
}

/// The minutes to check after `last`. After a clock was set back, checks restart at `now`.
fn missed_minutes(last: u64, now: u64) -> impl Iterator<Item = u64> {
    let from = if now < last {
        now
    } else {
        (last + 1).max(now.saturating_sub(MAX_CATCH_UP_MINUTES))
    };
    from..=now
}

/// Marks a drill as finished when dropped, also after a panic of its task.
struct FinishGuard {
    service: Arc<DrillService>,
    provider: Arc<str>,
    finished: watch::Sender<bool>,
}

impl Drop for FinishGuard {
    fn drop(&mut self) {
        self.service.state.lock().running.remove(&self.provider);
        self.finished.send_replace(true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
