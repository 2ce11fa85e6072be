//! One drill, from its start to its report.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::report::{BreakerSeen, Calls, EndedBy, Report};
use crate::chat::{At, DrillView, ProviderState};
use crate::provider::actor::DrillOver;
use crate::provider::backend::{Backend, Vitals};
use crate::provider::drill::{Drill, Terms};
use crate::turn::desk::Desk;
use crate::turn::witness::Watching;

/// The time within which the provider's actor must reset its breaker, restarts included.
const LIFT_LIMIT: Duration = Duration::from_secs(2);

/// The maximum wait after the end for the provider to be available again.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The interval at which turns that have not ended are checked.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Course {
    armed: Armed,
    watching: Watching,
    begun: Instant,
    scheduled: bool,
    id: String,
    breaker: BreakerSeen,
    vitals: watch::Receiver<Vitals>,
    /// The breaker was closed when it was last checked.
    closed: bool,
}

impl Course {
    /// Starts a drill: from now on it affects calls, and no answer is cached.
    ///
    /// # Errors
    /// The drill that already runs at the provider.
    pub(super) fn begin(
        service: &Arc<Desk>,
        provider: Arc<Backend>,
        terms: Terms,
        id: String,
        scheduled: bool,
    ) -> Result<Self, Arc<Drill>> {
        let watching = service.tally.witness().watch(Arc::clone(&provider.name));
        let mut vitals = provider.vitals.clone();
        let closed = vitals.borrow_and_update().state == ProviderState::Closed;
        let armed = Armed::arm(service, provider, terms)?;
        let breaker = BreakerSeen::default();
        Ok(Self {
            armed,
            watching,
            begun: Instant::now(),
            scheduled,
            id,
            breaker,
            vitals,
            closed,
        })
    }

    pub(super) fn view(&self) -> DrillView {
        self.armed.drill.view(&self.armed.backend.name)
    }

    /// Runs the drill to its end. `over` is called once its effects are cleared. `file` is called
    /// right before, and again when the last turn of the drill has ended.
    pub(super) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        file: impl Fn(Report),
        over: impl FnOnce(),
    ) {
        let ended_by = self.watch(&mut stop).await;
        let ended = Instant::now();
        let clock = self.armed.desk.clock;
        let at = clock.wall();
        // Record the breaker's state first: clearing the drill closes it.
        self.note();
        let was_unavailable = !self.armed.backend.vitals.borrow().can_be_asked(at);
        self.armed.lift().await;
        if was_unavailable {
            let mut vitals = self.vitals.clone();
            let recovery = vitals.wait_for(|vitals| vitals.can_be_asked(clock.wall()));
            let recovered = tokio::time::timeout(CLOSE_LIMIT, recovery).await.is_ok();
            self.breaker.closed_after_ms = recovered.then(|| millis(ended.elapsed()));
        }
        self.watching.over();
        let report = self.report(at, ended_by);
        let turns = &report.turns;
        let calls = report.calls;
        tracing::warn!(provider = %report.drill.provider, fault = report.drill.fault, by = ?ended_by, befallen = calls.befallen,
            turns = turns.turns, degraded = turns.degraded, opened_ms = self.breaker.opened_after_ms, "an outage drill ended");
        file(report);
        over();
        // No turn runs longer than this; one that has not ended by now was lost.
        let limit = self.armed.desk.table().settings.timeouts.turn + CLOSE_LIMIT;
        while self.watching.seen().under_way > 0 && ended.elapsed() < limit {
            tokio::time::sleep(LOOK).await;
        }
        file(self.report(at, ended_by));
    }

    /// Records the breaker's changes until the drill ends.
    async fn watch(&mut self, stop: &mut watch::Receiver<bool>) -> EndedBy {
        let end = self.armed.drill.ends;
        loop {
            tokio::select! {
                biased;
                () = told(stop) => return EndedBy::Operator,
                () = tokio::time::sleep_until(end) => return EndedBy::Time,
                () = changed(&mut self.vitals) => self.note(),
            }
        }
    }

    /// Records the current state of the breaker.
    fn note(&mut self) {
        let (state, retry_at) = {
            let vitals = self.vitals.borrow_and_update();
            (vitals.state, vitals.retry_at)
        };
        let after = millis(self.begun.elapsed());
        let closed = state == ProviderState::Closed;
        if self.closed && !closed && state != ProviderState::Disabled {
            self.breaker.opened += 1;
            self.breaker.opened_after_ms.get_or_insert(after);
        }
        self.closed = closed;
        if closed && retry_at.is_some_and(|until| until > self.armed.desk.clock.wall()) {
            self.breaker.limited_after_ms.get_or_insert(after);
        }
    }

    fn report(&self, ended: At, by: EndedBy) -> Report {
        let (total, befallen) = self.armed.drill.calls();
        Report {
            id: self.id.clone(),
            drill: self.view(),
            scheduled: self.scheduled,
            skipped: None,
            ended: Some(ended),
            ended_by: Some(by),
            calls: Calls { total, befallen },
            turns: self.watching.seen(),
            breaker: self.breaker,
        }
    }
}

/// The provider's fault switch while it is on. Dropping it stops the drill and resets the breaker.
struct Armed {
    desk: Arc<Desk>,
    backend: Arc<Backend>,
    drill: Arc<Drill>,
    lifted: bool,
}

impl Armed {
    fn arm(service: &Arc<Desk>, provider: Arc<Backend>, terms: Terms) -> Result<Self, Arc<Drill>> {
        // Pause the cache first, so that no answer under the drill is cached.
        service.shelf.drill_begins();
        match provider.drills.begin(terms, service.clock.wall()) {
            Ok(drill) => Ok(Self {
                desk: Arc::clone(service),
                backend: provider,
                drill,
                lifted: false,
            }),
            Err(known) => {
                service.shelf.drill_ends();
                Err(known)
            }
        }
    }

    /// Stops the drill, then resets the breaker. If the provider's actor is being restarted, the
    /// new one is asked.
    async fn lift(&mut self) {
        self.backend.drills.end(&self.drill);
        let mut actor = self.backend.actor.clone();
        let cleared = async {
            loop {
                let Ok(Some(current)) = actor
                    .wait_for(Option::is_some)
                    .await
                    .map(|address| address.clone())
                else {
                    return;
                };
                if current.send(DrillOver).await.is_ok() {
                    return;
                }
                // The actor exited; wait for the address of the next one.
                if actor.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(LIFT_LIMIT, cleared).await.is_err() {
            tracing::error!(provider = %self.backend.name,
                "provider actor does not answer after drill, breaker may stay open until its next probe");
        }
        self.ended();
    }

    fn ended(&mut self) {
        if !std::mem::replace(&mut self.lifted, true) {
            self.backend.drills.end(&self.drill);
            self.backend.drills.lifted();
            self.desk.shelf.drill_ends();
        }
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if !self.lifted {
            // `do_send` ignores the mailbox capacity, but this happens at most once per drill.
            if let Some(actor) = &*self.backend.actor.borrow() {
                actor.do_send(DrillOver);
            }
            self.ended();
        }
    }
}

/// Waits for a request to stop. Never returns if nobody can request it any more.
async fn told(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for a change of the provider's status. Never returns if the provider is gone.
async fn changed(vitals: &mut watch::Receiver<Vitals>) {
    if vitals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
