//! One scripted backend with its actor, for the tests of those who ask it.

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

/// What is to be known of a backend before it stands.
#[derive(Clone)]
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    /// The breaker's rules.
    pub rules: Rules,
    /// How long its calls may take.
    pub patience: Patience,
    /// How long its recovery probe may take.
    pub probe_limit: Duration,
    /// How it is tried again in a turn.
    pub retry: CallRetry,
    /// The room of its context.
    pub context_tokens: u32,
    /// Whether it goes on from a started answer.
    pub prefill: bool,
    /// How many calls it takes at once.
    pub max_concurrent: usize,
    /// Its share of turns.
    pub weight: u32,
    /// How its health is looked into.
    pub health: HealthSettings,
    /// What it costs, and may cost.
    pub terms: Terms,
    /// How it begins.
    pub vitals: Vitals,
    /// What it does, call for call.
    pub scripts: Vec<Script>,
    /// Who gives leave to probe.
    pub probing: Option<Arc<dyn Probing>>,
}

impl Plan {
    /// The defaults of the configuration, and a friendly answer to everything.
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

    /// The same with these scripts.
    pub fn with(self, scripts: impl IntoIterator<Item = Script>) -> Self {
        Self {
            scripts: scripts.into_iter().collect(),
            ..self
        }
    }
}

/// A backend that stands.
pub struct Stand {
    /// As the house holds it.
    pub backend: Arc<Backend>,
    /// What it says, and what it heard.
    pub upstream: Arc<Scripted>,
    seed: Seed,
    place: watch::Sender<Option<Addr<ProviderActor>>>,
    tell: mpsc::Sender<ChildDown>,
    ends: mpsc::Receiver<ChildDown>,
}

impl Stand {
    /// Starts the actor of `plan`.
    pub fn start(plan: Plan, clock: Clock, store: Arc<dyn Store>) -> Self {
        let upstream = Arc::new(Scripted::default());
        upstream.follow(plan.scripts);
        let name: Arc<str> = plan.name.into();
        let vitals = Arc::new(watch::Sender::new(plan.vitals));
        let voice = Arc::new(watch::Sender::new(None));
        let (place, actor) = watch::channel(None);
        let (tell, ends) = mpsc::channel(16);
        let drills = Arc::new(Switch::new(|| 0.5));
        let backend = Arc::new(Backend {
            name: Arc::clone(&name),
            model: format!("{name}-1").into(),
            dialect: "openai",
            context_tokens: plan.context_tokens,
            patience: plan.patience,
            retry: plan.retry,
            weight: plan.weight,
            prices: plan.terms.prices,
            is_budgeted: plan.terms.daily_budget_usd.is_some(),
            prefill: plan.prefill.into(),
            upstream: upstream.clone(),
            actor: actor.clone(),
            account: "0000000000000000".into(),
            voice: voice.subscribe(),
            vitals: vitals.subscribe(),
            drills: Arc::clone(&drills),
        });
        let seed = Seed {
            name,
            rules: plan.rules,
            probe_limit: plan.probe_limit,
            health: plan.health,
            terms: plan.terms,
            upstream: upstream.clone(),
            drills,
            places: Arc::default(),
            max_concurrent: plan.max_concurrent,
            vitals,
            actor,
            store,
            clock,
            chance: || 0.5,
            voice,
            probing: plan.probing,
        };
        let stand = Self {
            backend,
            upstream,
            seed,
            place,
            tell,
            ends,
        };
        stand.rebuild();
        stand
    }

    /// One that stands alone.
    pub fn alone(plan: Plan) -> Self {
        Self::start(plan, Clock::start(), Arc::new(MemoryStore::default()))
    }

    /// Starts a new actor from the same seed, as the supervisor does after a panic.
    pub fn rebuild(&self) {
        let guard = Guard::new(Arc::clone(&self.seed.name), self.tell.clone());
        self.place
            .send_replace(Some(ProviderActor::new(self.seed.clone(), guard).start()));
    }

    /// Starts one that looks at no message before `after` has passed.
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

    /// Has the actor panic, and waits until it is gone. Nobody rebuilds it.
    pub async fn crash(&mut self) {
        self.actor().do_send(Crash);
        self.ends.recv().await.unwrap();
    }

    /// Has the actor go by a seed that is changed so, as a reload does.
    pub fn change(&mut self, anew: bool, change: impl FnOnce(&mut Seed)) {
        change(&mut self.seed);
        self.actor().do_send(Change {
            seed: self.seed.clone(),
            anew,
        });
    }

    /// Waits until the actor has ended.
    pub async fn ended(&mut self) {
        self.ends.recv().await.unwrap();
    }

    /// The actor ends, and nothing holds it any more.
    pub fn leave(&self) {
        self.place.send_replace(None);
    }

    /// The actor.
    pub fn actor(&self) -> Addr<ProviderActor> {
        self.place.borrow().clone().unwrap()
    }

    /// The clocks that it goes by.
    pub fn clock(&self) -> Clock {
        self.seed.clock
    }

    /// Whether its actor has ended.
    pub fn is_down(&self) -> bool {
        !self.actor().connected()
    }

    /// Asks for leave to call.
    pub async fn admit(&self) -> Result<Permit, Refusal> {
        self.actor().send(Admit).await.unwrap()
    }

    /// How it is, once all that was sent to the actor is done.
    pub async fn vitals(&self) -> Vitals {
        settled().await;
        self.backend.vitals.borrow().clone()
    }

    /// Free places.
    pub fn free(&self) -> usize {
        self.seed.max_concurrent - self.seed.places.taken()
    }

    /// All places.
    pub fn places(&self) -> usize {
        self.seed.max_concurrent
    }
}
