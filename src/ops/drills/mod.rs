//! Outage drills: who begins them, and sees to it that they end, that nothing stays of them, and that what came of them is known.
//!
//! One at a time a provider. Each is carried through by a task of its own (`course`), which nobody needs to wait for. Should that task die, the
//! drill ends with it, and at its time in any case: the switch itself knows until when.

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

/// How long an operator who ends a drill waits for what it left to be lifted.
const END_LIMIT: Duration = Duration::from_secs(3);

/// What drills are made with.
pub struct Means {
    /// Where turns are answered, and whose providers are drilled.
    pub desk: Arc<Desk>,
    /// The service's state.
    pub status: watch::Receiver<Arc<StatusView>>,
    /// Where the tasks live: longer than the request that begins a drill.
    pub runtime: Handle,
}

/// All drills of the service.
pub struct Drills {
    means: Means,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<Arc<str>, Running>,
    reports: Reports,
    /// The places of earlier processes' reports that do not read, until others take them.
    unread: BTreeSet<usize>,
}

/// A drill that runs, as those see it who may end it.
#[derive(Clone)]
struct Running {
    view: DrillView,
    /// Tells its task to end.
    stop: watch::Sender<bool>,
    /// True once it has ended and what it left is lifted.
    over: watch::Receiver<bool>,
}

/// Why a drill was not begun.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotBegun {
    /// Nobody has that name.
    #[error("no provider has that name; there are: {}", .0.join(", "))]
    NoProvider(Vec<String>),
    /// One runs there.
    #[error("a drill ({}) runs at {} until {}; end it first", .0.fault, .0.provider, .0.until)]
    Runs(DrillView),
    /// Nobody would see it.
    #[error("the provider is switched off, so a drill would show nothing; enable it first")]
    Disabled,
}

impl Drills {
    /// None yet. The planned ones come by themselves where [`keep_schedule`] runs.
    pub fn new(means: Means) -> Arc<Self> {
        Arc::new(Self {
            means,
            state: Mutex::default(),
        })
    }

    /// Begins a drill. It ends by itself.
    ///
    /// # Errors
    /// See [`NotBegun`].
    pub fn begin(
        self: &Arc<Self>,
        provider: &str,
        terms: Terms,
        scheduled: bool,
    ) -> Result<DrillView, NotBegun> {
        let backend = self.backend(provider)?;
        if backend.vitals.borrow().state == ProviderState::Disabled {
            return Err(NotBegun::Disabled);
        }
        let name = Arc::clone(&backend.name);
        let mut state = self.lock();
        if let Some(known) = state.running.get(&name) {
            return Err(NotBegun::Runs(known.view.clone()));
        }
        let id = format!("drill-{:016x}", (self.means.desk.random)());
        let begun = Course::begin(&self.means.desk, backend, terms, id, scheduled);
        let course = begun.map_err(|known| NotBegun::Runs(known.view(&name)))?;
        let view = course.view();
        let (stop, stopped) = watch::channel(false);
        let (tell, over) = watch::channel(false);
        state.running.insert(
            Arc::clone(&name),
            Running {
                view: view.clone(),
                stop,
                over,
            },
        );
        drop(state);
        tracing::warn!(provider = %name, fault = view.fault, share = view.share, until = %view.until, scheduled,
            "an outage drill begins");
        let ends = Ends {
            drills: Arc::clone(self),
            name,
            tell,
        };
        self.means.runtime.spawn(async move {
            let drills = Arc::clone(&ends.drills);
            let file = |report| drills.file(report);
            course.run(stopped, file, move || drop(ends)).await;
        });
        Ok(view)
    }

    /// Ends the drill of this provider, or all; gives those that ran, when what they left is lifted, or some seconds have passed.
    ///
    /// # Errors
    /// Nobody has that name.
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
        for one in &chosen {
            one.stop.send_replace(true);
        }
        let mut ended = Vec::new();
        for mut one in chosen {
            if tokio::time::timeout(END_LIMIT, one.over.wait_for(|over| *over))
                .await
                .is_err()
            {
                tracing::warn!(provider = %one.view.provider, "what a drill left is not lifted yet");
            }
            ended.push(one.view);
        }
        Ok(ended)
    }

    /// The drills that run.
    pub fn running(&self) -> Vec<DrillView> {
        self.lock()
            .running
            .values()
            .map(|one| one.view.clone())
            .collect()
    }

    /// What came of the last ones, newest first.
    pub fn reports(&self) -> Vec<Report> {
        self.lock().reports.all()
    }

    /// Runs a planned drill, where all is well; else files that it was not run, and why.
    fn planned(self: &Arc<Self>, plan: &DrillSettings) {
        let terms = Terms {
            fault: plan.fault,
            share: 1.0,
            lasts: plan.duration,
        };
        let why = match self.hindrance() {
            Some(why) => why,
            None => match self.begin(&plan.provider, terms, true) {
                Ok(_) => return,
                Err(error) => error.to_string(),
            },
        };
        tracing::warn!(provider = plan.provider, fault = %plan.fault, reason = why, "a planned drill is skipped");
        let desk = &self.means.desk;
        let now = desk.clock.wall();
        self.file(Report {
            id: format!("drill-{:016x}", (desk.random)()),
            drill: DrillView {
                provider: plan.provider.as_str().into(),
                fault: plan.fault.to_string(),
                share: 1.0,
                from: now,
                until: now.plus(plan.duration),
            },
            scheduled: true,
            skipped: Some(why),
            ended: None,
            ended_by: None,
            calls: Calls::default(),
            turns: Default::default(),
            breaker: BreakerSeen::default(),
        });
    }

    /// Why no planned drill may be run now.
    fn hindrance(&self) -> Option<String> {
        if let Some(one) = self.running().first() {
            return Some(format!("another drill runs, at {}", one.provider));
        }
        match self.means.status.borrow().mode {
            Mode::Normal => None,
            Mode::Degraded => Some("the service was not in its normal mode: degraded".to_owned()),
            Mode::Outage => Some("the service was not in its normal mode: an outage".to_owned()),
        }
    }

    fn backend(&self, name: &str) -> Result<Arc<Backend>, NotBegun> {
        let table = self.means.desk.table();
        let known = || {
            table
                .backends
                .iter()
                .map(|one| one.name.to_string())
                .collect()
        };
        table
            .backend(name)
            .cloned()
            .ok_or_else(|| NotBegun::NoProvider(known()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped when a drill is over, also in a panic of its task: another may begin there.
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
