//! What a breaker makes of what others say: another instance, which has dealings of its own with the same provider, or this one before
//! its restart.
//!
//! - That the provider itself refuses (a key, a quota, a model, too many calls) is so for everyone who asks it in the same name: it is
//!   taken over ([`Breaker::adopt`], [`Breaker::hold`]).
//! - That it cannot be reached may be so from there alone. It is a hint ([`Breaker::beware`]): the first hard failure of our own opens the
//!   breaker, instead of a run of them. Once, for as long as a window, and until one first token comes.
//! - That a probe of another's went well closes this one too ([`Breaker::relieve`]), with the same caution: what was in the way may
//!   have been this side of the network.

use std::time::Duration;

use super::state::{State, Why};
use super::trial::Trial;
use super::{Breaker, Cause, LONGEST_HOLD, Saved, Ticket, Transition};

impl Breaker {
    /// Believes another that the provider is unwell. Only a closed breaker does; any other knows better. Waits for no
    /// longer than [`LONGEST_HOLD`], and for no less than it was asked to wait before.
    pub fn adopt(&mut self, saved: Saved, now: Duration) -> Option<Transition> {
        let State::Closed(closed) = &self.state else {
            return None;
        };
        let Saved {
            strikes,
            until,
            blocked,
            fault,
        } = saved;
        let until = until
            .min(now.saturating_add(LONGEST_HOLD))
            .max(closed.held_until);
        let why = Why {
            fault,
            cause: Cause::Told,
        };
        let trial = Trial::from(until);
        Some(if blocked {
            self.enter(State::Blocked { trial, why }, now)
        } else {
            self.enter(
                State::Open {
                    until,
                    strikes,
                    why,
                },
                now,
            )
        })
    }

    /// Waits out a rate limit that another was told of. Only a closed breaker does; for no longer than [`LONGEST_HOLD`], and never for
    /// less than it waits already.
    pub fn hold(&mut self, until: Duration, now: Duration) {
        if let State::Closed(closed) = &mut self.state {
            let until = until.min(now.saturating_add(LONGEST_HOLD));
            closed.held_until = closed.held_until.max(until);
        }
    }

    /// Hears that another cannot reach the provider. Only a closed breaker minds.
    pub fn beware(&mut self, now: Duration) {
        let until = now.saturating_add(self.rules.window);
        if let State::Closed(closed) = &mut self.state {
            closed.wary_until = until;
        }
    }

    /// Hears that another's probe went well: closed, but wary. A closed breaker has nothing to hear, and waits out what it waits out.
    pub fn relieve(&mut self, now: Duration) -> Option<Transition> {
        if matches!(self.state, State::Closed(_)) {
            return None;
        }
        let transition = self.close(now);
        self.beware(now);
        Some(Transition {
            cause: Some(Cause::Told),
            ..transition
        })
    }

    /// How long after a probe of its own others need not probe. It went badly: until a little before this one tries again, so that it is not
    /// always the same that probes, whose network may be the trouble. It went well: until they have all heard so.
    pub fn rest_of_others(&self, now: Duration) -> Duration {
        match self.due(now) {
            Some(due) => due
                .saturating_sub(now)
                .saturating_sub(self.rules.open_for / 5),
            None => self.rules.open_for,
        }
    }

    /// Puts off a probe that was admitted and not sent, because another's is under way: its place is free again, and the next one is not
    /// before `until`, nor sooner than it would be anyway. Of an older generation it changes no state.
    pub fn postpone(&mut self, ticket: Ticket, until: Duration, now: Duration) {
        self.places.give_back(ticket, now);
        if ticket.generation != self.generation {
            return;
        }
        if let State::HalfOpen { trial, .. } | State::Blocked { trial, .. } = &mut self.state {
            trial.not_before = trial
                .not_before
                .max(until.min(now.saturating_add(LONGEST_HOLD)));
        }
    }
}
