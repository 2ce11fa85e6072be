//! The ProviderActor: owns the breaker, the concurrency limit and the daily spend of one provider,
//! admits calls, records their outcomes, and probes for recovery.

mod accounting;
mod peer_events;
pub mod permit;
pub mod probes;
pub mod reconfigure;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, MessageResult, SpawnHandle};
use tokio::sync::watch;

use super::breaker::{Breaker, BreakerConfig, BreakerSnapshot, CallOrigin, Transition};
use super::clock::Clock;
use super::concurrency_limit::ConcurrencyLimit;
use super::cost::ProviderPricing;
use super::event::ProviderEvent;
use super::fault_injection::FaultSwitch;
use super::latency::RecentLatency;
use super::status::{ProviderStatus, StableRetryAt};
use super::stream_event::ProviderClient;
use crate::actor_exit::{AddrWatch, ExitGuard};
use crate::config::HealthSettings;
use crate::domain::{FaultKind, ProviderState, Timestamp};
use crate::store::Store;
pub use peer_events::{ApplyPeerEvent, SetPeerSpend};
use permit::Permit;
use probes::ProbeCoordinator;

/// The interval of status updates for changes by time alone, such as expiring latencies.
const STATUS_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// The capacity of the mailbox. `TryAcquire` comes from the router, whose selections are bounded.
/// Permits report with `do_send`, which ignores the capacity and is bounded by the permits.
const MAILBOX_CAPACITY: usize = 1024;

/// The parts of a ProviderActor. They outlive a panic, and the rebuilt actor gets them again.
#[derive(Clone)]
pub struct ProviderParts {
    pub name: Arc<str>,
    pub breaker_config: BreakerConfig,
    pub probe_timeout: Duration,
    pub health_settings: HealthSettings,
    pub pricing: ProviderPricing,
    pub client: Arc<dyn ProviderClient>,
    /// State changes caused by an outage drill are neither saved nor sent to other instances.
    pub fault_switch: Arc<FaultSwitch>,
    /// Lives outside the actor, so that a panic loses no permit.
    pub concurrency: Arc<ConcurrencyLimit>,
    pub max_concurrent: usize,
    /// The published status. A rebuilt actor starts from the last one.
    pub status: Arc<watch::Sender<ProviderStatus>>,
    pub actor: AddrWatch<ProviderActor>,
    /// Keeps the breaker's state over a restart of the service.
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    pub random_unit: fn() -> f64,
    /// Events for other instances; a new one replaces the previous one.
    pub events: Arc<watch::Sender<Option<ProviderEvent>>>,
    /// `None` if this is the only instance.
    pub probe_coordinator: Option<Arc<dyn ProbeCoordinator>>,
}

pub struct ProviderActor {
    parts: ProviderParts,
    breaker: Breaker,
    status: ProviderStatus,
    first_token_latency: RecentLatency,
    total_latency: RecentLatency,
    is_disabled: bool,
    probe_timer: Option<SpawnHandle>,
    check_timer: Option<SpawnHandle>,
    open_permits: usize,
    /// Takes no more calls, and stops after the last outcome.
    is_retired: bool,
    /// The latest end of a rate limit that other instances already know of.
    published_hold_until: Duration,
    stable_retry_at: StableRetryAt,
    _exit_guard: ExitGuard,
}

/// Requests the permit for one call. Answered at once.
#[derive(Debug, Message)]
#[rtype(result = "Result<Permit, AcquireRejection>")]
pub struct TryAcquire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireRejection {
    /// The provider is at its concurrency limit. It works and is only skipped.
    pub is_busy: bool,
    /// The monotonic time from which a call is worth another try, if known.
    pub retry_at: Option<Duration>,
}

/// Closes the breaker and discards its counts, for an operator or a repaired demo provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ResetBreaker;

/// Undoes the effects of an outage drill: resets the breaker as [`ResetBreaker`] does, and discards
/// the latencies.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ClearAfterDrill;

/// Enables or disables the provider. A disabled provider is neither called nor probed; running
/// calls continue.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SetEnabled(pub bool);

impl ProviderActor {
    /// Creates an actor whose breaker continues from the published status: open or half-open if it
    /// was not closed, and still waiting out a rate limit.
    pub fn new(parts: ProviderParts, guard: ExitGuard) -> Self {
        let status = parts.status.borrow().clone();
        let now = parts.clock.now();
        let config = parts.breaker_config.clone();
        let wall = parts.clock.wall();
        let until = status.retry_at.map_or(now, |at| now + at.since(wall));
        let breaker = match status.state {
            ProviderState::Closed | ProviderState::Disabled => {
                Breaker::rate_limited_until(config, now, until)
            }
            state => {
                let snapshot = BreakerSnapshot {
                    failed_probes: status.failed_probes,
                    retry_at: until,
                    is_blocked: state == ProviderState::Blocked,
                    fault: status.last_fault,
                };
                Breaker::from_snapshot(config, now, snapshot)
            }
        };
        let stable_retry_at = status.retry_at.map(|at| StableRetryAt::new(until, at));
        Self {
            parts,
            breaker,
            is_disabled: status.state == ProviderState::Disabled,
            status,
            first_token_latency: RecentLatency::default(),
            total_latency: RecentLatency::default(),
            probe_timer: None,
            check_timer: None,
            open_permits: 0,
            is_retired: false,
            published_hold_until: until,
            stable_retry_at: stable_retry_at.unwrap_or_default(),
            _exit_guard: guard,
        }
    }

    /// To be called after every change: publishes and saves the state, and schedules the next
    /// probe, so that recovery is found without any call.
    fn after_change(&mut self, transition: Option<Transition>, ctx: &mut Context<Self>) {
        let now = self.parts.clock.now();
        let transition = transition.or_else(|| self.breaker.tick(now));
        let view = self.breaker.view(now);
        self.status.state = if self.is_disabled {
            ProviderState::Disabled
        } else {
            view.state
        };
        let clock = self.parts.clock;
        let resolve = |at| self.stable_retry_at.resolve(at, clock.wall_at(at));
        self.status.retry_at = view.retry_at.map(resolve);
        self.status.failed_probes = view.failed_probes;
        if view.state != ProviderState::Closed {
            self.status.last_fault = view.fault;
        }
        self.status.budget_resets_at = self.budget_resets_at();
        self.status.first_token_latency = self.first_token_latency.percentiles(now);
        self.status.total_latency = self.total_latency.percentiles(now);
        self.status.in_flight = self.parts.concurrency.in_use();
        self.parts.status.send_replace(self.status.clone());
        self.publish_event(transition.as_ref(), &view, now);
        if let Some(transition) = transition {
            tracing::info!(provider = %self.parts.name, from = ?transition.from, to = ?transition.to,
                cause = transition.trip_reason.map(tracing::field::display),
                reason = transition.fault.map(FaultKind::wire_name), "breaker changed");
            self.save_breaker();
        }
        self.schedule_probe(ctx);
        // Last, because it may stop the actor.
        self.stop_if_idle(ctx);
    }

    fn admit(&mut self) -> Result<Permit, AcquireRejection> {
        let reject = |is_busy, retry_at| AcquireRejection { is_busy, retry_at };
        if self.is_disabled || self.is_retired {
            return Err(reject(false, None));
        }
        let clock = self.parts.clock;
        if let Some(until) = self.budget_resets_at() {
            return Err(reject(false, Some(clock.monotonic(until))));
        }
        let slot = self
            .parts
            .concurrency
            .try_acquire(self.parts.max_concurrent);
        let slot = slot.ok_or(reject(true, None))?;
        let admitted = self.breaker.admit(clock.now(), CallOrigin::Turn);
        let ticket = admitted.map_err(|rejection| reject(false, rejection.retry_at))?;
        Ok(Permit::new(ticket, self.parts.actor.clone(), slot))
    }

    fn reset_state(&mut self) -> Option<Transition> {
        self.status.last_fault = None;
        self.status.last_check = None;
        self.breaker.reset(self.parts.clock.now())
    }

    /// Returns when the daily budget resets, or `None` if it is not spent.
    fn budget_resets_at(&self) -> Option<Timestamp> {
        let own = self.status.spend_today;
        let total = own.merged_with(self.status.peer_spend_today);
        total.resets_at(self.parts.pricing.daily_budget_usd, self.parts.clock.wall())
    }
}

impl Actor for ProviderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        self.after_change(None, ctx);
        self.schedule_health_check(ctx);
        // Some of the status changes with time alone: old latencies expire, the day ends.
        ctx.run_interval(STATUS_REFRESH_INTERVAL, |this, ctx| {
            this.after_change(None, ctx)
        });
    }
}

impl Handler<TryAcquire> for ProviderActor {
    type Result = MessageResult<TryAcquire>;

    fn handle(&mut self, _: TryAcquire, ctx: &mut Self::Context) -> Self::Result {
        let admitted = self.admit();
        if admitted.is_ok() {
            self.open_permits += 1;
            self.after_change(None, ctx);
        }
        MessageResult(admitted)
    }
}

impl Handler<ResetBreaker> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: ResetBreaker, ctx: &mut Self::Context) {
        let transition = self.reset_state();
        self.after_change(transition, ctx);
        self.parts.events.send_replace(Some(ProviderEvent::Reset));
    }
}

impl Handler<ClearAfterDrill> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: ClearAfterDrill, ctx: &mut Self::Context) {
        self.first_token_latency = RecentLatency::default();
        self.total_latency = RecentLatency::default();
        let transition = self.reset_state();
        self.after_change(transition, ctx);
        // The store may still hold the state from before the reset.
        self.save_breaker();
    }
}

impl Handler<SetEnabled> for ProviderActor {
    type Result = ();

    fn handle(&mut self, SetEnabled(is_enabled): SetEnabled, ctx: &mut Self::Context) {
        self.is_disabled = !is_enabled;
        self.after_change(None, ctx);
    }
}

#[cfg(test)]
mod tests;
