//! What the actor asks by itself: the recovery probe of a breaker that is not closed, and the check of one that is.

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
    /// Sets the timer of the next recovery probe, where one is due. Whose budget is spent is not probed: it would not be asked anyway.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.seed.clock.now();
        if let Some(due) = self
            .breaker
            .due(now)
            .filter(|_| !self.disabled && !self.retired)
        {
            let due = due.max(self.budget_until().unwrap_or_default());
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
        let probing = self.seed.probing.clone();
        let (upstream, limit) = (Arc::clone(&self.seed.upstream), self.seed.probe_limit);
        let asked = Arc::clone(&upstream);
        let trial = async move {
            let held = match probing {
                Some(fleet) => match fleet.ask(limit).await {
                    Leave::Go(held) => Some(held),
                    Leave::Wait(rest) => return Err(rest),
                },
                None => None,
            };
            Ok((held, health::completion(upstream, limit).await))
        };
        let settled = trial
            .into_actor(self)
            .map(move |tried, this: &mut Self, ctx| match tried {
                Ok((held, verdict)) => this.tried(ticket, verdict, held, &asked, ctx),
                Err(rest) => this.put_off(ticket, rest, ctx),
            });
        ctx.spawn(settled);
    }

    /// The probe ended.
    fn tried(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        held: Option<Box<dyn Held>>,
        asked: &Arc<dyn Upstream>,
        ctx: &mut Context<Self>,
    ) {
        self.probed(verdict, asked);
        let now = self.seed.clock.now();
        let transition = self
            .breaker
            .settle(ticket, verdict, now, (self.seed.chance)());
        if let Some(held) = held {
            held.give_back(self.breaker.rest_of_others(now));
        }
        self.after(transition, ctx);
    }

    /// Another instance is probing: its news, or the end of its leave, comes first.
    fn put_off(&mut self, ticket: Ticket, rest: Duration, ctx: &mut Context<Self>) {
        let now = self.seed.clock.now();
        let until = now.saturating_add(rest).saturating_add(self.spread());
        self.breaker.postpone(ticket, until, now);
        self.after(None, ctx);
    }

    /// Sets the timer of the next check, in the place of one that is set.
    pub(super) fn arm_check(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.check_timer.take() {
            ctx.cancel_future(timer);
        }
        if self.seed.health.probe != ProbeKind::Off && !self.retired {
            let pause = health::pause(&self.seed.health, (self.seed.chance)());
            self.check_timer = Some(ctx.run_later(pause, Self::check));
        }
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        self.check_timer = None;
        if self.retired {
            return;
        }
        let (wall, settings) = (self.seed.clock.wall(), &self.seed.health);
        let passed = |at: Option<_>| at.is_none_or(|at| at <= wall);
        let (held, spent) = (
            !passed(self.vitals.retry_at),
            !passed(self.vitals.budget_until),
        );
        let (upstream, limit) = (Arc::clone(&self.seed.upstream), settings.timeout);
        match health::due(settings.probe, self.vitals.state, held, spent) {
            ProbeKind::Off => self.arm_check(ctx),
            ProbeKind::Models => {
                let listing = health::listing(Arc::clone(&upstream), limit).into_actor(self);
                ctx.spawn(listing.map(move |failed, this: &mut Self, ctx| {
                    this.checked(failed, &upstream);
                    this.after(None, ctx);
                    this.arm_check(ctx);
                }));
            }
            ProbeKind::Completion => {
                let completion = health::completion(Arc::clone(&upstream), limit).into_actor(self);
                ctx.spawn(completion.map(move |verdict, this: &mut Self, ctx| {
                    this.probed(verdict, &upstream);
                    this.after(None, ctx);
                    this.arm_check(ctx);
                }));
            }
        }
    }

    /// A completion of our own ended: it costs, and it is a check.
    fn probed(&mut self, verdict: Verdict, asked: &Arc<dyn Upstream>) {
        match verdict {
            Verdict::Whole => {
                self.spend(PROBE_USAGE);
                self.checked(None, asked);
            }
            Verdict::Failed { fault, .. } => self.checked(Some(fault), asked),
            Verdict::Abandoned => {}
        }
    }

    fn checked(&mut self, failed: Option<Fault>, asked: &Arc<dyn Upstream>) {
        // What was asked before a reload says nothing of what there is now.
        if !Arc::ptr_eq(asked, &self.seed.upstream) {
            return;
        }
        let wall = self.seed.clock.wall();
        let before = self.vitals.check.and_then(|check| check.fault(wall));
        if let Some(fault) = failed.filter(|fault| before != Some(*fault)) {
            tracing::warn!(provider = %self.seed.name, failure = %fault, "a health check failed");
        }
        self.vitals.checked_at = Some(wall);
        self.vitals.checks += 1;
        self.vitals.checks_failed += u64::from(failed.is_some());
        self.vitals.check = Some(Check {
            failed,
            until: wall.plus(self.seed.health.expire),
        });
    }

    /// Until when the budget is spent, on the monotonic clock.
    fn budget_until(&self) -> Option<Duration> {
        let clock = self.seed.clock;
        self.vitals
            .budget_until
            .map(|at| clock.now().saturating_add(at.since(clock.wall())))
    }
}

#[cfg(test)]
mod tests;
