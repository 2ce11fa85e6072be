//! One drill from its beginning to its report.

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

/// How long the provider's actor may take to lift what a drill left; being rebuilt, it is asked again.
const LIFT_LIMIT: Duration = Duration::from_secs(2);

/// How long it is watched after the end whether the provider can be asked again.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two looks at turns that have not ended yet, and the margin beyond the longest that a turn may take.
const LOOK: Duration = Duration::from_millis(100);

/// A drill under way.
pub(super) struct Course {
    armed: Armed,
    watching: Watching,
    begun: Instant,
    scheduled: bool,
    id: String,
    breaker: BreakerSeen,
    vitals: watch::Receiver<Vitals>,
    /// Whether the breaker was closed when it was last looked at.
    closed: bool,
}

impl Course {
    /// Begins a drill: from now on it befalls calls, and nothing that is answered is saved.
    ///
    /// # Errors
    /// The one that runs there.
    pub(super) fn begin(
        desk: &Arc<Desk>,
        backend: Arc<Backend>,
        terms: Terms,
        id: String,
        scheduled: bool,
    ) -> Result<Self, Arc<Drill>> {
        let watching = desk.tally.witness().watch(Arc::clone(&backend.name));
        let mut vitals = backend.vitals.clone();
        let closed = vitals.borrow_and_update().state == ProviderState::Closed;
        let armed = Armed::arm(desk, backend, terms)?;
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

    /// As everyone is told of it.
    pub(super) fn view(&self) -> DrillView {
        self.armed.drill.view(&self.armed.backend.name)
    }

    /// Carries it through. `over` is called once, when what it left is lifted; `file` first then, and again when the last of its turns has ended.
    pub(super) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        file: impl Fn(Report),
        over: impl FnOnce(),
    ) {
        let ended_by = self.watch(&mut stop).await;
        let (ended, clock) = (Instant::now(), self.armed.desk.clock);
        let at = clock.wall();
        // First what was seen at the end, then the lifting, which closes the breaker.
        self.note();
        let open = !self.armed.backend.vitals.borrow().can_be_asked(at);
        self.armed.lift().await;
        if open {
            let mut vitals = self.vitals.clone();
            let again = vitals.wait_for(|vitals| vitals.can_be_asked(clock.wall()));
            let again = tokio::time::timeout(CLOSE_LIMIT, again).await.is_ok();
            self.breaker.closed_after_ms = again.then(|| millis(ended.elapsed()));
        }
        self.watching.over();
        let report = self.report(at, ended_by);
        let (turns, calls) = (&report.turns, report.calls);
        tracing::warn!(provider = %report.drill.provider, fault = report.drill.fault, by = ?ended_by, befallen = calls.befallen,
            turns = turns.turns, degraded = turns.degraded, opened_ms = self.breaker.opened_after_ms, "an outage drill ended");
        file(report);
        over();
        // A turn has its own limit; what does not end within it has ended some other way.
        let limit = self.armed.desk.table().settings.timeouts.turn + CLOSE_LIMIT;
        while self.watching.seen().under_way > 0 && ended.elapsed() < limit {
            tokio::time::sleep(LOOK).await;
        }
        file(self.report(at, ended_by));
    }

    /// Watches the breaker until the drill is to end.
    async fn watch(&mut self, stop: &mut watch::Receiver<bool>) -> EndedBy {
        let ends = self.armed.drill.ends;
        loop {
            tokio::select! {
                biased;
                () = told(stop) => return EndedBy::Operator,
                () = tokio::time::sleep_until(ends) => return EndedBy::Time,
                () = changed(&mut self.vitals) => self.note(),
            }
        }
    }

    /// Takes note of what the breaker is now.
    fn note(&mut self) {
        let (state, waits) = {
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
        if closed && waits.is_some_and(|until| until > self.armed.desk.clock.wall()) {
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

/// The provider's switch while it is on. Dropping it ends the drill, and has what it left lifted.
struct Armed {
    desk: Arc<Desk>,
    backend: Arc<Backend>,
    drill: Arc<Drill>,
    lifted: bool,
}

impl Armed {
    fn arm(desk: &Arc<Desk>, backend: Arc<Backend>, terms: Terms) -> Result<Self, Arc<Drill>> {
        // First this, so that there is no call under the drill whose answer may be saved.
        desk.shelf.drill_begins();
        match backend.drills.begin(terms, desk.clock.wall()) {
            Ok(drill) => Ok(Self {
                desk: Arc::clone(desk),
                backend,
                drill,
                lifted: false,
            }),
            Err(known) => {
                desk.shelf.drill_ends();
                Err(known)
            }
        }
    }

    /// Ends the drill, then what it left: the breaker is closed again. Where its actor does not answer, which is being rebuilt then, it is asked
    /// again for a while.
    async fn lift(&mut self) {
        self.backend.drills.end(&self.drill);
        let mut actor = self.backend.actor.clone();
        let lifted = async {
            loop {
                let Ok(Some(here)) = actor.wait_for(Option::is_some).await.map(|one| one.clone())
                else {
                    return;
                };
                if here.send(DrillOver).await.is_ok() {
                    return;
                }
                // It ended: the next one's address is on its way.
                if actor.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(LIFT_LIMIT, lifted).await.is_err() {
            tracing::error!(provider = %self.backend.name,
                "the provider's actor does not answer after a drill; its breaker may stay open until its next probe");
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
            // Once a drill, so that a mailbox without bound is bounded.
            if let Some(actor) = &*self.backend.actor.borrow() {
                actor.do_send(DrillOver);
            }
            self.ended();
        }
    }
}

/// Waits until it is told to end. Where nobody can tell it any more, only time ends it.
async fn told(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the vitals change; of a provider that is gone, for ever.
async fn changed(vitals: &mut watch::Receiver<Vitals>) {
    if vitals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
