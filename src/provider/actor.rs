//! The ProviderActor: owns one backend's breaker, places and day's cost, admits calls, hears how they ended, tries it again by itself.

pub mod changing;
mod hearing;
mod ledger;
mod probing;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, MessageResult, SpawnHandle};
use tokio::sync::watch;

use super::backend::{Clock, Vitals, Whereabouts};
use super::breaker::{Breaker, Rules, Saved, Ticket, Transition, Verdict, Who};
use super::drill::Switch;
use super::latency::Latencies;
use super::leave::Probing;
use super::news::News;
use super::permit::{Notes, Permit};
use super::places::Places;
use super::spending::Terms;
use super::upstream::Upstream;
use crate::chat::{At, Fault, ProviderState};
use crate::settings::HealthSettings;
use crate::store::Store;
use crate::supervised::{Crash, Guard};
pub use hearing::{Hear, SpentElsewhere};
use shown::Shown;

/// How often it looks for what passed with time alone.
const TIDY: Duration = Duration::from_secs(60);

/// Messages that wait to be heard, as far as a mailbox has a bound. Who asks for leave is one of the router's questions, which have one; what
/// permits tell is taken all the same, and is bounded by them.
const MAILBOX: usize = 1024;

/// What a ProviderActor is made of, and made of again after a panic.
#[derive(Clone)]
pub struct Seed {
    /// The provider's name.
    pub name: Arc<str>,
    /// Its breaker's rules.
    pub rules: Rules,
    /// How long its recovery probe may take.
    pub probe_limit: Duration,
    /// How its health is looked into.
    pub health: HealthSettings,
    /// Its prices and its budget.
    pub terms: Terms,
    /// How to ask it.
    pub upstream: Arc<dyn Upstream>,
    /// Its drills: what they make of the breaker is not remembered.
    pub drills: Arc<Switch>,
    /// Its places. They live here, so that a panic loses none.
    pub places: Arc<Places>,
    /// How many of them may be taken.
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
    /// Where it says what others should know. The last word stands for all before it.
    pub voice: Arc<watch::Sender<Option<News>>>,
    /// Who gives leave to probe; none where this instance is alone.
    pub probing: Option<Arc<dyn Probing>>,
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
    check_timer: Option<SpawnHandle>,
    /// Permits that have not told their end.
    unsettled: usize,
    /// Whether it only waits for those.
    retired: bool,
    /// Until when others know, or said, that the provider is to be left alone.
    hold_known: Duration,
    /// What was told of when it is tried again.
    shown: Shown,
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

/// An attempt was given up for a faster one before anything had come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Overtaken {
    pub(super) waited: Duration,
}

/// The last verdict on an attempt.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle {
    pub(super) ticket: Ticket,
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    pub(super) notes: Notes,
}

/// Closes the breaker and forgets what it counted: an operator's order, or a mended demo provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reset;

/// An outage drill ended: lifts what it left, as [`Reset`] does, and forgets how long calls took under it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DrillOver;

/// Switches the provider on or off: off, it is neither asked nor probed, and what is under way goes on.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Enable(pub bool);

impl ProviderActor {
    /// A new actor. Its breaker begins as last published: open or half-open where it was not closed, never fresh; and what it was asked to
    /// wait for is waited for.
    pub fn new(seed: Seed, guard: Guard) -> Self {
        let vitals = seed.vitals.borrow().clone();
        let now = seed.clock.now();
        let rules = seed.rules.clone();
        let until = vitals
            .retry_at
            .map_or(now, |at| now + at.since(seed.clock.wall()));
        let breaker = match vitals.state {
            ProviderState::Closed | ProviderState::Disabled => Breaker::held(rules, now, until),
            state => {
                let blocked = state == ProviderState::Blocked;
                let saved = Saved {
                    strikes: vitals.strikes,
                    until,
                    blocked,
                    fault: vitals.reason,
                };
                Breaker::restored(rules, now, saved)
            }
        };
        let disabled = vitals.state == ProviderState::Disabled;
        let shown = vitals
            .retry_at
            .map_or_else(Shown::default, |at| Shown::of(until, at));
        Self {
            seed,
            breaker,
            vitals,
            first_tokens: Latencies::default(),
            totals: Latencies::default(),
            disabled,
            timer: None,
            check_timer: None,
            unsettled: 0,
            retired: false,
            hold_known: until,
            shown,
            _guard: guard,
        }
    }

    /// After any change: publish, keep what must survive, and see to it that recovery is found with nobody asking.
    fn after(&mut self, transition: Option<Transition>, ctx: &mut Context<Self>) {
        let now = self.seed.clock.now();
        let transition = transition.or_else(|| self.breaker.tick(now));
        let view = self.breaker.view(now);
        self.vitals.state = if self.disabled {
            ProviderState::Disabled
        } else {
            view.state
        };
        self.vitals.retry_at = view
            .retry_at
            .map(|at| self.shown.tell(at, self.seed.clock.wall_at(at)));
        self.vitals.strikes = view.strikes;
        if view.state != ProviderState::Closed {
            self.vitals.reason = view.fault;
        }
        self.vitals.budget_until = self.spent_until();
        self.vitals.first_token = self.first_tokens.recent(now);
        self.vitals.total = self.totals.recent(now);
        self.vitals.in_flight = self.seed.places.taken();
        self.seed.vitals.send_replace(self.vitals.clone());
        self.tell(transition.as_ref(), &view, now);
        if let Some(transition) = transition {
            tracing::info!(provider = %self.seed.name, from = ?transition.from, to = ?transition.to,
                cause = transition.cause.map(tracing::field::display),
                reason = transition.fault.map(Fault::reason), "breaker changed");
            self.keep();
        }
        self.arm(ctx);
        self.leave(ctx);
    }

    /// Closes the breaker and forgets what was learned.
    fn forget(&mut self) -> Option<Transition> {
        self.vitals.reason = None;
        self.vitals.check = None;
        self.breaker.reset(self.seed.clock.now())
    }

    /// When the budget is whole again, where it is spent.
    fn spent_until(&self) -> Option<At> {
        let everywhere = self.vitals.spent.with(self.vitals.spent_elsewhere);
        everywhere.until(self.seed.terms.daily_budget_usd, self.seed.clock.wall())
    }
}

impl Actor for ProviderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.after(None, ctx);
        self.arm_check(ctx);
        // What passes with time alone is published too: old latencies, the day's end.
        ctx.run_interval(TIDY, |this, ctx| this.after(None, ctx));
    }
}

impl Handler<Admit> for ProviderActor {
    type Result = MessageResult<Admit>;

    fn handle(&mut self, _: Admit, ctx: &mut Self::Context) -> Self::Result {
        if self.disabled || self.retired {
            return MessageResult(Err(Refusal {
                busy: false,
                retry_at: None,
            }));
        }
        if let Some(until) = self.spent_until() {
            let clock = self.seed.clock;
            let retry_at = Some(clock.now().saturating_add(until.since(clock.wall())));
            return MessageResult(Err(Refusal {
                busy: false,
                retry_at,
            }));
        }
        let Some(place) = self.seed.places.take(self.seed.max_concurrent) else {
            return MessageResult(Err(Refusal {
                busy: true,
                retry_at: None,
            }));
        };
        let admitted = self.breaker.admit(self.seed.clock.now(), Who::Visitor);
        let permit = admitted
            .map(|ticket| Permit::new(ticket, self.seed.actor.clone(), place))
            .map_err(|refusal| Refusal {
                busy: false,
                retry_at: refusal.retry_at,
            });
        if permit.is_ok() {
            self.unsettled += 1;
            self.after(None, ctx);
        }
        MessageResult(permit)
    }
}

impl Handler<Observe> for ProviderActor {
    type Result = ();

    fn handle(
        &mut self,
        Observe {
            ticket,
            first_token,
        }: Observe,
        ctx: &mut Self::Context,
    ) {
        let now = self.seed.clock.now();
        self.first_tokens.record(first_token, now);
        let transition = self
            .breaker
            .first_token(ticket, first_token, now, (self.seed.chance)());
        // Published at once: others may choose by it while this answer goes on.
        self.after(transition, ctx);
    }
}

impl Handler<Overtaken> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Overtaken { waited }: Overtaken, ctx: &mut Self::Context) {
        // It would have taken longer still; but without it one that hangs for ever would be known as fast by its better days. The breaker does
        // not hear of it.
        self.first_tokens.record(waited, self.seed.clock.now());
        self.after(None, ctx);
    }
}

impl Handler<Settle> for ProviderActor {
    type Result = ();

    fn handle(&mut self, settle: Settle, ctx: &mut Self::Context) {
        let Settle {
            ticket,
            verdict,
            took,
            notes,
        } = settle;
        // One that a rebuilt actor did not give is not counted here.
        self.unsettled = self.unsettled.saturating_sub(1);
        let now = self.seed.clock.now();
        match verdict {
            Verdict::Whole => {
                self.vitals.successes += 1;
                self.totals.record(took, now);
                // A whole answer says more than any check.
                if let Some(check) = &mut self.vitals.check {
                    check.failed = None;
                }
            }
            Verdict::Failed { fault, started, .. } => {
                self.vitals.failures += 1;
                self.vitals.restarts += u64::from(started);
                self.vitals.reason = Some(fault);
            }
            Verdict::Abandoned => {}
        }
        if verdict != Verdict::Abandoned {
            self.vitals.checked_at = Some(self.seed.clock.wall());
        }
        if let Some(usage) = notes.usage {
            self.spend(usage);
        }
        if let Some(score) = notes.quality {
            self.score(score);
        }
        let transition = self
            .breaker
            .settle(ticket, verdict, now, (self.seed.chance)());
        self.after(transition, ctx);
    }
}

impl Handler<Reset> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: Reset, ctx: &mut Self::Context) {
        let transition = self.forget();
        self.after(transition, ctx);
        self.seed.voice.send_replace(Some(News::Reset));
    }
}

impl Handler<DrillOver> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: DrillOver, ctx: &mut Self::Context) {
        self.first_tokens = Latencies::default();
        self.totals = Latencies::default();
        let transition = self.forget();
        self.after(transition, ctx);
        // What it was before may still be in the store.
        self.keep();
    }
}

impl Handler<Enable> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Enable(on): Enable, ctx: &mut Self::Context) {
        self.disabled = !on;
        self.after(None, ctx);
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
