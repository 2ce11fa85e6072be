//! The running providers. Starts, reconfigures and retires them as the configuration changes.

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

/// The running providers, in order of preference.
pub struct Roster {
    store: Arc<dyn Store>,
    clock: Clock,
    care: Care,
    fleet: Option<Fleet>,
    running: Vec<Running>,
}

struct Running {
    settings: ProviderSettings,
    backend: Arc<Backend>,
    lasting: Lasting,
    /// The parts from which the actor is built, also after a panic.
    seed: Arc<Mutex<Seed>>,
    child: Arc<str>,
}

/// The steps from the running providers to a new configuration. Making a plan changes nothing.
pub struct Plan {
    steps: Vec<Step>,
}

enum Step {
    Keep(usize),
    Change {
        index: usize,
        spec: Made,
        /// The provider is another service now, so its breaker and health start afresh.
        is_new_service: bool,
    },
    Add(Made),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

/// Removed providers. They can be retired once no turn can select them any more.
pub struct Leaving(Vec<Running>);

impl Roster {
    pub fn new(store: Arc<dyn Store>, clock: Clock, care: Care, fleet: Option<Fleet>) -> Self {
        Self {
            store,
            clock,
            care,
            fleet,
            running: Vec::new(),
        }
    }

    pub fn backends(&self) -> Arc<[Arc<Backend>]> {
        self.running
            .iter()
            .map(|provider| Arc::clone(&provider.backend))
            .collect()
    }

    /// Compares the running providers with their new settings and creates the HTTP clients.
    ///
    /// # Errors
    /// An HTTP client cannot be created.
    pub fn plan(&self, providers: &[ProviderSettings]) -> anyhow::Result<Plan> {
        let mut transports = Transports::default();
        let mut steps = Vec::new();
        for settings in providers {
            let index = self
                .running
                .iter()
                .position(|provider| provider.settings.name == settings.name);
            let current = index.and_then(|index| Some((index, &self.running.get(index)?.settings)));
            if let Some((index, before)) = current
                && before.is_the_same(settings)
            {
                steps.push(Step::Keep(index));
                continue;
            }
            let transport = transports
                .with_connect(settings.timeouts.connect)
                .with_context(|| {
                    format!(
                        "cannot create the HTTP client of provider {}",
                        settings.name
                    )
                })?;
            // A running drill survives a change of settings.
            let drills =
                index.and_then(|index| Some(Arc::clone(&self.running.get(index)?.backend.drills)));
            let spec = Made::new(settings.clone(), transport, self.fleet.as_ref(), drills);
            steps.push(match current {
                Some((index, before)) => {
                    let is_new_service = !before.is_the_same_service(settings);
                    Step::Change {
                        index,
                        spec,
                        is_new_service,
                    }
                }
                None => Step::Add(spec),
            });
        }
        Ok(Plan { steps })
    }

    /// Applies a plan. New providers start with their saved state. The others' actors get their new
    /// settings before this returns; calls in progress keep the old ones.
    ///
    /// Returns the removed providers. Pass them to [`ProviderRegistry::remove`] after the new
    /// configuration is published.
    pub async fn carry_out(&mut self, plan: Plan, remembered: &Remembered) -> (Changes, Leaving) {
        let mut changes = Changes::default();
        let mut before: Vec<_> = std::mem::take(&mut self.running)
            .into_iter()
            .map(Some)
            .collect();
        for step in plan.steps {
            let mut take = |index: usize| before.get_mut(index).and_then(Option::take);
            let running = match step {
                Step::Keep(index) => take(index),
                Step::Change {
                    index,
                    spec,
                    is_new_service,
                } => take(index).map(|mut running| {
                    changes.changed.push(spec.settings.name.clone());
                    running.change(spec, is_new_service);
                    running
                }),
                Step::Add(spec) => {
                    changes.added.push(spec.settings.name.clone());
                    Some(self.start(spec, remembered).await)
                }
            };
            self.running.extend(running);
        }
        let leaving: Vec<_> = before.into_iter().flatten().collect();
        changes.removed = leaving
            .iter()
            .map(|provider| provider.settings.name.clone())
            .collect();
        (changes, Leaving(leaving))
    }

    /// Retires providers that can no longer be selected. Their actors end after the running calls.
    pub async fn dismiss(&self, Leaving(leaving): Leaving) {
        for provider in leaving {
            self.care.release(provider.child).await;
            if let Some(actor) = &*provider.backend.actor.borrow() {
                actor.do_send(Retire);
            }
        }
    }

    async fn start(&self, spec: Made, remembered: &Remembered) -> Running {
        let vitals = Arc::new(watch::Sender::new(recalled(
            &spec.settings.name,
            remembered,
        )));
        let (address, actor) = watch::channel(None);
        let voice = Arc::new(watch::Sender::new(None));
        let lasting = Lasting {
            actor,
            vitals,
            voice,
            places: Arc::default(),
            store: Arc::clone(&self.store),
            clock: self.clock,
        };
        let backend = Arc::new(spec.backend(&lasting));
        let seed = Arc::new(Mutex::new(spec.seed(lasting.clone())));
        let child: Arc<str> = format!("provider {}", spec.settings.name).into();
        let current_seed = Arc::clone(&seed);
        let build = move |guard| {
            address.send_replace(Some(
                ProviderActor::new(lock(&current_seed).clone(), guard).start(),
            ));
        };
        self.care.adopt(Arc::clone(&child), build).await;
        Running {
            settings: spec.settings,
            backend,
            lasting,
            seed,
            child,
        }
    }
}

impl Running {
    fn change(&mut self, spec: Made, is_new_service: bool) {
        let mut backend = spec.backend(&self.lasting);
        // Whether the server supports prefill was learned from this very service.
        if !is_new_service && self.settings.prefill == spec.settings.prefill {
            backend.prefill = self.backend.prefill.load(Ordering::Relaxed).into();
        }
        self.backend = Arc::new(backend);
        let seed = spec.seed(self.lasting.clone());
        lock(&self.seed).clone_from(&seed);
        self.settings = spec.settings;
        // An actor that is being rebuilt already uses the new parts, or gets this message
        // afterwards.
        if let Some(actor) = &*self.backend.actor.borrow() {
            actor.do_send(Change {
                seed,
                anew: is_new_service,
            });
        }
    }
}

fn lock(seed: &Mutex<Seed>) -> MutexGuard<'_, Seed> {
    seed.lock().unwrap_or_else(PoisonError::into_inner)
}
