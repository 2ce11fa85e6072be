//! The probing of a failed provider: which calls may probe it, how many at once, and the result.

use std::time::Duration;

use super::{BreakerConfig, CallOrigin, CallOutcome, Ticket};
use crate::domain::{BreakerImpact, FaultKind};

/// The slots of running probes, including probes of an earlier probation. A slow probe whose
/// outcome no longer counts is still a call to a provider that may be in trouble, so it keeps its
/// slot.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeSlots(Vec<ProbeSlot>);

#[derive(Clone, Copy, Debug)]
struct ProbeSlot {
    ticket: Ticket,
    origin: CallOrigin,
    expires_at: Duration,
}

impl ProbeSlots {
    pub(super) fn acquire(&mut self, ticket: Ticket, origin: CallOrigin, lease_ends: Duration) {
        self.0.push(ProbeSlot {
            ticket,
            origin,
            expires_at: lease_ends,
        });
    }

    /// Releases a slot. Returns the origin of its probe, or `None` if the slot had expired.
    pub(super) fn release(&mut self, ticket: Ticket, now: Duration) -> Option<CallOrigin> {
        self.expire(now);
        let origin = self.0.iter().find(|slot| slot.ticket == ticket)?.origin;
        self.0.retain(|slot| slot.ticket != ticket);
        Some(origin)
    }

    /// Releases the slots of probes that never reported an outcome.
    pub(super) fn expire(&mut self, now: Duration) {
        self.0.retain(|slot| slot.expires_at > now);
    }

    fn in_use(&self, now: Duration) -> usize {
        self.expirations(now).count()
    }

    fn expirations(&self, now: Duration) -> impl Iterator<Item = Duration> {
        self.0
            .iter()
            .map(|slot| slot.expires_at)
            .filter(move |expiry| *expiry > now)
    }
}

/// The state of probing while half-open or blocked.
#[derive(Clone, Debug)]
pub(super) struct Probation {
    /// No probe is admitted before.
    pub(super) not_before: Duration,
    successes: u32,
    /// The provider rejected the actor's own probe as a wrong request, which says nothing about its
    /// health. Then visitors' calls are the probes; otherwise the breaker could stay half-open for
    /// ever.
    is_inconclusive: bool,
}

pub(super) enum ProbeResult {
    /// The number of good probes so far.
    Healthy(u32),
    /// The fault and its `Retry-After`.
    Failed(FaultKind, Option<Duration>),
}

impl Probation {
    pub(super) fn starting_at(not_before: Duration) -> Self {
        Self {
            not_before,
            successes: 0,
            is_inconclusive: false,
        }
    }

    /// Returns `true` if a call of this origin may probe now. `needed` is the number of good probes
    /// that end the probation.
    pub(super) fn admits(
        &self,
        origin: CallOrigin,
        needed: u32,
        places: &ProbeSlots,
        now: Duration,
        rules: &BreakerConfig,
    ) -> bool {
        let may_probe = match origin {
            CallOrigin::Turn => self.is_inconclusive || !rules.recovery_probe,
            CallOrigin::Probe => rules.recovery_probe && !self.is_inconclusive,
        };
        may_probe && now >= self.not_before && places.in_use(now) < self.slot_limit(needed)
    }

    /// Returns when the actor should next try a probe; never in the past. `None` if the probes are
    /// visitors' calls.
    pub(super) fn next_probe_at(
        &self,
        needed: u32,
        places: &ProbeSlots,
        now: Duration,
        rules: &BreakerConfig,
    ) -> Option<Duration> {
        if !rules.recovery_probe || self.is_inconclusive {
            None
        } else if places.in_use(now) < self.slot_limit(needed) {
            Some(self.not_before.max(now))
        } else {
            places.expirations(now).min()
        }
    }

    /// Returns the maximum of concurrent probes: as many as are still needed, and at least one in
    /// case the configuration has changed meanwhile.
    fn slot_limit(&self, needed: u32) -> usize {
        let slots = needed.saturating_sub(self.successes).max(1);
        usize::try_from(slots).unwrap_or(usize::MAX)
    }

    /// Handles the outcome of a probe. An inconclusive one releases its slot: at once for the next
    /// visitor, but after `pause` for the actor's own probe, which would be sent again without end.
    pub(super) fn on_result(
        &mut self,
        origin: CallOrigin,
        outcome: CallOutcome,
        now: Duration,
        pause: Duration,
    ) -> Option<ProbeResult> {
        match outcome {
            CallOutcome::Success => {
                self.successes = self.successes.saturating_add(1);
                return Some(ProbeResult::Healthy(self.successes));
            }
            CallOutcome::Failed {
                fault, retry_after, ..
            } if fault.breaker_impact() != BreakerImpact::Ignored => {
                return Some(ProbeResult::Failed(fault, retry_after));
            }
            CallOutcome::Failed { .. } => self.is_inconclusive |= origin == CallOrigin::Probe,
            CallOutcome::Abandoned => {}
        }
        if origin == CallOrigin::Probe {
            self.not_before = now.saturating_add(pause);
        }
        None
    }
}
