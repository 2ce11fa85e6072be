//! A scripted provider with its actor, for the tests of its callers.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr, AsyncContext as _, WrapFuture as _};
use tokio::sync::{mpsc, watch};

use super::actor::permit::Permit;
use super::actor::probes::ProbeCoordinator;
use super::actor::reconfigure::Reconfigure;
use super::actor::{AcquireRejection, ProviderActor, ProviderParts, TryAcquire};
use super::breaker::BreakerConfig;
use super::clock::Clock;
use super::cost::ProviderPricing;
use super::fault_injection::FaultSwitch;
use super::handle::{AttemptTimeouts, Provider};
use super::paused_system::run_until_idle;
use super::scripted_client::{Script, ScriptedClient};
use super::status::ProviderStatus;
use crate::actor_exit::{ActorExited, CrashForTest, ExitGuard};
use crate::config::{CallRetry, HealthSettings, ProbeKind};
use crate::store::{MemoryStore, Store};

#[derive(Clone)]
pub struct BenchOptions {
    pub name: &'static str,
    pub breaker: BreakerConfig,
    pub timeouts: AttemptTimeouts,
    pub probe_timeout: Duration,
    pub retry: CallRetry,
    pub context_tokens: u32,
    pub supports_prefill: bool,
    pub max_concurrent: usize,
    pub weight: u32,
    pub health: HealthSettings,
    pub pricing: ProviderPricing,
    pub initial_status: ProviderStatus,
    /// The answers, one script per call.
    pub scripts: Vec<Script>,
    pub probe_coordinator: Option<Arc<dyn ProbeCoordinator>>,
}

impl BenchOptions {
    /// The configuration's defaults. Every call gets a complete answer.
    pub fn new(name: &'static str) -> Self {
        let seconds = Duration::from_secs;
        Self {
            name,
            breaker: BreakerConfig::default(),
            timeouts: AttemptTimeouts {
                first_token: vec![seconds(5), seconds(10), seconds(15)],
                stall: seconds(15),
                total: seconds(90),
            },
            probe_timeout: seconds(5),
            retry: CallRetry::default(),
            context_tokens: 0,
            supports_prefill: false,
            max_concurrent: 64,
            weight: 1,
            health: HealthSettings {
                probe: ProbeKind::Off,
                ..HealthSettings::default()
            },
            pricing: ProviderPricing {
                prices: Some((1.0, 2.0)),
                daily_budget_usd: None,
            },
            initial_status: ProviderStatus::default(),
            scripts: Vec::new(),
            probe_coordinator: None,
        }
    }

    pub fn with_scripts(self, scripts: impl IntoIterator<Item = Script>) -> Self {
        Self {
            scripts: scripts.into_iter().collect(),
            ..self
        }
    }
}

pub struct ProviderBench {
    pub provider: Arc<Provider>,
    pub client: Arc<ScriptedClient>,
    parts: ProviderParts,
    actor_sender: watch::Sender<Option<Addr<ProviderActor>>>,
    exit_sender: mpsc::Sender<ActorExited>,
    exits: mpsc::Receiver<ActorExited>,
}

impl ProviderBench {
    pub fn start(options: BenchOptions, clock: Clock, store: Arc<dyn Store>) -> Self {
        let client = Arc::new(ScriptedClient::default());
        client.set_scripts(options.scripts);
        let name: Arc<str> = options.name.into();
        let status = Arc::new(watch::Sender::new(options.initial_status));
        let events = Arc::new(watch::Sender::new(None));
        let (actor_sender, actor) = watch::channel(None);
        let (exit_sender, exits) = mpsc::channel(16);
        let fault_switch = Arc::new(FaultSwitch::new(|| 0.5));
        let provider = Arc::new(Provider {
            name: Arc::clone(&name),
            model: format!("{name}-1").into(),
            dialect: "openai",
            context_tokens: options.context_tokens,
            timeouts: options.timeouts,
            retry: options.retry,
            weight: options.weight,
            prices: options.pricing.prices,
            has_daily_budget: options.pricing.daily_budget_usd.is_some(),
            supports_prefill: options.supports_prefill.into(),
            client: client.clone(),
            actor: actor.clone(),
            account_id: "0000000000000000".into(),
            events: events.subscribe(),
            status: status.subscribe(),
            fault_switch: Arc::clone(&fault_switch),
        });
        let parts = ProviderParts {
            name,
            breaker_config: options.breaker,
            probe_timeout: options.probe_timeout,
            health_settings: options.health,
            pricing: options.pricing,
            client: client.clone(),
            fault_switch,
            concurrency: Arc::default(),
            max_concurrent: options.max_concurrent,
            status,
            actor,
            store,
            clock,
            random_unit: || 0.5,
            events,
            probe_coordinator: options.probe_coordinator,
        };
        let bench = Self {
            provider,
            client,
            parts,
            actor_sender,
            exit_sender,
            exits,
        };
        bench.restart_actor();
        bench
    }

    /// Starts with its own clock and store.
    pub fn standalone(options: BenchOptions) -> Self {
        Self::start(options, Clock::start(), Arc::new(MemoryStore::default()))
    }

    /// Starts a new actor with the same parts, as the supervisor does after a panic.
    pub fn restart_actor(&self) {
        let guard = ExitGuard::new(Arc::clone(&self.parts.name), self.exit_sender.clone());
        self.actor_sender
            .send_replace(Some(ProviderActor::new(self.parts.clone(), guard).start()));
    }

    /// Starts a new actor that handles no message before `after` has passed.
    pub fn restart_delayed(&self, after: Duration) {
        let guard = ExitGuard::new(Arc::clone(&self.parts.name), self.exit_sender.clone());
        let seed = self.parts.clone();
        let actor = ProviderActor::create(move |ctx| {
            let actor = ProviderActor::new(seed, guard);
            ctx.wait(tokio::time::sleep(after).into_actor(&actor));
            actor
        });
        self.actor_sender.send_replace(Some(actor));
    }

    /// Makes the actor panic and waits for its exit. It is not restarted.
    pub async fn crash_actor(&mut self) {
        self.actor().do_send(CrashForTest);
        self.exits.recv().await.unwrap();
    }

    /// Changes the parts and sends them to the actor, as a reload does.
    pub fn reconfigure(&mut self, anew: bool, change: impl FnOnce(&mut ProviderParts)) {
        change(&mut self.parts);
        self.actor().do_send(Reconfigure {
            parts: self.parts.clone(),
            discards_state: anew,
        });
    }

    pub async fn wait_for_exit(&mut self) {
        self.exits.recv().await.unwrap();
    }

    pub fn remove_actor(&self) {
        self.actor_sender.send_replace(None);
    }

    pub fn actor(&self) -> Addr<ProviderActor> {
        self.actor_sender.borrow().clone().unwrap()
    }

    pub fn clock(&self) -> Clock {
        self.parts.clock
    }

    pub fn has_exited(&self) -> bool {
        !self.actor().connected()
    }

    pub async fn try_acquire(&self) -> Result<Permit, AcquireRejection> {
        self.actor().send(TryAcquire).await.unwrap()
    }

    /// The status after the actor has handled all earlier messages.
    pub async fn status(&self) -> ProviderStatus {
        run_until_idle().await;
        self.provider.status.borrow().clone()
    }

    /// The number of calls that may still start.
    pub fn free_slots(&self) -> usize {
        self.parts.max_concurrent - self.parts.concurrency.in_use()
    }

    pub fn total_slots(&self) -> usize {
        self.parts.max_concurrent
    }
}
