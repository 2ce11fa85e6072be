//! The providers as they run: a backend and its actor for each, started, changed and let go as the configuration says.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::Actor as _;
use anyhow::Context as _;
use tokio::sync::watch;

use super::backends::{Lasting, Made, Remembered, recalled};
use crate::fleet::Fleet;
use crate::ops::supervisor::Care;
use crate::provider::actor::changing::{Change, Retire};
use crate::provider::actor::{ProviderActor, Seed};
use crate::provider::backend::{Backend, Clock};
use crate::provider::transport::Transports;
use crate::settings::ProviderSettings;
use crate::store::Store;

/// All that run, in order of preference.
pub struct Roster {
    store: Arc<dyn Store>,
    clock: Clock,
    care: Care,
    /// The other instances, where there may be any.
    fleet: Option<Fleet>,
    running: Vec<Running>,
}

struct Running {
    settings: ProviderSettings,
    backend: Arc<Backend>,
    lasting: Lasting,
    /// What its actor is made of, and made of again after a panic.
    seed: Arc<Mutex<Seed>>,
    /// What the supervisor knows it by.
    child: Arc<str>,
}

/// What is to become of the providers: made without touching any of them.
pub struct Plan {
    steps: Vec<Step>,
}

enum Step {
    /// It stays as it is.
    Keep(usize),
    /// It goes by other settings.
    Change {
        place: usize,
        made: Made,
        anew: bool,
    },
    /// It is new.
    Add(Made),
}

/// What became of them, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub added: Vec<String>,
    /// Those that go by other settings.
    pub changed: Vec<String>,
    /// Those that are let go.
    pub removed: Vec<String>,
}

/// Those that are to be let go, once nobody is led to them any more.
pub struct Leaving(Vec<Running>);

impl Roster {
    /// No provider yet.
    pub fn new(store: Arc<dyn Store>, clock: Clock, care: Care, fleet: Option<Fleet>) -> Self {
        Self {
            store,
            clock,
            care,
            fleet,
            running: Vec::new(),
        }
    }

    /// The backends, in order of preference.
    pub fn backends(&self) -> Arc<[Arc<Backend>]> {
        self.running
            .iter()
            .map(|one| Arc::clone(&one.backend))
            .collect()
    }

    /// Looks what has to be done for these providers, and makes what it takes.
    ///
    /// # Errors
    /// A provider's HTTP client cannot be made; nothing has changed then.
    pub fn plan(&self, providers: &[ProviderSettings]) -> anyhow::Result<Plan> {
        let mut transports = Transports::default();
        let mut steps = Vec::new();
        for settings in providers {
            let known = self
                .running
                .iter()
                .position(|one| one.settings.name == settings.name);
            let kept = known.and_then(|place| Some((place, &self.running.get(place)?.settings)));
            if let Some((place, before)) = kept
                && before.is_the_same(settings)
            {
                steps.push(Step::Keep(place));
                continue;
            }
            let transport = transports
                .with_connect(settings.timeouts.connect)
                .with_context(|| {
                    format!("no HTTP client can be made for provider {}", settings.name)
                })?;
            // A drill goes on whatever the settings become.
            let drills =
                known.and_then(|place| Some(Arc::clone(&self.running.get(place)?.backend.drills)));
            let made = Made::new(settings.clone(), transport, self.fleet.as_ref(), drills);
            steps.push(match kept {
                Some((place, before)) => {
                    let anew = !before.is_the_same_service(settings);
                    Step::Change { place, made, anew }
                }
                None => Step::Add(made),
            });
        }
        Ok(Plan { steps })
    }

    /// Carries a plan out. New ones begin as the store remembers them; the others' actors go by their new settings before this returns, but for
    /// what they are asked already. Those that are not in the plan are given back, to be let go by [`Roster::dismiss`].
    pub async fn carry_out(&mut self, plan: Plan, remembered: &Remembered) -> (Changes, Leaving) {
        let mut changes = Changes::default();
        let mut before: Vec<_> = std::mem::take(&mut self.running)
            .into_iter()
            .map(Some)
            .collect();
        for step in plan.steps {
            let mut take = |place: usize| before.get_mut(place).and_then(Option::take);
            let running = match step {
                Step::Keep(place) => take(place),
                Step::Change { place, made, anew } => take(place).map(|mut running| {
                    changes.changed.push(made.settings.name.clone());
                    running.change(made, anew);
                    running
                }),
                Step::Add(made) => {
                    changes.added.push(made.settings.name.clone());
                    Some(self.start(made, remembered).await)
                }
            };
            self.running.extend(running);
        }
        let leaving: Vec<_> = before.into_iter().flatten().collect();
        changes.removed = leaving
            .iter()
            .map(|one| one.settings.name.clone())
            .collect();
        (changes, Leaving(leaving))
    }

    /// Lets providers go that nobody is led to any more: what they are asked they finish, then their actors end.
    pub async fn dismiss(&self, Leaving(leaving): Leaving) {
        for one in leaving {
            self.care.release(one.child).await;
            if let Some(actor) = &*one.backend.actor.borrow() {
                actor.do_send(Retire);
            }
        }
    }

    async fn start(&self, made: Made, remembered: &Remembered) -> Running {
        let vitals = Arc::new(watch::Sender::new(recalled(
            &made.settings.name,
            remembered,
        )));
        let (place, actor) = watch::channel(None);
        let voice = Arc::new(watch::Sender::new(None));
        let (store, clock, places) = (Arc::clone(&self.store), self.clock, Arc::default());
        let lasting = Lasting {
            actor,
            vitals,
            voice,
            places,
            store,
            clock,
        };
        let backend = Arc::new(made.backend(&lasting));
        let seed = Arc::new(Mutex::new(made.seed(lasting.clone())));
        let child: Arc<str> = format!("provider {}", made.settings.name).into();
        let now = Arc::clone(&seed);
        let build = move |guard| {
            place.send_replace(Some(ProviderActor::new(lock(&now).clone(), guard).start()));
        };
        self.care.adopt(Arc::clone(&child), build).await;
        Running {
            settings: made.settings,
            backend,
            lasting,
            seed,
            child,
        }
    }
}

impl Running {
    fn change(&mut self, made: Made, anew: bool) {
        let mut backend = made.backend(&self.lasting);
        // That it refused to go on from a started answer was learned of this very service.
        if !anew && self.settings.prefill == made.settings.prefill {
            backend.prefill = self.backend.prefill.load(Ordering::Relaxed).into();
        }
        self.backend = Arc::new(backend);
        let seed = made.seed(self.lasting.clone());
        lock(&self.seed).clone_from(&seed);
        self.settings = made.settings;
        // One that is being rebuilt is made of the new seed already, or is told when it is there.
        if let Some(actor) = &*self.backend.actor.borrow() {
            actor.do_send(Change { seed, anew });
        }
    }
}

fn lock(seed: &Mutex<Seed>) -> MutexGuard<'_, Seed> {
    seed.lock().unwrap_or_else(PoisonError::into_inner)
}
