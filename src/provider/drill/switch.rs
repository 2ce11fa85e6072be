//! The fault switch of a provider, and a call's view of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::effect::{self, Met, Next};
use crate::chat::{At, DrillView};
use crate::settings::Fault;

#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    pub fault: Fault,
    /// The share of calls that are affected, above 0 and up to 1.
    pub share: f64,
    pub lasts: Duration,
}

#[derive(Debug)]
pub struct Drill {
    pub terms: Terms,
    pub from: At,
    pub until: At,
    /// `ends_at` on the monotonic clock, which decides.
    pub ends: Instant,
    /// Unique within the process.
    number: u64,
    calls: AtomicU64,
    befallen: AtomicU64,
}

impl Drill {
    /// Returns the number of calls made or running during the drill, and of those affected by it.
    pub fn calls(&self) -> (u64, u64) {
        (
            self.calls.load(Ordering::Relaxed),
            self.befallen.load(Ordering::Relaxed),
        )
    }

    pub fn view(&self, provider: &Arc<str>) -> DrillView {
        DrillView {
            provider: Arc::clone(provider),
            fault: self.terms.fault.to_string(),
            share: self.terms.share,
            from: self.from,
            until: self.until,
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }
}

/// Injects faults into a provider's calls, one drill at a time. Belongs to the provider, so it
/// outlives the actor.
#[derive(Debug)]
pub struct Switch {
    drill: watch::Sender<Option<Arc<Drill>>>,
    /// Set from the start of a drill until the breaker is reset after it.
    shadow: AtomicBool,
    chance: fn() -> f64,
}

impl Switch {
    pub fn new(chance: fn() -> f64) -> Self {
        Self {
            drill: watch::Sender::new(None),
            shadow: AtomicBool::new(false),
            chance,
        }
    }

    /// Starts a drill now.
    ///
    /// # Errors
    /// Returns the running drill if there is one.
    pub fn begin(&self, terms: Terms, now: At) -> Result<Arc<Drill>, Arc<Drill>> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let drill = Arc::new(Drill {
            from: now,
            until: now.plus(terms.lasts),
            ends: Instant::now() + terms.lasts,
            terms,
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            calls: AtomicU64::new(0),
            befallen: AtomicU64::new(0),
        });
        let mut running = None;
        self.drill.send_if_modified(|present| {
            running = present.clone().filter(|drill| !drill.is_over());
            if running.is_none() {
                self.shadow.store(true, Ordering::SeqCst);
                *present = Some(Arc::clone(&drill));
            }
            running.is_none()
        });
        running.map_or(Ok(drill), Err)
    }

    /// Stops the drill, unless another one has replaced it.
    pub fn end(&self, drill: &Drill) {
        self.drill.send_if_modified(|present| {
            let is_this = present
                .as_ref()
                .is_some_and(|running| running.number == drill.number);
            is_this.then(|| present.take()).is_some()
        });
    }

    /// To be called after the reset that follows a drill: the breaker's state is real again.
    pub fn lifted(&self) {
        self.shadow
            .store(self.running().is_some(), Ordering::SeqCst);
    }

    pub fn running(&self) -> Option<Arc<Drill>> {
        self.drill.borrow().clone().filter(|drill| !drill.is_over())
    }

    /// Returns `true` if the breaker's state may be the effect of a drill. Then it is neither saved
    /// nor published.
    pub fn shadows(&self) -> bool {
        self.shadow.load(Ordering::SeqCst)
    }

    pub(super) fn call(&self) -> Call {
        let mut call = Call {
            drill: self.drill.subscribe(),
            chance: self.chance,
            known: 0,
            under: None,
            told: 0,
        };
        call.look();
        if let Some(under) = &mut call.under {
            under.born = true;
        }
        call
    }
}

pub(super) struct Call {
    drill: watch::Receiver<Option<Arc<Drill>>>,
    chance: fn() -> f64,
    /// The number of the last drill for which the call has drawn.
    known: u64,
    under: Option<Under>,
    told: u32,
}

struct Under {
    drill: Arc<Drill>,
    born: bool,
}

impl Call {
    pub(super) fn is_befallen(&self) -> bool {
        self.under.is_some()
    }

    /// Returns `true` if a drill started or ended since the last [`TrackedCall::changed`], which
    /// then returns at once.
    pub(super) fn is_out_of_date(&self) -> bool {
        let over = self
            .under
            .as_ref()
            .is_some_and(|under| under.drill.is_over());
        over || self.drill.has_changed().unwrap_or_default()
    }

    /// Returns the fate of the new call, or `None` if no drill affects it.
    pub(super) fn met(&self) -> Option<Met> {
        self.under
            .as_ref()
            .map(|under| effect::met(under.drill.terms.fault))
    }

    /// Returns the fate of its answer from here on. `is_last`: no more tokens follow.
    pub(super) fn next(&self, is_last: bool) -> Next {
        self.under.as_ref().map_or(Next::GoOn, |under| {
            effect::next(
                under.drill.terms.fault,
                Some(self.told).filter(|_| under.born && !is_last),
            )
        })
    }

    pub(super) fn tell(&mut self, tokens: u32) {
        self.told = self.told.saturating_add(tokens);
    }

    /// Waits until a drill starts or ends, or the call's own drill runs out. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match &self.under {
            None => {
                if self.drill.changed().await.is_err() {
                    // The switch is gone, so no drill can start.
                    std::future::pending::<()>().await;
                }
            }
            Some(under) => {
                // The drill is over at its deadline, even if nobody stops it.
                drop(tokio::time::timeout_at(under.drill.ends, self.drill.changed()).await);
            }
        }
        self.look();
    }

    /// Looks up the running drill. For a drill not seen before, draws whether it affects this call.
    fn look(&mut self) {
        let drill = self
            .drill
            .borrow_and_update()
            .clone()
            .filter(|drill| !drill.is_over());
        let Some(drill) = drill else {
            self.under = None;
            return;
        };
        if drill.number == self.known {
            return;
        }
        self.known = drill.number;
        let is_affected = effect::befalls(drill.terms.share, (self.chance)());
        drill.calls.fetch_add(1, Ordering::Relaxed);
        drill
            .befallen
            .fetch_add(u64::from(is_affected), Ordering::Relaxed);
        self.under = is_affected.then_some(Under { drill, born: false });
    }
}
