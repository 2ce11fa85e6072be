//! The circuit breaker of one provider (Michael Nygard, "Release It!"). Pure: time since process
//! start and random numbers (0 to 1) are arguments.
//!
//! - `Closed` admits all calls and counts them.
//! - `Open` admits none, for a time that doubles with each failed probe.
//! - `HalfOpen` admits a few probes at once. Enough good ones close it, a bad one opens it again.
//! - `Blocked` follows a refused key or a spent quota: rare probes without doubling, until one is
//!   good.
//!
//! While a rate limit is waited out, the breaker stays closed but admits nothing.
//!
//! Every ticket carries the generation of its state (as in sony/gobreaker); an outcome of an older
//! generation changes no state. Outcomes that say nothing about the provider's health (a fault of
//! the caller, an abandoned call) are not counted.
//!
//! Guarantees: at most `probes` probes run at any time, including those of earlier probations; the
//! breaker never closes without a good probe, a peer's good probe or [`Breaker::reset`]; there is
//! always a time from which it can be probed. It does not limit concurrency, retry, or know of
//! disabled providers.

mod closed;
mod config;
mod half_open;
mod remote;
mod slow_calls;
mod state;
mod types;

use std::time::Duration;

use crate::domain::{BreakerImpact, FaultKind, ProviderState};

use closed::ClosedState;
pub use config::{BreakerConfig, MAX_RATE_LIMIT_WAIT, MAX_RETRY_AFTER};
use half_open::{ProbeResult, ProbeSlots};
use state::{BreakerState, Tripped};
pub use types::{
    BreakerRejection, BreakerSnapshot, BreakerView, CallOrigin, CallOutcome, Ticket, Transition,
    TripReason,
};

#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: BreakerState,
    since: Duration,
    generation: u64,
    issued_tickets: u64,
    probe_slots: ProbeSlots,
}

impl Breaker {
    pub fn new(rules: BreakerConfig) -> Self {
        Self {
            state: BreakerState::Closed(Box::new(ClosedState::new(&rules))),
            config: rules,
            since: Duration::ZERO,
            generation: 0,
            issued_tickets: 0,
            probe_slots: ProbeSlots::default(),
        }
    }

    /// Continues from a snapshot. The breaker is open, half-open or blocked, never closed.
    pub fn from_snapshot(rules: BreakerConfig, now: Duration, saved: BreakerSnapshot) -> Self {
        let mut breaker = Self::new(rules);
        breaker.open_from_peer(saved, now);
        breaker.tick(now);
        breaker
    }

    /// Creates a closed breaker that admits nothing before `until`, to continue a rate limit. The
    /// wait is at most [`MAX_RATE_LIMIT_WAIT`].
    pub fn rate_limited_until(rules: BreakerConfig, now: Duration, until: Duration) -> Self {
        let mut breaker = Self::new(rules);
        if let BreakerState::Closed(closed) = &mut breaker.state {
            closed.rate_limited_until = until.min(now.saturating_add(MAX_RATE_LIMIT_WAIT));
        }
        breaker
    }

    /// Replaces the configuration. The state and a running wait stay; the counts start anew if the
    /// length of the window changed.
    ///
    /// For another key, model or address call [`Breaker::reset`], because nothing known still
    /// holds.
    pub fn set_config(&mut self, rules: BreakerConfig) {
        let window_changed = rules.window != self.config.window;
        self.config = rules;
        if let BreakerState::Closed(closed) = &mut self.state
            && window_changed
        {
            closed.reset_counts(&self.config);
        }
    }

    /// Closes the breaker and discards its counts. Earlier tickets become stale.
    pub fn reset(&mut self, now: Duration) -> Option<Transition> {
        let was_closed = matches!(self.state, BreakerState::Closed(_));
        let transition = self.close(now);
        (!was_closed).then_some(transition)
    }

    /// Makes the breaker half-open if its open time is over. To report that change in time, call
    /// this at [`Breaker::next_probe_at`].
    pub fn tick(&mut self, now: Duration) -> Option<Transition> {
        let BreakerState::Tripped(open) = &self.state else {
            return None;
        };
        let until = open.probation.not_before;
        if open.state != ProviderState::Open || until > now {
            return None;
        }
        let half_open = Tripped {
            state: ProviderState::HalfOpen,
            ..open.clone()
        };
        Some(self.transition_to(BreakerState::Tripped(half_open), until))
    }

    /// Admits or rejects a call.
    ///
    /// If `recovery_probe` is set, visitors are admitted only while closed, and the actor's own
    /// probe once the open time is over. If not, a visitor's call is the probe, and the actor has
    /// none.
    pub fn admit(&mut self, now: Duration, origin: CallOrigin) -> Result<Ticket, BreakerRejection> {
        self.tick(now);
        self.probe_slots.expire(now);
        let is_admitted = match &self.state {
            BreakerState::Closed(closed) => {
                origin == CallOrigin::Turn && closed.rate_limited_until <= now
            }
            BreakerState::Tripped(tripped) => {
                let needed = self.config.probes_needed(tripped.state);
                let slots = &self.probe_slots;
                let probation = &tripped.probation;
                tripped.state != ProviderState::Open
                    && probation.admits(origin, needed, slots, now, &self.config)
            }
        };
        if !is_admitted {
            let view = self.view(now);
            return Err(BreakerRejection {
                state: view.state,
                retry_at: view.retry_at,
            });
        }
        let ticket = Ticket {
            generation: self.generation,
            id: self.issued_tickets,
        };
        self.issued_tickets = self.issued_tickets.wrapping_add(1);
        // Only probes occupy slots; calls while closed are limited by the ProviderActor.
        if !matches!(self.state, BreakerState::Closed(_)) {
            let lease_ends = now.saturating_add(self.config.probe_lease);
            self.probe_slots.acquire(ticket, origin, lease_ends);
        }
        Ok(ticket)
    }

    /// Records the latency of the first token: the first outcome of a call, to be reported before
    /// the last one, at most once.
    pub fn record_first_token(
        &mut self,
        ticket: Ticket,
        latency: Duration,
        now: Duration,
        random: f64,
    ) -> Option<Transition> {
        match &mut self.state {
            BreakerState::Closed(closed) if ticket.generation == self.generation => {
                let trip_reason = closed.record_first_token(latency, now, &self.config)?;
                let not_before = closed.rate_limited_until;
                Some(self.open(0, None, trip_reason, not_before, now, random))
            }
            _ => None,
        }
    }

    /// Records the end of a call, at most once. Call [`Breaker::next_probe_at`] afterwards even if
    /// nothing changed, because a slot may have become free.
    pub fn record_outcome(
        &mut self,
        ticket: Ticket,
        outcome: CallOutcome,
        now: Duration,
        random: f64,
    ) -> Option<Transition> {
        let probe_origin = self.probe_slots.release(ticket, now);
        if ticket.generation != self.generation {
            return None;
        }
        let tripped = match &mut self.state {
            BreakerState::Tripped(tripped) => tripped,
            BreakerState::Closed(closed) => {
                return match outcome {
                    CallOutcome::Failed {
                        fault,
                        had_text,
                        retry_after,
                    } => self.on_failure(fault, had_text, retry_after, now, random),
                    CallOutcome::Success => {
                        closed.on_stream_complete(now);
                        None
                    }
                    CallOutcome::Abandoned => None,
                };
            }
        };
        let is_blocked = tripped.state == ProviderState::Blocked;
        let needed = self.config.probes_needed(tripped.state);
        let pause = if is_blocked {
            self.config.blocked_for
        } else {
            self.config.open_for
        };
        let probation = &mut tripped.probation;
        let (fault, retry_after) = match probation.on_result(probe_origin?, outcome, now, pause)? {
            ProbeResult::Healthy(successes) => {
                return (successes >= needed).then(|| self.close(now));
            }
            ProbeResult::Failed(fault, retry_after) => (fault, retry_after),
        };
        let is_refusal = fault.breaker_impact() == BreakerImpact::Block;
        if is_blocked {
            // Any other fault does not prove that the key or quota is good again.
            if is_refusal {
                tripped.fault = Some(fault);
            }
            let delay = self.config.blocked_duration(fault, retry_after, random);
            tripped.probation.not_before = now.saturating_add(delay);
            return None;
        }
        if is_refusal {
            return Some(self.block(fault, retry_after, now, random));
        }
        let failed_probes = tripped.failed_probes.saturating_add(1);
        let min_open = self.config.min_open_time(fault, retry_after, random);
        let not_before = now.saturating_add(min_open);
        let trip_reason = TripReason::ProbeFailed;
        Some(self.open(
            failed_probes,
            Some(fault),
            trip_reason,
            not_before,
            now,
            random,
        ))
    }

    fn on_failure(
        &mut self,
        fault: FaultKind,
        had_text: bool,
        retry_after: Option<Duration>,
        now: Duration,
        random: f64,
    ) -> Option<Transition> {
        let BreakerState::Closed(closed) = &mut self.state else {
            return None;
        };
        let is_hard = match fault.breaker_impact() {
            BreakerImpact::Failure => true,
            BreakerImpact::RateOnly => false,
            BreakerImpact::Block => return Some(self.block(fault, retry_after, now, random)),
            BreakerImpact::Ignored => return None,
        };
        if config::is_rate_limit(fault) {
            let until = now.saturating_add(config::clamp_retry_after(fault, retry_after));
            closed.rate_limited_until = closed.rate_limited_until.max(until);
        }
        let trip_reason = closed.on_failure(is_hard, had_text, now, &self.config)?;
        let min_open = now.saturating_add(self.config.min_open_time(fault, retry_after, random));
        let not_before = closed.rate_limited_until.max(min_open);
        Some(self.open(0, Some(fault), trip_reason, not_before, now, random))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
