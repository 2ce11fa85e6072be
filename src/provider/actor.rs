//! The ProviderActor: owns the breaker, the concurrency limit and the daily spend of one provider,
//! admits calls, records their outcomes, and probes for recovery.

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

/// The interval of status updates for changes by time alone, such as expiring latencies.
const TIDY: Duration = Duration::from_secs(60);

/// The capacity of the mailbox. `TryAcquire` comes from the router, whose selections are bounded.
/// Permits report with `do_send`, which ignores the capacity and is bounded by the permits.
const MAILBOX: usize = 1024;

/// The parts of a ProviderActor. They outlive a panic, and the rebuilt actor gets them again.
#[derive(Clone)]
pub struct Seed {
    pub name: Arc<str>,
    pub rules: Rules,
    pub probe_limit: Duration,
    pub health: HealthSettings,
    pub terms: Terms,
    pub upstream: Arc<dyn Upstream>,
    /// State changes caused by an outage drill are neither saved nor sent to other instances.
    pub drills: Arc<Switch>,
    /// Lives outside the actor, so that a panic loses no permit.
    pub places: Arc<Places>,
    pub max_concurrent: usize,
    /// The published status. A rebuilt actor starts from the last one.
    pub vitals: Arc<watch::Sender<Vitals>>,
    pub actor: Whereabouts<ProviderActor>,
    /// Keeps the breaker's state over a restart of the service.
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub chance: fn() -> f64,
    /// Events for other instances; a new one replaces the previous one.
    pub voice: Arc<watch::Sender<Option<News>>>,
    /// `None` if this is the only instance.
    pub probing: Option<Arc<dyn Probing>>,
}

pub struct ProviderActor {
    seed: Seed,
    breaker: Breaker,
    vitals: Vitals,
    first_tokens: Latencies,
    totals: Latencies,
    disabled: bool,
    timer: Option<SpawnHandle>,
    check_timer: Option<SpawnHandle>,
    unsettled: usize,
    /// Takes no more calls, and stops after the last outcome.
    retired: bool,
    /// The latest end of a rate limit that other instances already know of.
    hold_known: Duration,
    shown: Shown,
    _guard: Guard,
}

/// Requests the permit for one call. Answered at once.
#[derive(Debug, Message)]
#[rtype(result = "Result<Permit, Refusal>")]
pub struct Admit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The provider is at its concurrency limit. It works and is only skipped.
    pub busy: bool,
    /// The monotonic time from which a call is worth another try, if known.
    pub retry_at: Option<Duration>,
}

/// Records how long the first token took. This is the first of an attempt's two outcomes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Observe {
    pub(super) ticket: Ticket,
    pub(super) first_token: Duration,
}

/// Records a lower bound of the first-token latency, from an attempt that was abandoned for a
/// faster one before its first token.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Overtaken {
    pub(super) waited: Duration,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Settle {
    pub(super) ticket: Ticket,
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    pub(super) notes: Notes,
}

/// Closes the breaker and discards its counts, for an operator or a repaired demo provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reset;

/// Undoes the effects of an outage drill: resets the breaker as [`ResetBreaker`] does, and discards
/// the latencies.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DrillOver;

/// Enables or disables the provider. A disabled provider is neither called nor probed; running
/// calls continue.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Enable(pub bool);

impl ProviderActor {
    /// Creates an actor whose breaker continues from the published status: open or half-open if it
    /// was not closed, and still waiting out a rate limit.
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

    /// To be called after every change: publishes and saves the state, and schedules the next
    /// probe, so that recovery is found without any call.
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
        // Last, because it may stop the actor.
        self.leave(ctx);
    }

    fn forget(&mut self) -> Option<Transition> {
        self.vitals.reason = None;
        self.vitals.check = None;
        self.breaker.reset(self.seed.clock.now())
    }

    /// Returns when the daily budget resets, or `None` if it is not spent.
    fn spent_until(&self) -> Option<At> {
        let total_spend = self.vitals.spent.with(self.vitals.spent_elsewhere);
        total_spend.until(self.seed.terms.daily_budget_usd, self.seed.clock.wall())
    }
}

impl Actor for ProviderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.after(None, ctx);
        self.arm_check(ctx);
        // Some of the status changes with time alone: old latencies expire, the day ends.
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
        let Some(slot) = self.seed.places.take(self.seed.max_concurrent) else {
            return MessageResult(Err(Refusal {
                busy: true,
                retry_at: None,
            }));
        };
        let admitted = self.breaker.admit(self.seed.clock.now(), Who::Visitor);
        let permit = admitted
            .map(|ticket| Permit::new(ticket, self.seed.actor.clone(), slot))
            .map_err(|rejection| Refusal {
                busy: false,
                retry_at: rejection.retry_at,
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
        // Published at once, because the `fastest` strategy may use it while this answer runs.
        self.after(transition, ctx);
    }
}

impl Handler<Overtaken> for ProviderActor {
    type Result = ();

    fn handle(&mut self, Overtaken { waited }: Overtaken, ctx: &mut Self::Context) {
        // The real latency would have been longer. Without this sample, a provider that hangs would
        // keep the good percentiles of its earlier calls. The breaker does not count it.
        self.first_tokens.record(waited, self.seed.clock.now());
        self.after(None, ctx);
    }
}

impl Handler<Settle> for ProviderActor {
    type Result = ();

    fn handle(&mut self, settle: Settle, ctx: &mut Self::Context) {
        let Settle {
            ticket,
            verdict: outcome,
            took: elapsed,
            notes: stats,
        } = settle;
        // Saturating, because a permit issued before a rebuild is not counted here.
        self.unsettled = self.unsettled.saturating_sub(1);
        let now = self.seed.clock.now();
        match outcome {
            Verdict::Whole => {
                self.vitals.successes += 1;
                self.totals.record(elapsed, now);
                // A complete answer proves more than any check.
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
        if outcome != Verdict::Abandoned {
            self.vitals.checked_at = Some(self.seed.clock.wall());
        }
        if let Some(usage) = stats.usage {
            self.spend(usage);
        }
        if let Some(score) = stats.quality {
            self.score(score);
        }
        let transition = self
            .breaker
            .settle(ticket, outcome, now, (self.seed.chance)());
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
        // The store may still hold the state from before the reset.
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

    #[allow(clippy::panic, reason = "the purpose of the message")]
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crashed on command");
    }
}

#[cfg(test)]
mod tests;
