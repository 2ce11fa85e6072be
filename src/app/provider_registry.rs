//! The running providers. Starts, reconfigures and retires them as the configuration changes.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::Actor as _;
use anyhow::Context as _;
use tokio::sync::watch;

use super::providers::{ProviderRuntime, ProviderSpec, RestoredState, restored_status};
use crate::cluster::Cluster;
use crate::config::ProviderSettings;
use crate::ops::supervisor::SupervisorHandle;
use crate::provider::actor::reconfigure::{Reconfigure, Retire};
use crate::provider::actor::{ProviderActor, ProviderParts};
use crate::provider::handle::{Clock, Provider};
use crate::provider::http::TransportCache;
use crate::store::Store;

/// The running providers, in order of preference.
pub struct ProviderRegistry {
    store: Arc<dyn Store>,
    clock: Clock,
    supervisor: SupervisorHandle,
    cluster: Option<Cluster>,
    running: Vec<RunningProvider>,
}

struct RunningProvider {
    settings: ProviderSettings,
    provider: Arc<Provider>,
    runtime: ProviderRuntime,
    /// The parts from which the actor is built, also after a panic.
    actor_parts: Arc<Mutex<ProviderParts>>,
    child_name: Arc<str>,
}

/// The steps from the running providers to a new configuration. Making a plan changes nothing.
pub struct ReconcilePlan {
    steps: Vec<ReconcileStep>,
}

enum ReconcileStep {
    Keep(usize),
    Change {
        index: usize,
        spec: ProviderSpec,
        /// The provider is another service now, so its breaker and health start afresh.
        is_new_service: bool,
    },
    Add(ProviderSpec),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReconcileChanges {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

/// Removed providers. They can be retired once no turn can select them any more.
pub struct RemovedProviders(Vec<RunningProvider>);

impl ProviderRegistry {
    pub fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        care: SupervisorHandle,
        fleet: Option<Cluster>,
    ) -> Self {
        Self {
            store,
            clock,
            supervisor: care,
            cluster: fleet,
            running: Vec::new(),
        }
    }

    pub fn providers(&self) -> Arc<[Arc<Provider>]> {
        self.running
            .iter()
            .map(|provider| Arc::clone(&provider.provider))
            .collect()
    }

    /// Compares the running providers with their new settings and creates the HTTP clients.
    ///
    /// # Errors
    /// An HTTP client cannot be created.
    pub fn plan(&self, providers: &[ProviderSettings]) -> anyhow::Result<ReconcilePlan> {
        let mut transports = TransportCache::default();
        let mut steps = Vec::new();
        for settings in providers {
            let index = self
                .running
                .iter()
                .position(|provider| provider.settings.name == settings.name);
            let current = index.and_then(|index| Some((index, &self.running.get(index)?.settings)));
            if let Some((index, before)) = current
                && before == settings
            {
                steps.push(ReconcileStep::Keep(index));
                continue;
            }
            let transport = transports
                .with_connect_timeout(settings.timeouts.connect)
                .with_context(|| {
                    format!(
                        "cannot create the HTTP client of provider {}",
                        settings.name
                    )
                })?;
            // A running drill survives a change of settings.
            let drills = index.and_then(|index| {
                Some(Arc::clone(&self.running.get(index)?.provider.fault_switch))
            });
            let spec =
                ProviderSpec::new(settings.clone(), transport, self.cluster.as_ref(), drills);
            steps.push(match current {
                Some((index, before)) => {
                    let is_new_service = !before.same_endpoint(settings);
                    ReconcileStep::Change {
                        index,
                        spec,
                        is_new_service,
                    }
                }
                None => ReconcileStep::Add(spec),
            });
        }
        Ok(ReconcilePlan { steps })
    }

    /// Applies a plan. New providers start with their saved state. The others' actors get their new
    /// settings before this returns; calls in progress keep the old ones.
    ///
    /// Returns the removed providers. Pass them to [`ProviderRegistry::remove`] after the new
    /// configuration is published.
    pub async fn apply(
        &mut self,
        plan: ReconcilePlan,
        remembered: &RestoredState,
    ) -> (ReconcileChanges, RemovedProviders) {
        let mut changes = ReconcileChanges::default();
        let mut before: Vec<_> = std::mem::take(&mut self.running)
            .into_iter()
            .map(Some)
            .collect();
        for step in plan.steps {
            let mut take = |index: usize| before.get_mut(index).and_then(Option::take);
            let running = match step {
                ReconcileStep::Keep(index) => take(index),
                ReconcileStep::Change {
                    index,
                    spec,
                    is_new_service,
                } => take(index).map(|mut running| {
                    changes.changed.push(spec.settings.name.clone());
                    running.reconfigure(spec, is_new_service);
                    running
                }),
                ReconcileStep::Add(spec) => {
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
        (changes, RemovedProviders(leaving))
    }

    /// Retires providers that can no longer be selected. Their actors end after the running calls.
    pub async fn remove(&self, RemovedProviders(leaving): RemovedProviders) {
        for provider in leaving {
            self.supervisor.release(provider.child_name).await;
            if let Some(actor) = &*provider.provider.actor.borrow() {
                actor.do_send(Retire);
            }
        }
    }

    async fn start(&self, spec: ProviderSpec, remembered: &RestoredState) -> RunningProvider {
        let vitals = Arc::new(watch::Sender::new(restored_status(
            &spec.settings.name,
            remembered,
        )));
        let (address, actor) = watch::channel(None);
        let voice = Arc::new(watch::Sender::new(None));
        let lasting = ProviderRuntime {
            actor,
            status: vitals,
            events: voice,
            concurrency: Arc::default(),
            store: Arc::clone(&self.store),
            clock: self.clock,
        };
        let backend = Arc::new(spec.provider(&lasting));
        let seed = Arc::new(Mutex::new(spec.parts(lasting.clone())));
        let child: Arc<str> = format!("provider {}", spec.settings.name).into();
        let current_seed = Arc::clone(&seed);
        let build = move |guard| {
            address.send_replace(Some(
                ProviderActor::new(lock_parts(&current_seed).clone(), guard).start(),
            ));
        };
        self.supervisor.supervise(Arc::clone(&child), build).await;
        RunningProvider {
            settings: spec.settings,
            provider: backend,
            runtime: lasting,
            actor_parts: seed,
            child_name: child,
        }
    }
}

impl RunningProvider {
    fn reconfigure(&mut self, spec: ProviderSpec, is_new_service: bool) {
        let mut backend = spec.provider(&self.runtime);
        // Whether the server supports prefill was learned from this very service.
        if !is_new_service && self.settings.prefill == spec.settings.prefill {
            backend.supports_prefill = self
                .provider
                .supports_prefill
                .load(Ordering::Relaxed)
                .into();
        }
        self.provider = Arc::new(backend);
        let seed = spec.parts(self.runtime.clone());
        lock_parts(&self.actor_parts).clone_from(&seed);
        self.settings = spec.settings;
        // An actor that is being rebuilt already uses the new parts, or gets this message
        // afterwards.
        if let Some(actor) = &*self.provider.actor.borrow() {
            actor.do_send(Reconfigure {
                parts: seed,
                discards_state: is_new_service,
            });
        }
    }
}

fn lock_parts(seed: &Mutex<ProviderParts>) -> MutexGuard<'_, ProviderParts> {
    seed.lock()
}
