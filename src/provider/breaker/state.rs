//! The states, the transitions between them, and their public view.

use std::time::Duration;

use super::closed::ClosedState;
use super::half_open::Probation;
use super::{Breaker, BreakerView, Transition, TripReason};
use crate::domain::{FaultKind, ProviderState};

#[derive(Clone, Debug)]
pub(super) enum BreakerState {
    Closed(Box<ClosedState>),
    Tripped(Tripped),
}

/// Any state but closed.
#[derive(Clone, Debug)]
pub(super) struct Tripped {
    /// `Open`, `HalfOpen` or `Blocked`.
    pub(super) state: ProviderState,
    /// It begins at the end of the open time.
    pub(super) probation: Probation,
    /// 0 while blocked.
    pub(super) failed_probes: u32,
    pub(super) fault: Option<FaultKind>,
    pub(super) trip_reason: TripReason,
}

impl Breaker {
    /// Returns when the owner should next call [`Breaker::tick`] and, if `recovery_probe` is set,
    /// [`Breaker::admit`] with a probe. Never in the past. `None` if nothing is due: the breaker is
    /// closed, or a visitor's call will be the probe.
    ///
    /// `now` means at once. After a probe was admitted or rejected, the result is later or `None`.
    pub fn next_probe_at(&self, now: Duration) -> Option<Duration> {
        let BreakerState::Tripped(tripped) = &self.state else {
            return None;
        };
        let probation = &tripped.probation;
        if tripped.state == ProviderState::Open {
            return Some(probation.not_before.max(now));
        }
        let needed = self.config.probes_needed(tripped.state);
        probation.next_probe_at(needed, &self.probe_slots, now, &self.config)
    }

    /// Returns the state at `now`: half-open as soon as the open time is over, also before any
    /// call.
    pub fn view(&self, now: Duration) -> BreakerView {
        let mut view = BreakerView {
            state: self.state_name(),
            retry_at: None,
            failed_probes: 0,
            fault: None,
            trip_reason: None,
            since: self.since,
        };
        let retry_at = match &self.state {
            BreakerState::Closed(closed) => closed.rate_limited_until,
            BreakerState::Tripped(tripped) => {
                view.failed_probes = tripped.failed_probes;
                view.fault = tripped.fault;
                view.trip_reason = Some(tripped.trip_reason);
                tripped.probation.not_before
            }
        };
        if view.state == ProviderState::Open && retry_at <= now {
            view.state = ProviderState::HalfOpen;
            view.since = retry_at;
        }
        view.retry_at = Some(retry_at).filter(|at| *at > now);
        view
    }

    fn state_name(&self) -> ProviderState {
        match &self.state {
            BreakerState::Closed(_) => ProviderState::Closed,
            BreakerState::Tripped(tripped) => tripped.state,
        }
    }

    pub(super) fn open(
        &mut self,
        failed_probes: u32,
        fault: Option<FaultKind>,
        trip_reason: TripReason,
        not_before: Duration,
        now: Duration,
        random: f64,
    ) -> Transition {
        let open_time = self.config.open_duration(failed_probes, random);
        let until = now.saturating_add(open_time).max(not_before);
        let tripped = Tripped {
            state: ProviderState::Open,
            probation: Probation::starting_at(until),
            failed_probes,
            fault,
            trip_reason,
        };
        self.transition_to(BreakerState::Tripped(tripped), now)
    }

    pub(super) fn block(
        &mut self,
        fault: FaultKind,
        retry_after: Option<Duration>,
        now: Duration,
        random: f64,
    ) -> Transition {
        let delay = self.config.blocked_duration(fault, retry_after, random);
        let tripped = Tripped {
            state: ProviderState::Blocked,
            probation: Probation::starting_at(now.saturating_add(delay)),
            failed_probes: 0,
            fault: Some(fault),
            trip_reason: TripReason::Blocked,
        };
        self.transition_to(BreakerState::Tripped(tripped), now)
    }

    pub(super) fn close(&mut self, now: Duration) -> Transition {
        let closed = Box::new(ClosedState::new(&self.config));
        self.transition_to(BreakerState::Closed(closed), now)
    }

    /// Enters a state. All transitions go through this function.
    ///
    /// Generations start at the present nanosecond, so that the tickets of a breaker that was lost
    /// with its actor are older than every state of its successor.
    pub(super) fn transition_to(&mut self, state: BreakerState, now: Duration) -> Transition {
        let from = self.state_name();
        self.state = state;
        self.since = now;
        let nanosecond = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.generation = self.generation.saturating_add(1).max(nanosecond);
        let view = self.view(now);
        Transition {
            from,
            to: self.state_name(),
            retry_at: view.retry_at,
            fault: view.fault,
            trip_reason: view.trip_reason,
        }
    }
}
