//! Calls that the actor makes itself: recovery probes while the breaker is not closed, and health
//! checks while it is.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use futures_util::future::BoxFuture;

use super::ProviderActor;
use crate::config::ProbeKind;
use crate::provider::breaker::{CallOrigin, CallOutcome, Ticket};
use crate::provider::health::{self, HealthCheck, PROBE_USAGE};
use crate::provider::stream_event::ProviderClient;

/// Hands out probe leases. While Redis is unavailable, every lease is granted at once, and each
/// instance probes alone.
pub trait ProbeCoordinator: Send + Sync {
    /// Requests a lease for one probe that takes at most `timeout`. Answers within 50 ms.
    fn request_lease(&self, timeout: Duration) -> BoxFuture<'static, ProbeLeaseResult>;
}

pub enum ProbeLeaseResult {
    /// Probe, then release the lease with [`ProbeLease::release`].
    Granted(Box<dyn ProbeLease>),
    /// Another instance is probing or has just probed: ask again after this time.
    HeldElsewhere(Duration),
}

/// A held lease. If dropped without a release, it expires a little after the requested timeout.
pub trait ProbeLease: Send {
    /// Ends the probe. No other instance gets a lease for this time.
    fn release(self: Box<Self>, rest: Duration);
}

impl ProviderActor {
    /// Schedules the next recovery probe, if one is due. With a spent budget there is no probe
    /// before the budget resets, because the provider would not be called anyway.
    pub(super) fn schedule_probe(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.probe_timer.take() {
            ctx.cancel_future(timer);
        }
        let now = self.parts.clock.now();
        let due = self.breaker.next_probe_at(now);
        if let Some(due) = due.filter(|_| !self.is_disabled && !self.is_retired) {
            let clock = self.parts.clock;
            let budget_resets_at = self.status.budget_resets_at;
            let due = due.max(budget_resets_at.map_or(due, |at| clock.monotonic(at)));
            self.probe_timer = Some(ctx.run_later(due.saturating_sub(now), Self::run_probe));
        }
    }

    fn run_probe(&mut self, ctx: &mut Context<Self>) {
        self.probe_timer = None;
        let now = self.parts.clock.now();
        let half_open = self.breaker.tick(now);
        let admitted = self.breaker.admit(now, CallOrigin::Probe);
        // Publish even if the probe is refused: if a visitor's call is the probe, the breaker stays
        // half-open until one arrives.
        self.after_change(half_open, ctx);
        let Ok(ticket) = admitted else { return };
        let coordinator = self.parts.probe_coordinator.clone();
        let timeout = self.parts.probe_timeout;
        let client = Arc::clone(&self.parts.client);
        let asked = Arc::clone(&client);
        let probe = async move {
            let lease = match coordinator {
                Some(coordinator) => match coordinator.request_lease(timeout).await {
                    ProbeLeaseResult::Granted(lease) => Some(lease),
                    ProbeLeaseResult::HeldElsewhere(delay) => return Err(delay),
                },
                None => None,
            };
            Ok((lease, health::check_completion(client, timeout).await))
        };
        let probe = probe.into_actor(self);
        let finished = probe.map(move |result, this: &mut Self, ctx| match result {
            Ok((lease, outcome)) => this.on_probe_result(ticket, outcome, lease, &asked, ctx),
            Err(delay) => this.postpone_probe(ticket, delay, ctx),
        });
        ctx.spawn(finished);
    }

    fn on_probe_result(
        &mut self,
        ticket: Ticket,
        outcome: CallOutcome,
        lease: Option<Box<dyn ProbeLease>>,
        asked: &Arc<dyn ProviderClient>,
        ctx: &mut Context<Self>,
    ) {
        self.on_check(ProbeKind::Completion, outcome, asked);
        let now = self.parts.clock.now();
        let transition = self.record_in_breaker(ticket, outcome);
        if let Some(lease) = lease {
            lease.release(self.breaker.peer_probe_delay(now));
        }
        self.after_change(transition, ctx);
    }

    /// Another instance is probing: wait for its event, or for the end of its lease.
    fn postpone_probe(&mut self, ticket: Ticket, delay: Duration, ctx: &mut Context<Self>) {
        let now = self.parts.clock.now();
        let delay = delay.saturating_add(self.random_delay());
        let until = now.saturating_add(delay);
        self.breaker.postpone_probe(ticket, until, now);
        self.after_change(None, ctx);
    }

    pub(super) fn schedule_health_check(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.check_timer.take() {
            ctx.cancel_future(timer);
        }
        if self.parts.health_settings.probe != ProbeKind::Off && !self.is_retired {
            let random = (self.parts.random_unit)();
            let delay = health::next_interval(&self.parts.health_settings, random);
            self.check_timer = Some(ctx.run_later(delay, Self::run_health_check));
        }
    }

    fn run_health_check(&mut self, ctx: &mut Context<Self>) {
        self.check_timer = None;
        if self.is_retired {
            return;
        }
        let wall = self.parts.clock.wall();
        let settings = &self.parts.health_settings;
        let has_passed = |at: Option<_>| at.is_none_or(|at| at <= wall);
        let is_rate_limited = !has_passed(self.status.retry_at);
        let is_budget_spent = !has_passed(self.status.budget_resets_at);
        let kind = health::check_kind(
            settings.probe,
            self.status.state,
            is_rate_limited,
            is_budget_spent,
        );
        if kind == ProbeKind::Off {
            return self.schedule_health_check(ctx);
        }
        let timeout = settings.timeout;
        let client = Arc::clone(&self.parts.client);
        let asked = Arc::clone(&client);
        let check = async move {
            match kind {
                ProbeKind::Completion => health::check_completion(client, timeout).await,
                _ => health::check_listing(client, timeout).await,
            }
        };
        let finished = check
            .into_actor(self)
            .map(move |outcome, this: &mut Self, ctx| {
                this.on_check(kind, outcome, &asked);
                this.after_change(None, ctx);
                this.schedule_health_check(ctx);
            });
        ctx.spawn(finished);
    }

    fn on_check(&mut self, kind: ProbeKind, outcome: CallOutcome, asked: &Arc<dyn ProviderClient>) {
        let fault = match outcome {
            CallOutcome::Success => None,
            CallOutcome::Failed { fault, .. } => Some(fault),
            CallOutcome::Abandoned => return,
        };
        if kind == ProbeKind::Completion && fault.is_none() {
            self.record_spend(PROBE_USAGE);
        }
        // A check sent before a reload says nothing about the new address or key.
        if !Arc::ptr_eq(asked, &self.parts.client) {
            return;
        }
        let wall = self.parts.clock.wall();
        let last_check = self.status.last_check;
        let previous = last_check.and_then(|check| check.current_fault(wall));
        // Log only new faults.
        if let Some(fault) = fault.filter(|fault| previous != Some(*fault)) {
            tracing::warn!(provider = %self.parts.name, failure = %fault, "health check failed");
        }
        self.status.last_heard_at = Some(wall);
        self.status.checks += 1;
        self.status.failed_checks += u64::from(fault.is_some());
        self.status.last_check = Some(HealthCheck {
            fault,
            expires_at: wall.saturating_add(self.parts.health_settings.expire),
        });
    }
}

#[cfg(test)]
mod tests;
