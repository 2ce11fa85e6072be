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

use super::half_open::Probation;
use super::state::{BreakerState, Tripped};
use super::{Breaker, BreakerSnapshot, MAX_RATE_LIMIT_WAIT, Ticket, Transition, TripReason};
use crate::domain::ProviderState;

impl Breaker {
    /// Opens or blocks a closed breaker, as a peer did. Any other state is better informed and
    /// stays.
    ///
    /// The wait is at most [`MAX_RATE_LIMIT_WAIT`], and not shorter than a rate limit already being
    /// waited out.
    pub fn open_from_peer(&mut self, saved: BreakerSnapshot, now: Duration) -> Option<Transition> {
        let BreakerState::Closed(closed) = &self.state else {
            return None;
        };
        let until = saved
            .retry_at
            .min(now.saturating_add(MAX_RATE_LIMIT_WAIT))
            .max(closed.rate_limited_until);
        let mut tripped = Tripped {
            state: ProviderState::Open,
            probation: Probation::starting_at(until),
            failed_probes: saved.failed_probes,
            fault: saved.fault,
            trip_reason: TripReason::Restored,
        };
        if saved.is_blocked {
            tripped.state = ProviderState::Blocked;
            tripped.failed_probes = 0;
        }
        Some(self.transition_to(BreakerState::Tripped(tripped), now))
    }

    /// Waits out a peer's rate limit while closed, for at most [`MAX_RATE_LIMIT_WAIT`]. Never
    /// shortens the present wait.
    pub fn hold_until(&mut self, until: Duration, now: Duration) {
        if let BreakerState::Closed(closed) = &mut self.state {
            let until = until.min(now.saturating_add(MAX_RATE_LIMIT_WAIT));
            closed.rate_limited_until = closed.rate_limited_until.max(until);
        }
    }

    /// Notes that a peer cannot reach the provider. Only a closed breaker reacts.
    pub fn expect_failure(&mut self, now: Duration) {
        let until = now.saturating_add(self.config.window);
        if let BreakerState::Closed(closed) = &mut self.state {
            closed.trip_on_first_failure_until = until;
        }
    }

    /// Closes the breaker after a peer's good probe, but lets one failure open it again. A closed
    /// breaker keeps waiting out its rate limit.
    pub fn close_from_peer(&mut self, now: Duration) -> Option<Transition> {
        if matches!(self.state, BreakerState::Closed(_)) {
            return None;
        }
        let transition = self.close(now);
        self.expect_failure(now);
        Some(Transition {
            trip_reason: Some(TripReason::Restored),
            ..transition
        })
    }

    /// Returns how long peers need not probe after a probe of this instance.
    ///
    /// After a failed probe: until shortly before this instance probes again, so that it is not
    /// always the same one that probes, whose network may be at fault. After a good probe: until
    /// all have received the event.
    pub fn peer_probe_delay(&self, now: Duration) -> Duration {
        match self.next_probe_at(now) {
            Some(due) => due
                .saturating_sub(now)
                .saturating_sub(self.config.open_for / 5),
            None => self.config.open_for,
        }
    }

    /// Postpones an admitted probe that was not sent, because a peer is probing. Releases its slot;
    /// the next probe is not before `until`. A ticket of an older generation changes no state.
    pub fn postpone_probe(&mut self, ticket: Ticket, until: Duration, now: Duration) {
        self.probe_slots.release(ticket, now);
        if ticket.generation != self.generation {
            return;
        }
        if let BreakerState::Tripped(tripped) = &mut self.state {
            let until = until.min(now.saturating_add(MAX_RATE_LIMIT_WAIT));
            tripped.probation.not_before = tripped.probation.not_before.max(until);
        }
    }
}
