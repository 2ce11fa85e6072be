//! Calls that the actor makes itself: recovery probes while the breaker is not closed, and health
//! checks while it is.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};

use super::ProviderActor;
use crate::chat::Fault;
use crate::provider::breaker::{Ticket, Verdict, Who};
use crate::provider::health::{self, Check, PROBE_USAGE};
use crate::provider::leave::{Held, Leave};
use crate::provider::upstream::Upstream;
use crate::settings::ProbeKind;

impl ProviderActor {
    /// Schedules the next recovery probe, if one is due. With a spent budget there is no probe
    /// before the budget resets, because the provider would not be called anyway.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.seed.clock.now();
        let due = self.breaker.due(now);
        if let Some(due) = due.filter(|_| !self.disabled && !self.retired) {
            let due = due.max(self.budget_until().unwrap_or_default());
            self.timer = Some(ctx.run_later(due.saturating_sub(now), Self::probe));
        }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        let now = self.seed.clock.now();
        let half_open = self.breaker.tick(now);
        let admitted = self.breaker.admit(now, Who::Probe);
        // Publish even if the probe is refused: if a visitor's call is the probe, the breaker stays
        // half-open until one arrives.
        self.after(half_open, ctx);
        let Ok(ticket) = admitted else { return };
        let probing = self.seed.probing.clone();
        let upstream = Arc::clone(&self.seed.upstream);
        let timeout = self.seed.probe_limit;
        let asked = Arc::clone(&upstream);
        let probe = async move {
            let lease = match probing {
                Some(coordinator) => match coordinator.ask(timeout).await {
                    Leave::Go(lease) => Some(lease),
                    Leave::Wait(delay) => return Err(delay),
                },
                None => None,
            };
            Ok((lease, health::completion(upstream, timeout).await))
        };
        let finished =
            probe
                .into_actor(self)
                .map(move |result, this: &mut Self, ctx| match result {
                    Ok((lease, outcome)) => this.tried(ticket, outcome, lease, &asked, ctx),
                    Err(delay) => this.put_off(ticket, delay, ctx),
                });
        ctx.spawn(finished);
    }

    fn tried(
        &mut self,
        ticket: Ticket,
        outcome: Verdict,
        lease: Option<Box<dyn Held>>,
        asked: &Arc<dyn Upstream>,
        ctx: &mut Context<Self>,
    ) {
        self.probed(outcome, asked);
        let now = self.seed.clock.now();
        let transition = self
            .breaker
            .settle(ticket, outcome, now, (self.seed.chance)());
        if let Some(lease) = lease {
            lease.give_back(self.breaker.rest_of_others(now));
        }
        self.after(transition, ctx);
    }

    /// Another instance is probing: wait for its event, or for the end of its lease.
    fn put_off(&mut self, ticket: Ticket, delay: Duration, ctx: &mut Context<Self>) {
        let now = self.seed.clock.now();
        let until = now.saturating_add(delay).saturating_add(self.spread());
        self.breaker.postpone(ticket, until, now);
        self.after(None, ctx);
    }

    pub(super) fn arm_check(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.check_timer.take() {
            ctx.cancel_future(timer);
        }
        if self.seed.health.probe != ProbeKind::Off && !self.retired {
            let delay = health::pause(&self.seed.health, (self.seed.chance)());
            self.check_timer = Some(ctx.run_later(delay, Self::check));
        }
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        self.check_timer = None;
        if self.retired {
            return;
        }
        let wall = self.seed.clock.wall();
        let settings = &self.seed.health;
        let has_passed = |at: Option<_>| at.is_none_or(|at| at <= wall);
        let is_rate_limited = !has_passed(self.vitals.retry_at);
        let is_budget_spent = !has_passed(self.vitals.budget_until);
        let upstream = Arc::clone(&self.seed.upstream);
        let timeout = settings.timeout;
        let kind = health::due(
            settings.probe,
            self.vitals.state,
            is_rate_limited,
            is_budget_spent,
        );
        match kind {
            ProbeKind::Off => self.arm_check(ctx),
            ProbeKind::Models => {
                let listing = health::listing(Arc::clone(&upstream), timeout).into_actor(self);
                ctx.spawn(listing.map(move |fault, this: &mut Self, ctx| {
                    this.checked(fault, &upstream);
                    this.after(None, ctx);
                    this.arm_check(ctx);
                }));
            }
            ProbeKind::Completion => {
                let completion =
                    health::completion(Arc::clone(&upstream), timeout).into_actor(self);
                ctx.spawn(completion.map(move |outcome, this: &mut Self, ctx| {
                    this.probed(outcome, &upstream);
                    this.after(None, ctx);
                    this.arm_check(ctx);
                }));
            }
        }
    }

    /// Records the outcome of the actor's own completion: it costs tokens, and it is a health
    /// check.
    fn probed(&mut self, outcome: Verdict, asked: &Arc<dyn Upstream>) {
        match outcome {
            Verdict::Whole => {
                self.spend(PROBE_USAGE);
                self.checked(None, asked);
            }
            Verdict::Failed { fault, .. } => self.checked(Some(fault), asked),
            Verdict::Abandoned => {}
        }
    }

    fn checked(&mut self, fault: Option<Fault>, asked: &Arc<dyn Upstream>) {
        // A check sent before a reload says nothing about the new address or key.
        if !Arc::ptr_eq(asked, &self.seed.upstream) {
            return;
        }
        let wall = self.seed.clock.wall();
        let previous = self.vitals.check.and_then(|check| check.fault(wall));
        // Log only new faults.
        if let Some(fault) = fault.filter(|fault| previous != Some(*fault)) {
            tracing::warn!(provider = %self.seed.name, failure = %fault, "health check failed");
        }
        self.vitals.checked_at = Some(wall);
        self.vitals.checks += 1;
        self.vitals.checks_failed += u64::from(fault.is_some());
        self.vitals.check = Some(Check {
            failed: fault,
            until: wall.plus(self.seed.health.expire),
        });
    }

    fn budget_until(&self) -> Option<Duration> {
        let clock = self.seed.clock;
        self.vitals
            .budget_until
            .map(|at| clock.now().saturating_add(at.since(clock.wall())))
    }
}

#[cfg(test)]
mod tests;
