//! The states, how one follows another, and how they look from outside.

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

/// What it is in for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why {
    pub(super) fault: Option<Fault>,
    pub(super) cause: Cause,
}

impl Breaker {
    /// When the owner should next call [`Breaker::tick`] and, where `recovery_probe` is on, [`Breaker::admit`] as a probe; never
    /// in the past. None where nothing is to be done: closed, or a visitor will be the probe.
    ///
    /// `now` itself means at once; after that, and once a probe was refused, it is later or none.
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

    /// The breaker as it is at `now`: half-open as soon as its open time has ended, whether or not anyone has asked.
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
        strikes: u32,
        why: Why,
        not_before: Duration,
        now: Duration,
        chance: f64,
    ) -> Transition {
        let until = now
            .saturating_add(self.rules.open_time(strikes, chance))
            .max(not_before);
        self.enter(
            State::Open {
                until,
                strikes,
                why,
            },
            now,
        )
    }

    pub(super) fn block(
        &mut self,
        fault: Fault,
        asked: Option<Duration>,
        now: Duration,
        chance: f64,
    ) -> Transition {
        let pause = self.rules.blocked_time(fault, asked, chance);
        let trial = Trial::from(now.saturating_add(pause));
        let why = Why {
            fault: Some(fault),
            cause: Cause::Key,
        };
        self.enter(State::Blocked { trial, why }, now)
    }

    pub(super) fn close(&mut self, now: Duration) -> Transition {
        self.enter(State::Closed(Box::new(Closed::new(&self.rules))), now)
    }

    /// The one place where the state changes. Generations begin at the present nanosecond, so that tickets of a breaker that was
    /// lost with its owner are of an older one than any state that its successor enters.
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
