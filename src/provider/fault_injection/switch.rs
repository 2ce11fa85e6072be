//! The fault switch of a provider, and a call's view of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::fault::{self, CallFault, StreamFault};
use crate::config::InjectedFault;
use crate::domain::{DrillView, Timestamp};

#[derive(Clone, Debug, PartialEq)]
pub struct DrillSpec {
    pub fault: InjectedFault,
    /// The share of calls that are affected, above 0 and up to 1.
    pub share: f64,
    pub duration: Duration,
}

/// A running drill, or the fault that a visitor of the demo injected.
#[derive(Debug)]
pub struct ActiveDrill {
    pub spec: DrillSpec,
    pub started_at: Timestamp,
    pub ends_at: Timestamp,
    /// `ends_at` on the monotonic clock, which decides.
    pub deadline: Instant,
    /// Unique within the process.
    id: u64,
    calls: AtomicU64,
    affected_calls: AtomicU64,
}

impl ActiveDrill {
    fn new(spec: DrillSpec, now: Timestamp) -> Arc<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            started_at: now,
            ends_at: now.saturating_add(spec.duration),
            deadline: Instant::now() + spec.duration,
            spec,
            id: COUNT.fetch_add(1, Ordering::Relaxed),
            calls: AtomicU64::new(0),
            affected_calls: AtomicU64::new(0),
        })
    }

    /// Returns the number of calls made or running during the drill, and of those affected by it.
    pub fn calls(&self) -> (u64, u64) {
        (
            self.calls.load(Ordering::Relaxed),
            self.affected_calls.load(Ordering::Relaxed),
        )
    }

    pub fn view(&self, provider: &Arc<str>) -> DrillView {
        DrillView {
            provider: Arc::clone(provider),
            fault: self.spec.fault.to_string(),
            share: self.spec.share,
            from: self.started_at,
            until: self.ends_at,
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// What is injected into a provider's calls.
#[derive(Debug, Default)]
struct Injections {
    drill: Option<Arc<ActiveDrill>>,
    demo_fault: Option<Arc<ActiveDrill>>,
}

impl Injections {
    fn drill(&self) -> Option<Arc<ActiveDrill>> {
        self.drill.clone().filter(|drill| !drill.is_over())
    }

    /// A drill comes first.
    fn effective(&self) -> Option<Arc<ActiveDrill>> {
        let demo_fault = || self.demo_fault.clone().filter(|fault| !fault.is_over());
        self.drill().or_else(demo_fault)
    }
}

/// Injects faults into a provider's calls, one drill at a time. Belongs to the provider, so it
/// outlives the actor.
#[derive(Debug)]
pub struct FaultSwitch {
    current: watch::Sender<Injections>,
    /// Set from the start of a drill until the breaker is reset after it.
    may_affect_breaker: AtomicBool,
    random_unit: fn() -> f64,
}

impl FaultSwitch {
    pub fn new(random_unit: fn() -> f64) -> Self {
        Self {
            current: watch::Sender::default(),
            may_affect_breaker: AtomicBool::new(false),
            random_unit,
        }
    }

    /// Starts a drill now.
    ///
    /// # Errors
    /// Returns the running drill if there is one.
    pub fn start(
        &self,
        spec: DrillSpec,
        now: Timestamp,
    ) -> Result<Arc<ActiveDrill>, Arc<ActiveDrill>> {
        let drill = ActiveDrill::new(spec, now);
        let mut running = None;
        self.current.send_if_modified(|current| {
            running = current.drill();
            if running.is_none() {
                self.may_affect_breaker.store(true, Ordering::SeqCst);
                current.drill = Some(Arc::clone(&drill));
            }
            running.is_none()
        });
        running.map_or(Ok(drill), Err)
    }

    /// Injects a fault into all calls, as the demo's visitors ask, or ends it. Replaces the one
    /// before; drills are apart from it.
    ///
    /// Unlike a drill it is not reported, and its effects on the breaker are treated as real.
    pub fn set_demo_fault(&self, spec: Option<DrillSpec>, now: Timestamp) {
        let fault = spec.map(|spec| ActiveDrill::new(spec, now));
        self.current
            .send_modify(|current| current.demo_fault = fault);
    }

    /// Stops the drill, unless another one has replaced it.
    pub fn stop(&self, drill: &ActiveDrill) {
        self.current.send_if_modified(|current| {
            current
                .drill
                .take_if(|running| running.id == drill.id)
                .is_some()
        });
    }

    /// To be called after the reset that follows a drill: the breaker's state is real again.
    pub fn mark_recovered(&self) {
        self.may_affect_breaker
            .store(self.active().is_some(), Ordering::SeqCst);
    }

    /// Returns the running drill. The demo's faults are none.
    pub fn active(&self) -> Option<Arc<ActiveDrill>> {
        self.current.borrow().drill()
    }

    /// Returns `true` if the breaker's state may be the effect of a drill. Then it is neither saved
    /// nor published.
    pub fn affects_breaker(&self) -> bool {
        self.may_affect_breaker.load(Ordering::SeqCst)
    }

    pub(super) fn track_call(&self) -> TrackedCall {
        let mut call = TrackedCall {
            changes: self.current.subscribe(),
            random_unit: self.random_unit,
            last_seen_id: 0,
            applied: None,
            tokens_sent: 0,
        };
        call.refresh();
        if let Some(under) = &mut call.applied {
            under.since_start = true;
        }
        call
    }
}

pub(super) struct TrackedCall {
    changes: watch::Receiver<Injections>,
    random_unit: fn() -> f64,
    /// The number of the last drill for which the call has drawn.
    last_seen_id: u64,
    applied: Option<AppliedDrill>,
    tokens_sent: u32,
}

struct AppliedDrill {
    drill: Arc<ActiveDrill>,
    since_start: bool,
}

impl TrackedCall {
    pub(super) fn is_affected(&self) -> bool {
        self.applied.is_some()
    }

    /// Returns `true` if a drill started or ended since the last [`TrackedCall::changed`], which
    /// then returns at once.
    pub(super) fn has_changed(&self) -> bool {
        let over = self
            .applied
            .as_ref()
            .is_some_and(|under| under.drill.is_over());
        over || self.changes.has_changed().unwrap_or_default()
    }

    /// Returns the fate of the new call, or `None` if no drill affects it.
    pub(super) fn call_fault(&self) -> Option<CallFault> {
        self.applied
            .as_ref()
            .map(|under| fault::call_fault(under.drill.spec.fault))
    }

    /// Returns the fate of its answer from here on. `is_last`: no more tokens follow.
    pub(super) fn stream_fault(&self, is_last: bool) -> StreamFault {
        self.applied.as_ref().map_or(StreamFault::None, |under| {
            fault::stream_fault(
                under.drill.spec.fault,
                Some(self.tokens_sent).filter(|_| under.since_start && !is_last),
            )
        })
    }

    pub(super) fn count_tokens(&mut self, tokens: u32) {
        self.tokens_sent = self.tokens_sent.saturating_add(tokens);
    }

    /// Waits until a drill starts or ends, or the call's own drill runs out. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match &self.applied {
            None => {
                if self.changes.changed().await.is_err() {
                    // The switch is gone, so no drill can start.
                    std::future::pending::<()>().await;
                }
            }
            Some(under) => {
                // The drill is over at its deadline, even if nobody stops it.
                drop(tokio::time::timeout_at(under.drill.deadline, self.changes.changed()).await);
            }
        }
        self.refresh();
    }

    /// Looks up the drill in force. For one not seen before, draws whether it affects this call.
    fn refresh(&mut self) {
        let Some(drill) = self.changes.borrow_and_update().effective() else {
            self.applied = None;
            return;
        };
        if drill.id == self.last_seen_id {
            return;
        }
        self.last_seen_id = drill.id;
        let is_affected = fault::selects(drill.spec.share, (self.random_unit)());
        drill.calls.fetch_add(1, Ordering::Relaxed);
        drill
            .affected_calls
            .fetch_add(u64::from(is_affected), Ordering::Relaxed);
        self.applied = is_affected.then_some(AppliedDrill {
            drill,
            since_start: false,
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spec(fault: InjectedFault) -> DrillSpec {
        DrillSpec {
            fault,
            share: 1.0,
            duration: SECOND,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn demo_fault_acts_like_a_drill_and_is_none() {
        let switch = FaultSwitch::new(|| 0.5);
        let demo_fault = |fault: Option<InjectedFault>| {
            switch.set_demo_fault(fault.map(spec), Timestamp(0));
        };
        demo_fault(Some(InjectedFault::Down));
        let mut call = switch.track_call();
        assert_eq!(call.call_fault(), Some(CallFault::ConnectionRefused));
        assert!(switch.active().is_none() && !switch.affects_breaker());
        // Another one replaces it, and a drill comes before both.
        demo_fault(Some(InjectedFault::Cut));
        assert!(call.has_changed());
        call.changed().await;
        assert_eq!(call.stream_fault(false), StreamFault::Reset);
        let drill = switch.start(spec(InjectedFault::Slow), Timestamp(0));
        call.changed().await;
        assert_eq!(call.stream_fault(false), StreamFault::Throttle);
        switch.stop(&drill.unwrap());
        call.changed().await;
        assert_eq!(call.stream_fault(false), StreamFault::Reset);
        // It ends by itself or when it is lifted.
        tokio::time::advance(SECOND).await;
        call.changed().await;
        assert_eq!(switch.track_call().call_fault(), None);
        assert_eq!(call.stream_fault(false), StreamFault::None);
        demo_fault(Some(InjectedFault::Down));
        demo_fault(None);
        assert_eq!(switch.track_call().call_fault(), None);
    }
}
