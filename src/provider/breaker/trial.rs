//! The trial of a provider that failed: who may probe it, how many at once, and what came of it.

use std::time::Duration;

use super::{Rules, Ticket, Verdict, Who};
use crate::chat::{Fault, Weight};

/// Probes under way, of this trial and of earlier ones: a slow probe that the breaker no longer heeds is still a call to a provider
/// that may be in trouble, so it keeps its place until it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Vec<Place>);

#[derive(Clone, Copy, Debug)]
struct Place {
    ticket: Ticket,
    who: Who,
    lease_ends: Duration,
}

impl Places {
    /// Gives a place to a probe until `lease_ends`.
    pub(super) fn take(&mut self, ticket: Ticket, who: Who, lease_ends: Duration) {
        self.0.push(Place {
            ticket,
            who,
            lease_ends,
        });
    }

    /// Takes the place back: whose it was, if its lease had not ended.
    pub(super) fn give_back(&mut self, ticket: Ticket, now: Duration) -> Option<Who> {
        self.expire(now);
        let found = self.0.iter().find(|place| place.ticket == ticket)?.who;
        self.0.retain(|place| place.ticket != ticket);
        Some(found)
    }

    /// Takes back the places whose lease has ended.
    pub(super) fn expire(&mut self, now: Duration) {
        self.0.retain(|place| place.lease_ends > now);
    }

    fn taken(&self, now: Duration) -> usize {
        self.leases(now).count()
    }

    fn leases(&self, now: Duration) -> impl Iterator<Item = Duration> {
        self.0
            .iter()
            .map(|place| place.lease_ends)
            .filter(move |ends| *ends > now)
    }
}

/// A trial under way.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// No probe before.
    pub(super) not_before: Duration,
    /// Probes that went well so far.
    successes: u32,
    /// Whether the owner's own probe ended without telling anything, its request being refused as wrong. Then visitors
    /// are the probes in its place: it would only take theirs, and the breaker could stay half-open for ever.
    unsure: bool,
}

/// What a probe tells.
pub(super) enum Found {
    /// That the provider is well, and that so many probes have told so now.
    Well(u32),
    /// That it is not.
    Unwell(Fault, Option<Duration>),
}

impl Trial {
    /// A trial that begins at this moment.
    pub(super) fn from(not_before: Duration) -> Self {
        Self {
            not_before,
            successes: 0,
            unsure: false,
        }
    }

    /// Is there a place for this one, where `needed` good probes end the trial?
    pub(super) fn lets_in(
        &self,
        who: Who,
        needed: u32,
        places: &Places,
        now: Duration,
        rules: &Rules,
    ) -> bool {
        let may = match who {
            Who::Visitor => self.unsure || !rules.recovery_probe,
            Who::Probe => rules.recovery_probe && !self.unsure,
        };
        may && now >= self.not_before && places.taken(now) < self.room(needed)
    }

    /// When the owner should next try a probe; never in the past.
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

    /// As many at once as could still be needed, no more; always one, should the rules have changed meanwhile.
    fn room(&self, needed: u32) -> usize {
        let room = needed.saturating_sub(self.successes).max(1);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Hears how a probe ended. Where it tells nothing, its place is free again: to the next visitor at once, but after `pause`
    /// where it was the owner's own, which would be sent again without end.
    pub(super) fn hear(
        &mut self,
        who: Who,
        verdict: Verdict,
        now: Duration,
        pause: Duration,
    ) -> Option<Found> {
        match verdict {
            Verdict::Whole => {
                self.successes = self.successes.saturating_add(1);
                return Some(Found::Well(self.successes));
            }
            Verdict::Failed {
                fault, retry_after, ..
            } if fault.weight() != Weight::Nothing => {
                return Some(Found::Unwell(fault, retry_after));
            }
            Verdict::Failed { .. } => self.unsure |= who == Who::Probe,
            Verdict::Abandoned => {}
        }
        if who == Who::Probe {
            self.not_before = now.saturating_add(pause);
        }
        None
    }
}
