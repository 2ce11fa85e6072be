//! The ProviderActor: owns one backend's breaker and places, admits calls, hears how they ended, tries it again by itself.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext, Context, Handler, Message, MessageResult, SpawnHandle,
    WrapFuture as _,
};
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, watch};

use super::backend::{Clock, Vitals, Whereabouts};
use super::breaker::{Breaker, Rules, Saved, Ticket, Transition, Verdict, Who};
use super::latency::Latencies;
use super::permit::Permit;
use super::upstream::{Step, Upstream};
use crate::chat::{Ask, Fault, Message as Said, ProviderState, Role};
use crate::store::{BreakerRecord, Store};
use crate::supervised::{Crash, Guard};

/// What a ProviderActor is made of, and made of again after a panic.
#[derive(Clone)]
pub struct Seed {
    /// The provider's name.
    pub name: Arc<str>,
    /// Its breaker's rules.
    pub rules: Rules,
    /// How long its recovery probe may take.
    pub probe_limit: Duration,
    /// How to ask it.
    pub upstream: Arc<dyn Upstream>,
    /// Its places: `max_concurrent` of them. They live here, so that a panic loses none.
    pub places: Arc<Semaphore>,
    /// How many there are.
    pub max_concurrent: usize,
    /// Where vitals are published; the last ones are what a rebuilt actor begins with.
    pub vitals: Arc<watch::Sender<Vitals>>,
    /// Where the actor itself will be.
    pub actor: Whereabouts<ProviderActor>,
    /// Where the breaker's state is kept over a restart of the service.
    pub store: Arc<dyn Store>,
    /// The clocks.
    pub clock: Clock,
    /// A random number in 0..1.
    pub chance: fn() -> f64,
}

/// Owns one backend's breaker.
pub struct ProviderActor {
    seed: Seed,
    breaker: Breaker,
    vitals: Vitals,
    first_tokens: Latencies,
    totals: Latencies,
    disabled: bool,
    timer: Option<SpawnHandle>,
    _guard: Guard,
}

/// Asks for leave to call. Answered at once.
#[derive(Debug, Message)]
#[rtype(result = "Result<Permit, Refusal>")]
pub struct Admit;

/// No leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// True for a full provider: it works, it is only passed over.
    pub busy: bool,
    /// When it may be asked again, on the monotonic clock, where that is known.
    pub retry_at: Option<Duration>,
}

/// The first verdict on an attempt: how long its first token took.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Observe {
    pub(super) ticket: Ticket,
    pub(super) first_token: Duration,
}

/// The last verdict on an attempt.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle {
    pub(super) ticket: Ticket,
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
}

/// Closes the breaker and forgets what it counted: an operator's order, or a mended demo provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reset;

impl ProviderActor {
    /// A new actor. Its breaker begins as last published: open or half-open where it was not closed, never fresh; and what it was asked to
    /// wait for is waited for.
    pub fn new(seed: Seed, guard: Guard) -> Self {
        let vitals = seed.vitals.borrow().clone();
        let now = seed.clock.now();
        let rules = seed.rules.clone();
        let until = vitals.retry_at.map_or(now, |at| now + at.since(seed.clock.wall()));
        let breaker = match vitals.state {
            ProviderState::Closed | ProviderState::Disabled => Breaker::held(rules, now, until),
            state => {
                let blocked = state == ProviderState::Blocked;
                let saved = Saved { strikes: vitals.strikes, until, blocked, fault: vitals.reason };
                Breaker::restored(rules, now, saved)
            }
        };
        Self {
            seed,
            breaker,
            vitals,
            first_tokens: Latencies::default(),
            totals: Latencies::default(),
            disabled: false,
            timer: None,
            _guard: guard,
        }
    }

    /// After any change: publish, keep what must survive, and see to it that recovery is found with nobody asking.
    fn after(&mut self, transition: Option<Transition>, ctx: &mut Context<Self>) {
        let now = self.seed.clock.now();
        let transition = transition.or_else(|| self.breaker.tick(now));
        let view = self.breaker.view(now);
        self.vitals.state = if self.disabled { ProviderState::Disabled } else { view.state };
        self.vitals.retry_at = view.retry_at.map(|at| self.seed.clock.wall_at(at));
        self.vitals.strikes = view.strikes;
        if view.state != ProviderState::Closed {
            self.vitals.reason = view.fault;
        }
        self.vitals.in_flight = self.seed.max_concurrent.saturating_sub(self.seed.places.available_permits());
        self.seed.vitals.send_replace(self.vitals.clone());
        if let Some(transition) = transition {
            tracing::info!(provider = %self.seed.name, from = ?transition.from, to = ?transition.to,
                cause = transition.cause.map(tracing::field::display),
                reason = transition.fault.map(Fault::reason), "breaker changed");
            self.keep();
        }
        self.arm(ctx);
    }

    /// Writes the breaker's state, beside everything else: a store that fails costs the memory of it, nothing more.
    fn keep(&self) {
        let state = self.vitals.state;
        let record = (state != ProviderState::Closed).then(|| BreakerRecord {
            provider: self.seed.name.to_string(),
            blocked: state == ProviderState::Blocked,
            strikes: self.vitals.strikes,
            until: self.vitals.retry_at.unwrap_or_else(|| self.seed.clock.wall()),
            reason: self.vitals.reason.map_or("", Fault::reason).to_owned(),
        });
        let (store, name) = (Arc::clone(&self.seed.store), Arc::clone(&self.seed.name));
        actix::spawn(async move {
            if let Err(error) = store.write_breaker(name.to_string(), record).await {
                tracing::warn!(provider = %name, %error, "breaker state not kept");
            }
        });
    }

    /// Sets the timer of the next recovery probe, where one is due.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.seed.clock.now();
        if let Some(due) = self.breaker.due(now).filter(|_| !self.disabled) {
            self.timer = Some(ctx.run_later(due.saturating_sub(now), Self::probe));
        }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        let now = self.seed.clock.now();
        let half_open = self.breaker.tick(now);
        let admitted = self.breaker.admit(now, Who::Probe);
        // Published either way: where a visitor is to be the probe, the breaker is half-open until one comes.
        self.after(half_open, ctx);
        let Ok(ticket) = admitted else { return };
        let trial = completion(Arc::clone(&self.seed.upstream), self.seed.probe_limit);
        let settled = trial.into_actor(self).map(move |verdict, this: &mut Self, ctx| {
            let transition =
                this.breaker.settle(ticket, verdict, this.seed.clock.now(), (this.seed.chance)());
            this.after(transition, ctx);
        });
        ctx.spawn(settled);
    }
}

/// A one-token completion: the only thing but a visitor's turn that proves a provider answers.
async fn completion(upstream: Arc<dyn Upstream>, limit: Duration) -> Verdict {
    let question = Said { role: Role::User, text: "ping".into() };
    let ask = Ask {
        system: "".into(),
        messages: Arc::new([question]),
        max_tokens: 1,
        goes_on: false,
        temperature: None,
        stop: Arc::default(),
    };
    let failed = |fault, retry_after| Verdict::Failed { fault, started: false, retry_after };
    let answered = async {
        let mut steps = upstream.ask(&ask);
        while let Some(step) = steps.next().await {
            match step {
                Ok(Step::Usage(_)) => {}
                Ok(Step::Text(_) | Step::Thinking | Step::End(_)) => return Verdict::Whole,
                Err(failure) => return failed(failure.fault, failure.retry_after),
            }
        }
        failed(Fault::Truncated, None)
    };
    tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| failed(Fault::Timeout, None))
}

impl Actor for ProviderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Every message that reaches it is bounded by the running turns; Admit is waited for with a limit.
        ctx.set_mailbox_capacity(1024);
        self.after(None, ctx);
    }
}

impl Handler<Admit> for ProviderActor {
    type Result = MessageResult<Admit>;

    fn handle(&mut self, _: Admit, ctx: &mut Self::Context) -> Self::Result {
        if self.disabled {
            return MessageResult(Err(Refusal { busy: false, retry_at: None }));
        }
        let Ok(place) = Arc::clone(&self.seed.places).try_acquire_owned() else {
            return MessageResult(Err(Refusal { busy: true, retry_at: None }));
        };
        let admitted = self.breaker.admit(self.seed.clock.now(), Who::Visitor);
        let permit = admitted
            .map(|ticket| Permit::new(ticket, self.seed.actor.clone(), place))
            .map_err(|refusal| Refusal { busy: false, retry_at: refusal.retry_at });
        if permit.is_ok() {
            self.after(None, ctx);
        }
        MessageResult(permit)
    }
}

impl Handler<Observe> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Observe { ticket, first_token }: Observe, ctx: &mut Self::Context) {
        self.vitals.first_token = self.first_tokens.record(first_token);
        let transition =
            self.breaker.first_token(ticket, first_token, self.seed.clock.now(), (self.seed.chance)());
        if transition.is_some() {
            self.after(transition, ctx);
        }
    }
}

impl Handler<Settle> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Settle { ticket, verdict, took }: Settle, ctx: &mut Self::Context) {
        match verdict {
            Verdict::Whole => {
                self.vitals.successes += 1;
                self.vitals.total = self.totals.record(took);
            }
            Verdict::Failed { fault, started, .. } => {
                self.vitals.failures += 1;
                self.vitals.restarts += u64::from(started);
                self.vitals.reason = Some(fault);
            }
            Verdict::Abandoned => {}
        }
        self.vitals.checked_at = Some(self.seed.clock.wall());
        let transition = self.breaker.settle(ticket, verdict, self.seed.clock.now(), (self.seed.chance)());
        self.after(transition, ctx);
    }
}

impl Handler<Reset> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: Reset, ctx: &mut Self::Context) {
        let transition = self.breaker.reset(self.seed.clock.now());
        self.vitals.reason = None;
        self.after(transition, ctx);
    }
}

impl Handler<Crash> for ProviderActor {
    type Result = ();

    #[allow(clippy::panic, reason = "what it is for")]
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

#[cfg(test)]
mod tests;
