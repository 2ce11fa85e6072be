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

/// Injects faults into a provider's calls, one drill at a time. Belongs to the provider, so it
/// outlives the actor.
#[derive(Debug)]
pub struct FaultSwitch {
    current: watch::Sender<Option<Arc<ActiveDrill>>>,
    /// Set from the start of a drill until the breaker is reset after it.
    may_affect_breaker: AtomicBool,
    random_unit: fn() -> f64,
}

impl FaultSwitch {
    pub fn new(chance: fn() -> f64) -> Self {
        Self {
            current: watch::Sender::new(None),
            may_affect_breaker: AtomicBool::new(false),
            random_unit: chance,
        }
    }

    /// Starts a drill now.
    ///
    /// # Errors
    /// Returns the running drill if there is one.
    pub fn start(
        &self,
        terms: DrillSpec,
        now: Timestamp,
    ) -> Result<Arc<ActiveDrill>, Arc<ActiveDrill>> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let drill = Arc::new(ActiveDrill {
            started_at: now,
            ends_at: now.saturating_add(terms.duration),
            deadline: Instant::now() + terms.duration,
            spec: terms,
            id: COUNT.fetch_add(1, Ordering::Relaxed),
            calls: AtomicU64::new(0),
            affected_calls: AtomicU64::new(0),
        });
        let mut running = None;
        self.current.send_if_modified(|present| {
            running = present.clone().filter(|drill| !drill.is_over());
            if running.is_none() {
                self.may_affect_breaker.store(true, Ordering::SeqCst);
                *present = Some(Arc::clone(&drill));
            }
            running.is_none()
        });
        running.map_or(Ok(drill), Err)
    }

    /// Stops the drill, unless another one has replaced it.
    pub fn stop(&self, drill: &ActiveDrill) {
        self.current.send_if_modified(|present| {
            let is_this = present
                .as_ref()
                .is_some_and(|running| running.id == drill.id);
            is_this.then(|| present.take()).is_some()
        });
    }

    /// To be called after the reset that follows a drill: the breaker's state is real again.
    pub fn mark_recovered(&self) {
        self.may_affect_breaker
            .store(self.active().is_some(), Ordering::SeqCst);
    }

    pub fn active(&self) -> Option<Arc<ActiveDrill>> {
        self.current
            .borrow()
            .clone()
            .filter(|drill| !drill.is_over())
    }

    /// Returns `true` if the breaker's state may be the effect of a drill. Then it is neither saved
    /// nor published.
    pub fn affects_breaker(&self) -> bool {
        self.may_affect_breaker.load(Ordering::SeqCst)
    }

    pub(super) fn track_call(&self) -> TrackedCall {
        let mut call = TrackedCall {
            drills: self.current.subscribe(),
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
    drills: watch::Receiver<Option<Arc<ActiveDrill>>>,
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
        over || self.drills.has_changed().unwrap_or_default()
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
                if self.drills.changed().await.is_err() {
                    // The switch is gone, so no drill can start.
                    std::future::pending::<()>().await;
                }
            }
            Some(under) => {
                // The drill is over at its deadline, even if nobody stops it.
                drop(tokio::time::timeout_at(under.drill.deadline, self.drills.changed()).await);
            }
        }
        self.refresh();
    }

    /// Looks up the running drill. For a drill not seen before, draws whether it affects this call.
    fn refresh(&mut self) {
        let drill = self
            .drills
            .borrow_and_update()
            .clone()
            .filter(|drill| !drill.is_over());
        let Some(drill) = drill else {
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
