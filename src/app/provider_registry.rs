//! The running providers. Starts, reconfigures and retires them as the configuration changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::Actor as _;
use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::providers::{ProviderRuntime, ProviderSpec, RestoredState, restored_status};
use crate::cluster::Cluster;
use crate::config::ProviderSettings;
use crate::ops::reload::ProviderChanges;
use crate::ops::supervisor::SupervisorHandle;
use crate::provider::actor::reconfigure::{Reconfigure, Retire};
use crate::provider::actor::{ProviderActor, ProviderParts};
use crate::provider::clock::Clock;
use crate::provider::handle::Provider;
use crate::provider::transport::TransportCache;
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
pub struct ReconcilePlan(Vec<ReconcileStep>);

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

/// Removed providers. They can be retired once no turn can select them any more.
pub struct RemovedProviders(Vec<RunningProvider>);

impl ProviderRegistry {
    pub fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        supervisor: SupervisorHandle,
        cluster: Option<Cluster>,
    ) -> Self {
        Self {
            store,
            clock,
            supervisor,
            cluster,
            running: Vec::new(),
        }
    }

    pub fn providers(&self) -> Arc<[Arc<Provider>]> {
        let running = self.running.iter();
        running
            .map(|running| Arc::clone(&running.provider))
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
            let mut running = self.running.iter().enumerate();
            let current = running.find(|(_, running)| running.settings.name == settings.name);
            if let Some((index, running)) = current
                && running.settings == *settings
            {
                steps.push(ReconcileStep::Keep(index));
                continue;
            }
            let transport = transports.with_connect_timeout(settings.timeouts.connect);
            let transport = transport.with_context(|| {
                format!(
                    "cannot create the HTTP client of provider {}",
                    settings.name
                )
            })?;
            // A running drill survives a change of settings.
            let drills = current.map(|(_, running)| Arc::clone(&running.provider.fault_switch));
            let cluster = self.cluster.as_ref();
            let spec = ProviderSpec::new(settings.clone(), transport, cluster, drills);
            steps.push(match current {
                Some((index, running)) => ReconcileStep::Change {
                    index,
                    spec,
                    is_new_service: !running.settings.same_endpoint(settings),
                },
                None => ReconcileStep::Add(spec),
            });
        }
        Ok(ReconcilePlan(steps))
    }

    /// Applies a plan. New providers start with their saved state. The others' actors get their new
    /// settings before this returns; calls in progress keep the old ones.
    ///
    /// Returns the removed providers. Pass them to [`ProviderRegistry::remove`] after the new
    /// configuration is published.
    pub async fn apply(
        &mut self,
        ReconcilePlan(steps): ReconcilePlan,
        restored: &RestoredState,
    ) -> (ProviderChanges, RemovedProviders) {
        let mut changes = ProviderChanges::default();
        let before = std::mem::take(&mut self.running);
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        for step in steps {
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
                    Some(self.start(spec, restored).await)
                }
            };
            self.running.extend(running);
        }
        let removed: Vec<_> = before.into_iter().flatten().collect();
        let names = removed.iter().map(|running| running.settings.name.clone());
        changes.removed = names.collect();
        (changes, RemovedProviders(removed))
    }

    /// Retires providers that can no longer be selected. Their actors end after the running calls.
    pub async fn remove(&self, RemovedProviders(removed): RemovedProviders) {
        for running in removed {
            self.supervisor.release(running.child_name).await;
            if let Some(actor) = &*running.provider.actor.borrow() {
                actor.do_send(Retire);
            }
        }
    }

    async fn start(&self, spec: ProviderSpec, restored: &RestoredState) -> RunningProvider {
        let name = &spec.settings.name;
        let child_name: Arc<str> = format!("provider {name}").into();
        let (address, actor) = watch::channel(None);
        let runtime = ProviderRuntime {
            actor,
            status: Arc::new(watch::Sender::new(restored_status(name, restored))),
            events: Arc::new(watch::Sender::new(None)),
            concurrency: Arc::default(),
            store: Arc::clone(&self.store),
            clock: self.clock,
        };
        let provider = Arc::new(spec.provider(&runtime));
        let actor_parts = Arc::new(Mutex::new(spec.parts(runtime.clone())));
        let parts = Arc::clone(&actor_parts);
        let build = move |guard| {
            let parts = parts.lock().clone();
            address.send_replace(Some(ProviderActor::new(parts, guard).start()));
        };
        self.supervisor
            .supervise(Arc::clone(&child_name), build)
            .await;
        RunningProvider {
            settings: spec.settings,
            provider,
            runtime,
            actor_parts,
            child_name,
        }
    }
}

impl RunningProvider {
    fn reconfigure(&mut self, spec: ProviderSpec, is_new_service: bool) {
        let mut provider = spec.provider(&self.runtime);
        // Whether the server supports prefill was learned from this very service.
        if !is_new_service && self.settings.prefill == spec.settings.prefill {
            let learned = self.provider.supports_prefill.load(Ordering::Relaxed);
            provider.supports_prefill = learned.into();
        }
        self.provider = Arc::new(provider);
        let parts = spec.parts(self.runtime.clone());
        self.actor_parts.lock().clone_from(&parts);
        self.settings = spec.settings;
        // An actor that is being rebuilt already uses the new parts, or gets this message
        // afterwards.
        if let Some(actor) = &*self.provider.actor.borrow() {
            actor.do_send(Reconfigure {
                parts,
                discards_state: is_new_service,
            });
        }
    }
}
