//! The states, the transitions between them, and their public view.

use std::time::Duration;

use super::closed::ClosedState;
use super::half_open::Probation;
use super::{BLOCKED_PROBES, Breaker, BreakerView, Transition, TripReason};
use crate::domain::{FaultKind, ProviderState};

#[derive(Clone, Debug)]
pub(super) enum BreakerState {
    Closed(Box<ClosedState>),
    Open {
        until: Duration,
        failed_probes: u32,
        reason: OpenReason,
    },
    HalfOpen {
        probation: Probation,
        failed_probes: u32,
        reason: OpenReason,
    },
    Blocked {
        probation: Probation,
        reason: OpenReason,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OpenReason {
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
        match &self.state {
            BreakerState::Closed(_) => None,
            BreakerState::Open { until, .. } => Some((*until).max(now)),
            BreakerState::HalfOpen {
                probation: trial, ..
            } => trial.next_probe_at(self.config.probes(), &self.probe_slots, now, &self.config),
            BreakerState::Blocked {
                probation: trial, ..
            } => trial.next_probe_at(BLOCKED_PROBES, &self.probe_slots, now, &self.config),
        }
    }

    /// Returns the state at `now`: half-open as soon as the open time is over, also before any
    /// call.
    pub fn view(&self, now: Duration) -> BreakerView {
        let (retry_at, strikes, why) = match &self.state {
            BreakerState::Closed(closed) => (closed.rate_limited_until, 0, None),
            BreakerState::Open {
                until,
                failed_probes: strikes,
                reason: why,
            } => (*until, *strikes, Some(why)),
            BreakerState::HalfOpen {
                probation: trial,
                failed_probes: strikes,
                reason: why,
            } => (trial.not_before, *strikes, Some(why)),
            // A blocked breaker does not count failed probes.
            BreakerState::Blocked {
                probation: trial,
                reason: why,
            } => (trial.not_before, 0, Some(why)),
        };
        let (state, since) = match self.state {
            BreakerState::Open { until, .. } if until <= now => (ProviderState::HalfOpen, until),
            _ => (self.state_name(), self.since),
        };
        BreakerView {
            state,
            retry_at: Some(retry_at).filter(|at| *at > now),
            failed_probes: strikes,
            fault: why.and_then(|why| why.fault),
            trip_reason: why.map(|why| why.trip_reason),
            since,
        }
    }

    fn state_name(&self) -> ProviderState {
        match self.state {
            BreakerState::Closed(_) => ProviderState::Closed,
            BreakerState::Open { .. } => ProviderState::Open,
            BreakerState::HalfOpen { .. } => ProviderState::HalfOpen,
            BreakerState::Blocked { .. } => ProviderState::Blocked,
        }
    }

    pub(super) fn open(
        &mut self,
        failed_probes: u32,
        why: OpenReason,
        not_before: Duration,
        now: Duration,
        random: f64,
    ) -> Transition {
        let until = now
            .saturating_add(self.config.open_duration(failed_probes, random))
            .max(not_before);
        self.transition_to(
            BreakerState::Open {
                until,
                failed_probes,
                reason: why,
            },
            now,
        )
    }

    pub(super) fn block(
        &mut self,
        fault: FaultKind,
        retry_after: Option<Duration>,
        now: Duration,
        random: f64,
    ) -> Transition {
        let delay = self.config.blocked_duration(fault, retry_after, random);
        let probation = Probation::starting_at(now.saturating_add(delay));
        let why = OpenReason {
            fault: Some(fault),
            trip_reason: TripReason::Blocked,
        };
        self.transition_to(
            BreakerState::Blocked {
                probation,
                reason: why,
            },
            now,
        )
    }

    pub(super) fn close(&mut self, now: Duration) -> Transition {
        self.transition_to(
            BreakerState::Closed(Box::new(ClosedState::new(&self.config))),
            now,
        )
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
        let BreakerView {
            retry_at,
            fault,
            trip_reason: cause,
            ..
        } = self.view(now);
        Transition {
            from,
            to: self.state_name(),
            retry_at,
            fault,
            trip_reason: cause,
        }
    }
}
