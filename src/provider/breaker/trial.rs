//! The probing of a failed provider: which calls may probe it, how many at once, and the result.

use std::time::Duration;

use super::{Rules, Ticket, Verdict, Who};
use crate::chat::{Fault, Weight};

/// The slots of running probes, including probes of an earlier probation. A slow probe whose
/// outcome no longer counts is still a call to a provider that may be in trouble, so it keeps its
/// slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Vec<Place>);

#[derive(Clone, Copy, Debug)]
struct Place {
    ticket: Ticket,
    origin: Who,
    lease_ends: Duration,
}

impl Places {
    pub(super) fn take(&mut self, ticket: Ticket, origin: Who, lease_ends: Duration) {
        self.0.push(Place {
            ticket,
            origin,
            lease_ends,
        });
    }

    /// Releases a slot. Returns the origin of its probe, or `None` if the slot had expired.
    pub(super) fn give_back(&mut self, ticket: Ticket, now: Duration) -> Option<Who> {
        self.expire(now);
        let origin = self.0.iter().find(|slot| slot.ticket == ticket)?.origin;
        self.0.retain(|slot| slot.ticket != ticket);
        Some(origin)
    }

    /// Releases the slots of probes that never reported an outcome.
    pub(super) fn expire(&mut self, now: Duration) {
        self.0.retain(|slot| slot.lease_ends > now);
    }

    fn taken(&self, now: Duration) -> usize {
        self.leases(now).count()
    }

    fn leases(&self, now: Duration) -> impl Iterator<Item = Duration> {
        self.0
            .iter()
            .map(|slot| slot.lease_ends)
            .filter(move |expiry| *expiry > now)
    }
}

/// The state of probing while half-open or blocked.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// No probe is admitted before.
    pub(super) not_before: Duration,
    successes: u32,
    /// The provider rejected the actor's own probe as a wrong request, which says nothing about its
    /// health. Then visitors' calls are the probes; otherwise the breaker could stay half-open for
    /// ever.
    unsure: bool,
}

pub(super) enum Found {
    /// The number of good probes so far.
    Well(u32),
    /// The fault and its `Retry-After`.
    Unwell(Fault, Option<Duration>),
}

impl Trial {
    pub(super) fn from(not_before: Duration) -> Self {
        Self {
            not_before,
            successes: 0,
            unsure: false,
        }
    }

    /// Returns `true` if a call of this origin may probe now. `needed` is the number of good probes
    /// that end the probation.
    pub(super) fn lets_in(
        &self,
        origin: Who,
        needed: u32,
        places: &Places,
        now: Duration,
        rules: &Rules,
    ) -> bool {
        let may_probe = match origin {
            Who::Visitor => self.unsure || !rules.recovery_probe,
            Who::Probe => rules.recovery_probe && !self.unsure,
        };
        may_probe && now >= self.not_before && places.taken(now) < self.room(needed)
    }

    /// Returns when the actor should next try a probe; never in the past. `None` if the probes are
    /// visitors' calls.
    pub(super) fn due(
        &self,
        needed: u32,
        places: &Places,
        now: Duration,
        rules: &Rules,
    ) -> Option<Duration> {
        if !rules.recovery_probe || self.unsure {
            None
        } else if places.taken(now) < self.room(needed) {
            Some(self.not_before.max(now))
        } else {
            places.leases(now).min()
        }
    }

    /// Returns the maximum of concurrent probes: as many as are still needed, and at least one in
    /// case the configuration has changed meanwhile.
    fn room(&self, needed: u32) -> usize {
        let slots = needed.saturating_sub(self.successes).max(1);
        usize::try_from(slots).unwrap_or(usize::MAX)
    }

    /// Handles the outcome of a probe. An inconclusive one releases its slot: at once for the next
    /// visitor, but after `pause` for the actor's own probe, which would be sent again without end.
    pub(super) fn hear(
        &mut self,
        origin: Who,
        outcome: Verdict,
        now: Duration,
        pause: Duration,
    ) -> Option<Found> {
        match outcome {
            Verdict::Whole => {
                self.successes = self.successes.saturating_add(1);
                return Some(Found::Well(self.successes));
            }
            Verdict::Failed {
                fault, retry_after, ..
            } if fault.weight() != Weight::Nothing => {
                return Some(Found::Unwell(fault, retry_after));
            }
            Verdict::Failed { .. } => self.unsure |= origin == Who::Probe,
            Verdict::Abandoned => {}
        }
        if origin == Who::Probe {
            self.not_before = now.saturating_add(pause);
        }
        None
    }
}
