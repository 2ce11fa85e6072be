//! One provider's fault switch, and how a call sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::effect::{self, Met, Next};
use crate::chat::{At, DrillView};
use crate::settings::Fault;

/// What a drill is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// What befalls the provider.
    pub fault: Fault,
    /// The share of calls that it befalls, above 0 and up to 1.
    pub share: f64,
    /// For how long.
    pub lasts: Duration,
}

/// A drill that was begun.
#[derive(Debug)]
pub struct Drill {
    /// What it does.
    pub terms: Terms,
    /// When it began.
    pub from: At,
    /// When it ends by itself.
    pub until: At,
    /// The same on the monotonic clock: this one counts.
    pub ends: Instant,
    /// Tells it from every other of this process.
    number: u64,
    calls: AtomicU64,
    befallen: AtomicU64,
}

impl Drill {
    /// How many calls were made under it or were under way when it began, and how many of these it befell.
    pub fn calls(&self) -> (u64, u64) {
        (
            self.calls.load(Ordering::Relaxed),
            self.befallen.load(Ordering::Relaxed),
        )
    }

    /// As everyone is told of it.
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

/// Puts a provider's calls under a drill. Belongs to the backend, so it outlives the actor; one drill at a time.
#[derive(Debug)]
pub struct Switch {
    drill: watch::Sender<Option<Arc<Drill>>>,
    /// From the beginning of a drill until what it left is lifted.
    shadow: AtomicBool,
    /// A random number in 0..1.
    chance: fn() -> f64,
}

impl Switch {
    /// One with no drill, that draws the calls of a share by this chance.
    pub fn new(chance: fn() -> f64) -> Self {
        Self {
            drill: watch::Sender::new(None),
            shadow: AtomicBool::new(false),
            chance,
        }
    }

    /// Begins a drill now.
    ///
    /// # Errors
    /// The one that runs.
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
        let mut known = None;
        self.drill.send_if_modified(|present| {
            known = present.clone().filter(|one| !one.is_over());
            if known.is_none() {
                self.shadow.store(true, Ordering::SeqCst);
                *present = Some(Arc::clone(&drill));
            }
            known.is_none()
        });
        known.map_or(Ok(drill), Err)
    }

    /// Ends the drill, if it is this one that runs.
    pub fn end(&self, drill: &Drill) {
        self.drill.send_if_modified(|present| {
            let runs = present
                .as_ref()
                .is_some_and(|one| one.number == drill.number);
            runs.then(|| present.take()).is_some()
        });
    }

    /// What the drill left is lifted: what the breaker becomes from now on is the provider's own doing.
    pub fn lifted(&self) {
        self.shadow
            .store(self.running().is_some(), Ordering::SeqCst);
    }

    /// The drill that runs.
    pub fn running(&self) -> Option<Arc<Drill>> {
        self.drill.borrow().clone().filter(|drill| !drill.is_over())
    }

    /// Whether the breaker's state may be a drill's doing: then it is nothing to remember, or to tell other instances.
    pub fn shadows(&self) -> bool {
        self.shadow.load(Ordering::SeqCst)
    }

    /// A call that is made now.
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

/// A call, as far as drills go.
pub(super) struct Call {
    drill: watch::Receiver<Option<Arc<Drill>>>,
    chance: fn() -> f64,
    /// The number of the last drill that it was drawn for.
    known: u64,
    /// The drill that befalls it.
    under: Option<Under>,
    told: u32,
}

struct Under {
    drill: Arc<Drill>,
    /// Whether the call was made under it.
    born: bool,
}

impl Call {
    /// Whether a drill befalls it now.
    pub(super) fn is_befallen(&self) -> bool {
        self.under.is_some()
    }

    /// Whether a drill began or ended that it has not seen: then [`Call::changed`] is there at once.
    pub(super) fn is_out_of_date(&self) -> bool {
        let over = self
            .under
            .as_ref()
            .is_some_and(|under| under.drill.is_over());
        over || self.drill.has_changed().unwrap_or_default()
    }

    /// How it is met; none where no drill befalls it.
    pub(super) fn met(&self) -> Option<Met> {
        self.under
            .as_ref()
            .map(|under| effect::met(under.drill.terms.fault))
    }

    /// What its answer does next. `last`: no more tokens are to come.
    pub(super) fn next(&self, last: bool) -> Next {
        self.under.as_ref().map_or(Next::GoOn, |under| {
            effect::next(
                under.drill.terms.fault,
                Some(self.told).filter(|_| under.born && !last),
            )
        })
    }

    /// It told so many more tokens.
    pub(super) fn tell(&mut self, tokens: u32) {
        self.told = self.told.saturating_add(tokens);
    }

    /// Waits until a drill begins or ends, this call's own at its time. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match &self.under {
            None => {
                if self.drill.changed().await.is_err() {
                    // Nobody is left to begin one.
                    std::future::pending::<()>().await;
                }
            }
            Some(under) => {
                // At its time it is over, whether or not anyone ends it.
                drop(tokio::time::timeout_at(under.drill.ends, self.drill.changed()).await);
            }
        }
        self.look();
    }

    /// Sees which drill runs. One that it has not seen yet draws whether it befalls this call.
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
        let befallen = effect::befalls(drill.terms.share, (self.chance)());
        drill.calls.fetch_add(1, Ordering::Relaxed);
        drill
            .befallen
            .fetch_add(u64::from(befallen), Ordering::Relaxed);
        self.under = befallen.then_some(Under { drill, born: false });
    }
}
