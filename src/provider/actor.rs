//! The ProviderActor: owns the breaker, the concurrency limit and the daily spend of one provider,
//! admits calls, records their outcomes, and probes for recovery.

mod accounting;
mod peer_events;
mod probes;
pub mod reconfigure;
mod stable_time;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, MessageResult, SpawnHandle};
use tokio::sync::watch;

use super::breaker::{
    Breaker, BreakerConfig, BreakerSnapshot, CallOrigin, CallOutcome, Ticket, Transition,
};
use super::concurrency_limit::ConcurrencyLimit;
use super::cost::ProviderPricing;
use super::event::ProviderEvent;
use super::fault_injection::FaultSwitch;
use super::handle::{AddrWatch, Clock, ProviderStatus};
use super::latency::RecentLatency;
use super::permit::{CallStats, Permit};
use super::probe_lease::ProbeCoordinator;
use super::stream_event::ProviderClient;
use crate::actor_exit::ExitGuard;
use crate::config::HealthSettings;
use crate::domain::{FaultKind, ProviderState, Timestamp};
use crate::store::Store;
pub use peer_events::{ApplyPeerEvent, SetPeerSpend};
use stable_time::StableRetryAt;

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

/// Records how long the first token took. This is the first of an attempt's two outcomes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RecordFirstToken {
    pub(super) ticket: Ticket,
    pub(super) first_token: Duration,
}

/// Records a lower bound of the first-token latency, from an attempt that was abandoned for a
/// faster one before its first token.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RecordMinLatency {
    pub(super) waited: Duration,
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RecordOutcome {
    pub(super) ticket: Ticket,
    pub(super) outcome: CallOutcome,
    pub(super) elapsed: Duration,
    pub(super) stats: CallStats,
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
    pub fn new(seed: ProviderParts, guard: ExitGuard) -> Self {
        let vitals = seed.status.borrow().clone();
        let now = seed.clock.now();
        let rules = seed.breaker_config.clone();
        let until = vitals
            .retry_at
            .map_or(now, |at| now + at.since(seed.clock.wall()));
        let breaker = match vitals.state {
            ProviderState::Closed | ProviderState::Disabled => {
                Breaker::rate_limited_until(rules, now, until)
            }
            state => {
                let blocked = state == ProviderState::Blocked;
                let saved = BreakerSnapshot {
                    failed_probes: vitals.failed_probes,
                    retry_at: until,
                    is_blocked: blocked,
                    fault: vitals.last_fault,
                };
                Breaker::from_snapshot(rules, now, saved)
            }
        };
        let disabled = vitals.state == ProviderState::Disabled;
        let shown = vitals
            .retry_at
            .map_or_else(StableRetryAt::default, |at| StableRetryAt::new(until, at));
        Self {
            parts: seed,
            breaker,
            status: vitals,
            first_token_latency: RecentLatency::default(),
            total_latency: RecentLatency::default(),
            is_disabled: disabled,
            probe_timer: None,
            check_timer: None,
            open_permits: 0,
            is_retired: false,
            published_hold_until: until,
            stable_retry_at: shown,
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
        self.status.retry_at = view.retry_at.map(|at| {
            self.stable_retry_at
                .resolve(at, self.parts.clock.wall_at(at))
        });
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

    fn reset_state(&mut self) -> Option<Transition> {
        self.status.last_fault = None;
        self.status.last_check = None;
        self.breaker.reset(self.parts.clock.now())
    }

    /// Returns when the daily budget resets, or `None` if it is not spent.
    fn budget_resets_at(&self) -> Option<Timestamp> {
        let total_spend = self
            .status
            .spend_today
            .merged_with(self.status.peer_spend_today);
        total_spend.resets_at(self.parts.pricing.daily_budget_usd, self.parts.clock.wall())
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
        if self.is_disabled || self.is_retired {
            return MessageResult(Err(AcquireRejection {
                is_busy: false,
                retry_at: None,
            }));
        }
        if let Some(until) = self.budget_resets_at() {
            let clock = self.parts.clock;
            let retry_at = Some(clock.now().saturating_add(until.since(clock.wall())));
            return MessageResult(Err(AcquireRejection {
                is_busy: false,
                retry_at,
            }));
        }
        let Some(slot) = self
            .parts
            .concurrency
            .try_acquire(self.parts.max_concurrent)
        else {
            return MessageResult(Err(AcquireRejection {
                is_busy: true,
                retry_at: None,
            }));
        };
        let admitted = self.breaker.admit(self.parts.clock.now(), CallOrigin::Turn);
        let permit = admitted
            .map(|ticket| Permit::new(ticket, self.parts.actor.clone(), slot))
            .map_err(|rejection| AcquireRejection {
                is_busy: false,
                retry_at: rejection.retry_at,
            });
        if permit.is_ok() {
            self.open_permits += 1;
            self.after_change(None, ctx);
        }
        MessageResult(permit)
    }
}

impl Handler<RecordFirstToken> for ProviderActor {
    type Result = ();

    fn handle(
        &mut self,
        RecordFirstToken {
            ticket,
            first_token,
        }: RecordFirstToken,
        ctx: &mut Self::Context,
    ) {
        let now = self.parts.clock.now();
        self.first_token_latency.record(first_token, now);
        let transition =
            self.breaker
                .record_first_token(ticket, first_token, now, (self.parts.random_unit)());
        // Published at once, because the `fastest` strategy may use it while this answer runs.
        self.after_change(transition, ctx);
    }
}

impl Handler<RecordMinLatency> for ProviderActor {
    type Result = ();

    fn handle(&mut self, RecordMinLatency { waited }: RecordMinLatency, ctx: &mut Self::Context) {
        // The real latency would have been longer. Without this sample, a provider that hangs would
        // keep the good percentiles of its earlier calls. The breaker does not count it.
        self.first_token_latency
            .record(waited, self.parts.clock.now());
        self.after_change(None, ctx);
    }
}

impl Handler<RecordOutcome> for ProviderActor {
    type Result = ();

    fn handle(&mut self, settle: RecordOutcome, ctx: &mut Self::Context) {
        let RecordOutcome {
            ticket,
            outcome,
            elapsed,
            stats,
        } = settle;
        // Saturating, because a permit issued before a rebuild is not counted here.
        self.open_permits = self.open_permits.saturating_sub(1);
        let now = self.parts.clock.now();
        match outcome {
            CallOutcome::Success => {
                self.status.successes += 1;
                self.total_latency.record(elapsed, now);
                // A complete answer proves more than any check.
                if let Some(check) = &mut self.status.last_check {
                    check.fault = None;
                }
            }
            CallOutcome::Failed {
                fault,
                had_text: started,
                ..
            } => {
                self.status.failures += 1;
                self.status.broken_streams += u64::from(started);
                self.status.last_fault = Some(fault);
            }
            CallOutcome::Abandoned => {}
        }
        if outcome != CallOutcome::Abandoned {
            self.status.last_heard_at = Some(self.parts.clock.wall());
        }
        if let Some(usage) = stats.usage {
            self.record_spend(usage);
        }
        if let Some(score) = stats.quality {
            self.record_quality(score);
        }
        let transition =
            self.breaker
                .record_outcome(ticket, outcome, now, (self.parts.random_unit)());
        self.after_change(transition, ctx);
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

    fn handle(&mut self, SetEnabled(on): SetEnabled, ctx: &mut Self::Context) {
        self.is_disabled = !on;
        self.after_change(None, ctx);
    }
}

#[cfg(test)]
mod tests;
