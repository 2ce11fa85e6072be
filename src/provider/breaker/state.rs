//! The states, the transitions between them, and their public view.

use std::time::Duration;

use super::closed::Closed;
use super::trial::Trial;
use super::{BLOCKED_PROBES, Breaker, Cause, Transition, View};
use crate::chat::{Fault, ProviderState};

#[derive(Clone, Debug)]
pub(super) enum State {
    Closed(Box<Closed>),
    Open {
        until: Duration,
        strikes: u32,
        why: Why,
    },
    HalfOpen {
        trial: Trial,
        strikes: u32,
        why: Why,
    },
    Blocked {
        trial: Trial,
        why: Why,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Why {
    pub(super) fault: Option<Fault>,
    pub(super) cause: Cause,
}

impl Breaker {
    /// Returns when the owner should next call [`Breaker::tick`] and, if `recovery_probe` is set,
    /// [`Breaker::admit`] with a probe. Never in the past. `None` if nothing is due: the breaker is
    /// closed, or a visitor's call will be the probe.
    ///
    /// `now` means at once. After a probe was admitted or rejected, the result is later or `None`.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Closed(_) => None,
            State::Open { until, .. } => Some((*until).max(now)),
            State::HalfOpen { trial, .. } => {
                trial.due(self.rules.probes(), &self.places, now, &self.rules)
            }
            State::Blocked { trial, .. } => {
                trial.due(BLOCKED_PROBES, &self.places, now, &self.rules)
            }
        }
    }

    /// Returns the state at `now`: half-open as soon as the open time is over, also before any
    /// call.
    pub fn view(&self, now: Duration) -> View {
        let (retry_at, strikes, why) = match &self.state {
            State::Closed(closed) => (closed.held_until, 0, None),
            State::Open {
                until,
                strikes,
                why,
            } => (*until, *strikes, Some(why)),
            State::HalfOpen {
                trial,
                strikes,
                why,
            } => (trial.not_before, *strikes, Some(why)),
            // A blocked breaker does not count failed probes.
            State::Blocked { trial, why } => (trial.not_before, 0, Some(why)),
        };
        let (state, since) = match self.state {
            State::Open { until, .. } if until <= now => (ProviderState::HalfOpen, until),
            _ => (self.name(), self.since),
        };
        View {
            state,
            retry_at: Some(retry_at).filter(|at| *at > now),
            strikes,
            fault: why.and_then(|why| why.fault),
            cause: why.map(|why| why.cause),
            since,
        }
    }

    fn name(&self) -> ProviderState {
        match self.state {
            State::Closed(_) => ProviderState::Closed,
            State::Open { .. } => ProviderState::Open,
            State::HalfOpen { .. } => ProviderState::HalfOpen,
            State::Blocked { .. } => ProviderState::Blocked,
        }
    }

    pub(super) fn open(
        &mut self,
        failed_probes: u32,
        why: Why,
        not_before: Duration,
        now: Duration,
        random: f64,
    ) -> Transition {
        let until = now
            .saturating_add(self.rules.open_time(failed_probes, random))
            .max(not_before);
        self.enter(
            State::Open {
                until,
                strikes: failed_probes,
                why,
            },
            now,
        )
    }

    pub(super) fn block(
        &mut self,
        fault: Fault,
        retry_after: Option<Duration>,
        now: Duration,
        random: f64,
    ) -> Transition {
        let delay = self.rules.blocked_time(fault, retry_after, random);
        let probation = Trial::from(now.saturating_add(delay));
        let why = Why {
            fault: Some(fault),
            cause: Cause::Key,
        };
        self.enter(
            State::Blocked {
                trial: probation,
                why,
            },
            now,
        )
    }

    pub(super) fn close(&mut self, now: Duration) -> Transition {
        self.enter(State::Closed(Box::new(Closed::new(&self.rules))), now)
    }

    /// Enters a state. All transitions go through this function.
    ///
    /// Generations start at the present nanosecond, so that the tickets of a breaker that was lost
    /// with its actor are older than every state of its successor.
    pub(super) fn enter(&mut self, state: State, now: Duration) -> Transition {
        let from = self.name();
        self.state = state;
        self.since = now;
        let nanosecond = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.generation = self.generation.saturating_add(1).max(nanosecond);
        let View {
            retry_at,
            fault,
            cause,
            ..
        } = self.view(now);
        Transition {
            from,
            to: self.name(),
            retry_at,
            fault,
            cause,
        }
    }
}
