//! One drill, from its start to its report.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::report::{BreakerTimeline, CallCounts, DrillReport, EndedBy};
use crate::domain::{DrillView, ProviderState, Timestamp};
use crate::provider::actor::ClearAfterDrill;
use crate::provider::fault_injection::{ActiveDrill, DrillSpec};
use crate::provider::handle::Provider;
use crate::provider::status::ProviderStatus;
use crate::turn::drill_impact::DrillObservation;
use crate::turn::service::TurnService;

/// The time within which the provider's actor must reset its breaker, restarts included.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum wait after the end for the provider to be available again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which turns that have not ended are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct DrillRun {
    fault: FaultGuard,
    observation: DrillObservation,
    started_at: Instant,
    is_scheduled: bool,
    id: String,
    breaker: BreakerTimeline,
    status: watch::Receiver<ProviderStatus>,
    /// The breaker was closed when it was last checked.
    was_closed: bool,
}

impl DrillRun {
    /// Starts a drill: from now on it affects calls, and no answer is cached.
    ///
    /// # Errors
    /// The drill that already runs at the provider.
    pub(super) fn start(
        service: &Arc<TurnService>,
        provider: Arc<Provider>,
        terms: DrillSpec,
        id: String,
        scheduled: bool,
    ) -> Result<Self, Arc<ActiveDrill>> {
        let watching = service.observer.drills.observe(Arc::clone(&provider.name));
        let mut provider_status = provider.status.clone();
        let closed = provider_status.borrow_and_update().state == ProviderState::Closed;
        let armed = FaultGuard::enable(service, provider, terms)?;
        let breaker = BreakerTimeline::default();
        Ok(Self {
            fault: armed,
            observation: watching,
            started_at: Instant::now(),
            is_scheduled: scheduled,
            id,
            breaker,
            status: provider_status,
            was_closed: closed,
        })
    }

    pub(super) fn view(&self) -> DrillView {
        self.fault.drill.view(&self.fault.provider.name)
    }

    /// Runs the drill to its end. `over` is called once its effects are cleared. `file` is called
    /// right before, and again when the last turn of the drill has ended.
    pub(super) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        file: impl Fn(DrillReport),
        over: impl FnOnce(),
    ) {
        let ended_by = self.wait_for_end(&mut stop).await;
        let ended = Instant::now();
        let clock = self.fault.service.clock;
        let at = clock.wall();
        // Record the breaker's state first: clearing the drill closes it.
        self.record_breaker();
        let was_unavailable = !self.fault.provider.status.borrow().is_available(at);
        self.fault.clear().await;
        if was_unavailable {
            let mut provider_status = self.status.clone();
            let recovery = provider_status
                .wait_for(|provider_status| provider_status.is_available(clock.wall()));
            let recovered = tokio::time::timeout(RECOVERY_TIMEOUT, recovery)
                .await
                .is_ok();
            self.breaker.closed_after_ms = recovered.then(|| millis(ended.elapsed()));
        }
        self.observation.stop();
        let report = self.build_report(at, ended_by);
        let turns = &report.turns;
        let calls = report.calls;
        tracing::warn!(provider = %report.drill.provider, fault = report.drill.fault, by = ?ended_by, befallen = calls.affected,
            turns = turns.turns, degraded = turns.degraded, opened_ms = self.breaker.opened_after_ms, "an outage drill ended");
        file(report);
        over();
        // No turn runs longer than this; one that has not ended by now was lost.
        let limit = self.fault.service.config().settings.timeouts.turn + RECOVERY_TIMEOUT;
        while self.observation.impact().under_way > 0 && ended.elapsed() < limit {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        file(self.build_report(at, ended_by));
    }

    /// Records the breaker's changes until the drill ends.
    async fn wait_for_end(&mut self, stop: &mut watch::Receiver<bool>) -> EndedBy {
        let end = self.fault.drill.deadline;
        loop {
            tokio::select! {
                biased;
                () = stop_requested(stop) => return EndedBy::Operator,
                () = tokio::time::sleep_until(end) => return EndedBy::Time,
                () = status_changed(&mut self.status) => self.record_breaker(),
            }
        }
    }

    /// Records the current state of the breaker.
    fn record_breaker(&mut self) {
        let (state, retry_at) = {
            let provider_status = self.status.borrow_and_update();
            (provider_status.state, provider_status.retry_at)
        };
        let after = millis(self.started_at.elapsed());
        let closed = state == ProviderState::Closed;
        if self.was_closed && !closed && state != ProviderState::Disabled {
            self.breaker.times_opened += 1;
            self.breaker.opened_after_ms.get_or_insert(after);
        }
        self.was_closed = closed;
        if closed && retry_at.is_some_and(|until| until > self.fault.service.clock.wall()) {
            self.breaker.rate_limited_after_ms.get_or_insert(after);
        }
    }

    fn build_report(&self, ended: Timestamp, by: EndedBy) -> DrillReport {
        let (total, befallen) = self.fault.drill.calls();
        DrillReport {
            id: self.id.clone(),
            drill: self.view(),
            scheduled: self.is_scheduled,
            skipped: None,
            ended: Some(ended),
            ended_by: Some(by),
            calls: CallCounts {
                total,
                affected: befallen,
            },
            turns: self.observation.impact(),
            breaker: self.breaker,
        }
    }
}

/// The provider's fault switch while it is on. Dropping it stops the drill and resets the breaker.
struct FaultGuard {
    service: Arc<TurnService>,
    provider: Arc<Provider>,
    drill: Arc<ActiveDrill>,
    is_cleared: bool,
}

impl FaultGuard {
    fn enable(
        service: &Arc<TurnService>,
        provider: Arc<Provider>,
        terms: DrillSpec,
    ) -> Result<Self, Arc<ActiveDrill>> {
        // Pause the cache first, so that no answer under the drill is cached.
        service.answer_cache.pause();
        match provider.fault_switch.start(terms, service.clock.wall()) {
            Ok(drill) => Ok(Self {
                service: Arc::clone(service),
                provider,
                drill,
                is_cleared: false,
            }),
            Err(known) => {
                service.answer_cache.resume();
                Err(known)
            }
        }
    }

    /// Stops the drill, then resets the breaker. If the provider's actor is being restarted, the
    /// new one is asked.
    async fn clear(&mut self) {
        self.provider.fault_switch.stop(&self.drill);
        let mut actor = self.provider.actor.clone();
        let cleared = async {
            loop {
                let Ok(Some(current)) = actor
                    .wait_for(Option::is_some)
                    .await
                    .map(|address| address.clone())
                else {
                    return;
                };
                if current.send(ClearAfterDrill).await.is_ok() {
                    return;
                }
                // The actor exited; wait for the address of the next one.
                if actor.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CLEAR_TIMEOUT, cleared).await.is_err() {
            tracing::error!(provider = %self.provider.name,
                "provider actor does not answer after drill, breaker may stay open until its next probe");
        }
        self.mark_cleared();
    }

    fn mark_cleared(&mut self) {
        if !std::mem::replace(&mut self.is_cleared, true) {
            self.provider.fault_switch.stop(&self.drill);
            self.provider.fault_switch.mark_recovered();
            self.service.answer_cache.resume();
        }
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        if !self.is_cleared {
            // `do_send` ignores the mailbox capacity, but this happens at most once per drill.
            if let Some(actor) = &*self.provider.actor.borrow() {
                actor.do_send(ClearAfterDrill);
            }
            self.mark_cleared();
        }
    }
}

/// Waits for a request to stop. Never returns if nobody can request it any more.
async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for a change of the provider's status. Never returns if the provider is gone.
async fn status_changed(provider_status: &mut watch::Receiver<ProviderStatus>) {
    if provider_status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
