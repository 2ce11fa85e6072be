//! A scripted provider with its actor, for the tests of its callers.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr, AsyncContext as _, WrapFuture as _};
use tokio::sync::{mpsc, watch};

use super::actor::changing::Change;
use super::actor::{Admit, ProviderActor, Refusal, Seed};
use super::backend::{Backend, Clock, Patience, Vitals};
use super::breaker::Rules;
use super::drill::Switch;
use super::leave::Probing;
use super::paused::settled;
use super::permit::Permit;
use super::scripted::{Script, Scripted};
use super::spending::Terms;
use crate::settings::{CallRetry, HealthSettings, ProbeKind};
use crate::store::{MemoryStore, Store};
use crate::supervised::{ChildDown, Crash, Guard};

#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    pub rules: Rules,
    pub patience: Patience,
    pub probe_limit: Duration,
    pub retry: CallRetry,
    pub context_tokens: u32,
    pub prefill: bool,
    pub max_concurrent: usize,
    pub weight: u32,
    pub health: HealthSettings,
    pub terms: Terms,
    pub vitals: Vitals,
    /// The answers, one script per call.
    pub scripts: Vec<Script>,
    pub probing: Option<Arc<dyn Probing>>,
}

impl Plan {
    /// The configuration's defaults. Every call gets a complete answer.
    pub fn new(name: &'static str) -> Self {
        let seconds = Duration::from_secs;
        Self {
            name,
            rules: Rules::default(),
            patience: Patience {
                first_token: vec![seconds(5), seconds(10), seconds(15)],
                stall: seconds(15),
                attempt: seconds(90),
            },
            probe_limit: seconds(5),
            retry: CallRetry::default(),
            context_tokens: 0,
            prefill: false,
            max_concurrent: 64,
            weight: 1,
            health: HealthSettings {
                probe: ProbeKind::Off,
                ..HealthSettings::default()
            },
            terms: Terms {
                prices: Some((1.0, 2.0)),
                daily_budget_usd: None,
            },
            vitals: Vitals::default(),
            scripts: Vec::new(),
            probing: None,
        }
    }

    pub fn with(self, scripts: impl IntoIterator<Item = Script>) -> Self {
        Self {
            scripts: scripts.into_iter().collect(),
            ..self
        }
    }
}

pub struct Stand {
    pub backend: Arc<Backend>,
    pub upstream: Arc<Scripted>,
    seed: Seed,
    place: watch::Sender<Option<Addr<ProviderActor>>>,
    tell: mpsc::Sender<ChildDown>,
    ends: mpsc::Receiver<ChildDown>,
}

impl Stand {
    pub fn start(options: Plan, clock: Clock, store: Arc<dyn Store>) -> Self {
        let client = Arc::new(Scripted::default());
        client.follow(options.scripts);
        let name: Arc<str> = options.name.into();
        let status = Arc::new(watch::Sender::new(options.vitals));
        let events = Arc::new(watch::Sender::new(None));
        let (actor_sender, actor) = watch::channel(None);
        let (exit_sender, exits) = mpsc::channel(16);
        let fault_switch = Arc::new(Switch::new(|| 0.5));
        let provider = Arc::new(Backend {
            name: Arc::clone(&name),
            model: format!("{name}-1").into(),
            dialect: "openai",
            context_tokens: options.context_tokens,
            patience: options.patience,
            retry: options.retry,
            weight: options.weight,
            prices: options.terms.prices,
            is_budgeted: options.terms.daily_budget_usd.is_some(),
            prefill: options.prefill.into(),
            upstream: client.clone(),
            actor: actor.clone(),
            account: "0000000000000000".into(),
            voice: events.subscribe(),
            vitals: status.subscribe(),
            drills: Arc::clone(&fault_switch),
        });
        let parts = Seed {
            name,
            rules: options.rules,
            probe_limit: options.probe_limit,
            health: options.health,
            terms: options.terms,
            upstream: client.clone(),
            drills: fault_switch,
            places: Arc::default(),
            max_concurrent: options.max_concurrent,
            vitals: status,
            actor,
            store,
            clock,
            chance: || 0.5,
            voice: events,
            probing: options.probing,
        };
        let bench = Self {
            backend: provider,
            upstream: client,
            seed: parts,
            place: actor_sender,
            tell: exit_sender,
            ends: exits,
        };
        bench.rebuild();
        bench
    }

    /// Starts with its own clock and store.
    pub fn alone(options: Plan) -> Self {
        Self::start(options, Clock::start(), Arc::new(MemoryStore::default()))
    }

    /// Starts a new actor with the same parts, as the supervisor does after a panic.
    pub fn rebuild(&self) {
        let guard = Guard::new(Arc::clone(&self.seed.name), self.tell.clone());
        self.place
            .send_replace(Some(ProviderActor::new(self.seed.clone(), guard).start()));
    }

    /// Starts a new actor that handles no message before `after` has passed.
    pub fn rebuild_behind(&self, after: Duration) {
        let guard = Guard::new(Arc::clone(&self.seed.name), self.tell.clone());
        let seed = self.seed.clone();
        let actor = ProviderActor::create(move |ctx| {
            let actor = ProviderActor::new(seed, guard);
            ctx.wait(tokio::time::sleep(after).into_actor(&actor));
            actor
        });
        self.place.send_replace(Some(actor));
    }

    /// Makes the actor panic and waits for its exit. It is not restarted.
    pub async fn crash(&mut self) {
        self.actor().do_send(Crash);
        self.ends.recv().await.unwrap();
    }

    /// Changes the parts and sends them to the actor, as a reload does.
    pub fn change(&mut self, anew: bool, change: impl FnOnce(&mut Seed)) {
        change(&mut self.seed);
        self.actor().do_send(Change {
            seed: self.seed.clone(),
            anew,
        });
    }

    pub async fn ended(&mut self) {
        self.ends.recv().await.unwrap();
    }

    pub fn leave(&self) {
        self.place.send_replace(None);
    }

    pub fn actor(&self) -> Addr<ProviderActor> {
        self.place.borrow().clone().unwrap()
    }

    pub fn clock(&self) -> Clock {
        self.seed.clock
    }

    pub fn is_down(&self) -> bool {
        !self.actor().connected()
    }

    pub async fn admit(&self) -> Result<Permit, Refusal> {
        self.actor().send(Admit).await.unwrap()
    }

    /// The status after the actor has handled all earlier messages.
    pub async fn vitals(&self) -> Vitals {
        settled().await;
        self.backend.vitals.borrow().clone()
    }

    /// The number of calls that may still start.
    pub fn free(&self) -> usize {
        self.seed.max_concurrent - self.seed.places.taken()
    }

    pub fn places(&self) -> usize {
        self.seed.max_concurrent
    }
}
