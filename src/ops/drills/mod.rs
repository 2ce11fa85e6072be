//! Outage drills: starts and stops them, cleans up after them, and keeps their reports.
//!
//! At most one drill runs per provider, each on a task of its own (`course`). If that task dies,
//! the drill ends with it. It also ends when its time is over, because the fault switch itself
//! knows when that is.

mod course;
mod kept;
mod report;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::chat::{DrillView, Mode, ProviderState, StatusView};
use crate::provider::backend::Backend;
use crate::provider::drill::Terms;
use crate::settings::DrillSettings;
use crate::turn::desk::Desk;

pub use report::{BreakerSeen, Calls, EndedBy, Report};
pub use schedule::run as keep_schedule;

use course::Course;
use report::Reports;

/// The maximum wait of a stop request for the effects to be cleared.
const END_LIMIT: Duration = Duration::from_secs(3);

pub struct Means {
    /// Answers the turns, and has the providers.
    pub desk: Arc<Desk>,
    pub status: watch::Receiver<Arc<StatusView>>,
    /// Runs the drills' tasks, which outlive the request that starts a drill.
    pub runtime: Handle,
}

pub struct Drills {
    means: Means,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<Arc<str>, Running>,
    reports: Reports,
    /// Slots with a report of an earlier process that cannot be decoded, until they are reused.
    unread: BTreeSet<usize>,
}

/// A running drill, as seen by those who may stop it.
#[derive(Clone)]
struct Running {
    view: DrillView,
    /// Set to `true` to stop the drill.
    stop: watch::Sender<bool>,
    /// Becomes `true` once the drill has ended and its effects are cleared.
    over: watch::Receiver<bool>,
}

/// Why a drill was not started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotBegun {
    #[error("no provider has that name; there are: {}", .0.join(", "))]
    NoProvider(Vec<String>),
    #[error("a drill ({}) runs at {} until {}; end it first", .0.fault, .0.provider, .0.until)]
    Runs(DrillView),
    #[error("the provider is switched off, so a drill would show nothing; enable it first")]
    Disabled,
}

impl Drills {
    /// Starts without drills. Scheduled ones run if [`keep_schedule`] runs.
    pub fn new(means: Means) -> Arc<Self> {
        Arc::new(Self {
            means,
            state: Mutex::default(),
        })
    }

    /// Starts a drill, which ends by itself when its time is over.
    pub fn begin(
        self: &Arc<Self>,
        provider: &str,
        terms: Terms,
        scheduled: bool,
    ) -> Result<DrillView, NotBegun> {
        let provider_handle = self.backend(provider)?;
        if provider_handle.vitals.borrow().state == ProviderState::Disabled {
            return Err(NotBegun::Disabled);
        }
        let name = Arc::clone(&provider_handle.name);
        let mut state = self.lock();
        if let Some(known) = state.running.get(&name) {
            return Err(NotBegun::Runs(known.view.clone()));
        }
        let id = format!("drill-{:016x}", (self.means.desk.random)());
        let started = Course::begin(&self.means.desk, provider_handle, terms, id, scheduled);
        let run = started.map_err(|known| NotBegun::Runs(known.view(&name)))?;
        let view = run.view();
        let (stop, stopped) = watch::channel(false);
        let (finished_sender, finished) = watch::channel(false);
        state.running.insert(
            Arc::clone(&name),
            Running {
                view: view.clone(),
                stop,
                over: finished,
            },
        );
        drop(state);
        tracing::warn!(provider = %name, fault = view.fault, share = view.share, until = %view.until, scheduled,
            "an outage drill begins");
        let guard = Ends {
            drills: Arc::clone(self),
            name,
            tell: finished_sender,
        };
        self.means.runtime.spawn(async move {
            let drills = Arc::clone(&guard.drills);
            let file = |report| drills.file(report);
            run.run(stopped, file, move || drop(guard)).await;
        });
        Ok(view)
    }

    /// Stops the drill of this provider, or all. Returns the drills that ran once their effects are
    /// cleared, or after `STOP_TIMEOUT`.
    ///
    /// # Errors
    /// No provider has that name.
    pub async fn end(&self, provider: Option<&str>) -> Result<Vec<DrillView>, NotBegun> {
        let chosen = match provider {
            Some(name) => {
                let running = self.lock().running.get(name).cloned();
                if running.is_none() {
                    self.backend(name)?;
                }
                running.into_iter().collect()
            }
            None => self.lock().running.values().cloned().collect::<Vec<_>>(),
        };
        for drill in &chosen {
            drill.stop.send_replace(true);
        }
        let mut stopped = Vec::new();
        for mut drill in chosen {
            if tokio::time::timeout(END_LIMIT, drill.over.wait_for(|over| *over))
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
        self.lock()
            .running
            .values()
            .map(|drill| drill.view.clone())
            .collect()
    }

    pub fn reports(&self) -> Vec<Report> {
        self.lock().reports.all()
    }

    /// Runs a scheduled drill, or adds a report that it was skipped, and why.
    fn planned(self: &Arc<Self>, plan: &DrillSettings) {
        let terms = Terms {
            fault: plan.fault,
            share: 1.0,
            lasts: plan.duration,
        };
        let reason = match self.hindrance() {
            Some(reason) => reason,
            None => match self.begin(&plan.provider, terms, true) {
                Ok(_) => return,
                Err(error) => error.to_string(),
            },
        };
        tracing::warn!(provider = plan.provider, fault = %plan.fault, reason, "scheduled drill skipped");
        let service = &self.means.desk;
        let now = service.clock.wall();
        self.file(Report {
            id: format!("drill-{:016x}", (service.random)()),
            drill: DrillView {
                provider: plan.provider.as_str().into(),
                fault: plan.fault.to_string(),
                share: 1.0,
                from: now,
                until: now.plus(plan.duration),
            },
            scheduled: true,
            skipped: Some(reason),
            ended: None,
            ended_by: None,
            calls: Calls::default(),
            turns: Default::default(),
            breaker: BreakerSeen::default(),
        });
    }

    /// Returns a reason to skip scheduled drills now.
    fn hindrance(&self) -> Option<String> {
        if let Some(drill) = self.running().first() {
            return Some(format!("another drill runs, at {}", drill.provider));
        }
        match self.means.status.borrow().mode {
            Mode::Normal => None,
            Mode::Degraded => Some("the service was not in its normal mode: degraded".to_owned()),
            Mode::Outage => Some("the service was not in its normal mode: an outage".to_owned()),
        }
    }

    fn backend(&self, name: &str) -> Result<Arc<Backend>, NotBegun> {
        let config = self.means.desk.table();
        let names = || {
            config
                .backends
                .iter()
                .map(|provider| provider.name.to_string())
                .collect()
        };
        config
            .backend(name)
            .cloned()
            .ok_or_else(|| NotBegun::NoProvider(names()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a drill as finished when dropped, also after a panic of its task.
struct Ends {
    drills: Arc<Drills>,
    name: Arc<str>,
    tell: watch::Sender<bool>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.drills.lock().running.remove(&self.name);
        self.tell.send_replace(true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
