//! Input from outside this breaker's own calls: events of other instances, and the state from
//! before a restart.
//!
//! - A refusal by the provider itself (key, quota, model, rate limit) holds for every instance with
//!   the same account and is taken over ([`Breaker::open_from_peer`], [`Breaker::hold_until`]).
//! - A provider that a peer cannot reach may be unreachable from there alone. That is a hint
//!   ([`Breaker::expect_failure`]): the first hard failure opens the breaker, instead of several in
//!   a row. It counts once, for the length of a window, and until a first token arrives.
//! - A peer's good probe closes this breaker too ([`Breaker::close_from_peer`]), with the same
//!   caution, because the fault may have been on this side of the network.

use std::time::Duration;

use super::state::{State, Why};
use super::trial::Trial;
use super::{Breaker, Cause, LONGEST_HOLD, Saved, Ticket, Transition};

impl Breaker {
    /// Opens or blocks a closed breaker, as a peer did. Any other state is better informed and
    /// stays.
    ///
    /// The wait is at most [`MAX_RATE_LIMIT_WAIT`], and not shorter than a rate limit already being
    /// waited out.
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
        let probation = Trial::from(until);
        let state = if blocked {
            State::Blocked {
                trial: probation,
                why,
            }
        } else {
            State::Open {
                until,
                strikes,
                why,
            }
        };
        Some(self.enter(state, now))
    }

    /// Waits out a peer's rate limit while closed, for at most [`MAX_RATE_LIMIT_WAIT`]. Never
    /// shortens the present wait.
    pub fn hold(&mut self, until: Duration, now: Duration) {
        if let State::Closed(closed) = &mut self.state {
            let until = until.min(now.saturating_add(LONGEST_HOLD));
            closed.held_until = closed.held_until.max(until);
        }
    }

    /// Notes that a peer cannot reach the provider. Only a closed breaker reacts.
    pub fn beware(&mut self, now: Duration) {
        let until = now.saturating_add(self.rules.window);
        if let State::Closed(closed) = &mut self.state {
            closed.wary_until = until;
        }
    }

    /// Closes the breaker after a peer's good probe, but lets one failure open it again. A closed
    /// breaker keeps waiting out its rate limit.
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

    /// Returns how long peers need not probe after a probe of this instance.
    ///
    /// After a failed probe: until shortly before this instance probes again, so that it is not
    /// always the same one that probes, whose network may be at fault. After a good probe: until
    /// all have received the event.
    pub fn rest_of_others(&self, now: Duration) -> Duration {
        match self.due(now) {
            Some(due) => due
                .saturating_sub(now)
                .saturating_sub(self.rules.open_for / 5),
            None => self.rules.open_for,
        }
    }

    /// Postpones an admitted probe that was not sent, because a peer is probing. Releases its slot;
    /// the next probe is not before `until`. A ticket of an older generation changes no state.
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
