//! Events that instances exchange about a shared provider. Pure.

use std::time::Duration;

use super::breaker::{
    Breaker, BreakerSnapshot, MAX_RATE_LIMIT_WAIT, MAX_RETRY_AFTER, Transition, TripReason,
};
use crate::domain::{FaultKind, ProviderState};

/// A fact about a provider that one instance learned from its own calls. Durations count from the
/// receipt, because clocks of other machines are not trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProviderEvent {
    /// The breaker opened or blocked.
    Opened {
        /// A key or a quota was refused.
        is_blocked: bool,
        /// `None` for slow first tokens.
        fault: Option<FaultKind>,
        failed_probes: u32,
        duration: Duration,
    },
    /// The breaker is closed, but the provider asked for no calls.
    RateLimited {
        duration: Duration,
    },
    /// The breaker closed after a good probe.
    Recovered,
    Reset,
}

impl ProviderEvent {
    /// Returns the event for a transition of this instance's breaker.
    ///
    /// `None` if the transition only repeats a peer's event, or the breaker went half-open.
    pub fn from_transition(
        transition: &Transition,
        failed_probes: u32,
        now: Duration,
    ) -> Option<Self> {
        if transition.trip_reason == Some(TripReason::Restored) {
            return None;
        }
        match transition.to {
            ProviderState::Closed => Some(Self::Recovered),
            ProviderState::Open | ProviderState::Blocked => Some(Self::Opened {
                is_blocked: transition.to == ProviderState::Blocked,
                fault: transition.fault,
                failed_probes,
                duration: transition.retry_at.unwrap_or(now).saturating_sub(now),
            }),
            ProviderState::HalfOpen | ProviderState::Disabled => None,
        }
    }

    /// Returns `true` if the provider itself said so, which holds for every instance with the same
    /// account. Otherwise the event is a hint, because the sender's network may be at fault.
    pub fn is_authoritative(&self) -> bool {
        match self {
            Self::Opened { fault, .. } => fault.is_some_and(is_provider_response),
            Self::RateLimited { .. } | Self::Recovered | Self::Reset => true,
        }
    }

    /// Applies the event to a breaker. `until` is the event's end plus this instance's own jitter.
    pub fn apply_to(
        self,
        breaker: &mut Breaker,
        until: Duration,
        now: Duration,
    ) -> Option<Transition> {
        match self {
            Self::Opened {
                is_blocked,
                fault,
                failed_probes,
                ..
            } if self.is_authoritative() => {
                let snapshot = BreakerSnapshot {
                    failed_probes,
                    retry_at: until,
                    is_blocked,
                    fault,
                };
                breaker.open_from_peer(snapshot, now)
            }
            Self::Opened { .. } => {
                breaker.expect_failure(now);
                None
            }
            Self::RateLimited { .. } => {
                breaker.hold_until(until, now);
                None
            }
            Self::Recovered => breaker.close_from_peer(now),
            Self::Reset => {
                let transition = breaker.close_from_peer(now);
                breaker.reset(now);
                transition
            }
        }
    }

    /// Limits the duration to a plausible value: a day for a rate limit, five minutes otherwise.
    pub fn clamped(self) -> Self {
        use FaultKind::{Overloaded, RateLimited};
        match self {
            Self::Opened { fault, .. } if !matches!(fault, Some(RateLimited | Overloaded)) => {
                self.truncated_to(MAX_RETRY_AFTER)
            }
            _ => self.truncated_to(MAX_RATE_LIMIT_WAIT),
        }
    }

    pub fn truncated_to(mut self, max: Duration) -> Self {
        if let Self::Opened { duration, .. } | Self::RateLimited { duration } = &mut self {
            *duration = max.min(*duration);
        }
        self
    }

    /// Returns the event as it remains after `elapsed`, or `None` if it is over.
    pub fn remaining_after(self, elapsed: Duration) -> Option<Self> {
        let left = self.ttl().saturating_sub(elapsed);
        (!left.is_zero()).then(|| self.truncated_to(left))
    }

    /// Returns how long the event is valid; zero for events that only matter at once.
    pub fn ttl(&self) -> Duration {
        match self {
            Self::Opened { duration, .. } | Self::RateLimited { duration } => *duration,
            Self::Recovered | Self::Reset => Duration::ZERO,
        }
    }
}

fn is_provider_response(fault: FaultKind) -> bool {
    matches!(
        fault,
        FaultKind::Unauthorized
            | FaultKind::QuotaSpent
            | FaultKind::Misconfigured
            | FaultKind::RateLimited
            | FaultKind::Overloaded
            | FaultKind::ServerError
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn tripped(fault: Option<FaultKind>, lasts: Duration) -> ProviderEvent {
        ProviderEvent::Opened {
            is_blocked: false,
            fault,
            failed_probes: 0,
            duration: lasts,
        }
    }

    #[test]
    fn only_faults_reported_by_the_provider_are_authoritative() {
        let shared: Vec<_> = FaultKind::ALL
            .into_iter()
            .filter(|fault| tripped(Some(*fault), s(1)).is_authoritative())
            .collect();
        let expected = [
            FaultKind::RateLimited,
            FaultKind::ServerError,
            FaultKind::Overloaded,
            FaultKind::Unauthorized,
            FaultKind::QuotaSpent,
            FaultKind::Misconfigured,
        ];
        assert_eq!(shared, expected);
        assert!(
            !tripped(None, s(1)).is_authoritative(),
            "a slow first token may be a slow network"
        );
        assert!(
            ProviderEvent::Recovered.is_authoritative()
                && ProviderEvent::RateLimited { duration: s(1) }.is_authoritative()
        );
    }

    #[test]
    fn only_own_transitions_become_events() {
        use ProviderState::{Blocked, Closed, HalfOpen, Open};
        let fault = Some(FaultKind::Timeout);
        let change = |from, to, cause| Transition {
            from,
            to,
            retry_at: Some(s(110)),
            fault,
            trip_reason: cause,
        };
        let event =
            |from, to, cause| ProviderEvent::from_transition(&change(from, to, cause), 3, s(100));
        let open = ProviderEvent::Opened {
            is_blocked: false,
            fault,
            failed_probes: 3,
            duration: s(10),
        };
        assert_eq!(
            event(Closed, Open, Some(TripReason::ConsecutiveFailures)),
            Some(open)
        );
        assert_eq!(
            event(HalfOpen, Open, Some(TripReason::ProbeFailed)),
            Some(open)
        );
        let blocked = ProviderEvent::Opened {
            is_blocked: true,
            fault,
            failed_probes: 3,
            duration: s(10),
        };
        assert_eq!(
            event(Closed, Blocked, Some(TripReason::Blocked)),
            Some(blocked)
        );
        assert_eq!(
            event(HalfOpen, Closed, None),
            Some(ProviderEvent::Recovered)
        );
        assert_eq!(
            event(Open, HalfOpen, Some(TripReason::ConsecutiveFailures)),
            None,
            "being probed is no event"
        );
        for to in [Closed, Open, Blocked] {
            assert_eq!(
                event(HalfOpen, to, Some(TripReason::Restored)),
                None,
                "an event must not circulate"
            );
        }
    }

    #[test]
    fn clamped_limits_the_duration() {
        let year = s(365 * 24 * 3_600);
        assert_eq!(
            ProviderEvent::RateLimited { duration: year }
                .clamped()
                .ttl(),
            MAX_RATE_LIMIT_WAIT
        );
        assert_eq!(
            tripped(Some(FaultKind::Overloaded), year).clamped().ttl(),
            MAX_RATE_LIMIT_WAIT
        );
        assert_eq!(
            tripped(Some(FaultKind::ServerError), year).clamped().ttl(),
            MAX_RETRY_AFTER
        );
        assert_eq!(
            tripped(None, Duration::MAX).clamped().ttl(),
            MAX_RETRY_AFTER
        );
        let short = tripped(Some(FaultKind::Timeout), s(9));
        assert_eq!(short.clamped(), short);
        assert_eq!(ProviderEvent::Recovered.clamped(), ProviderEvent::Recovered);
    }

    #[test]
    fn expired_events_are_dropped() {
        let trip = tripped(Some(FaultKind::ServerError), s(10));
        assert_eq!(
            trip.remaining_after(s(4)),
            Some(tripped(Some(FaultKind::ServerError), s(6)))
        );
        assert_eq!(
            (
                trip.remaining_after(s(10)),
                ProviderEvent::Recovered.remaining_after(s(0))
            ),
            (None, None)
        );
        assert_eq!(
            ProviderEvent::RateLimited { duration: s(9) }.truncated_to(s(20)),
            ProviderEvent::RateLimited { duration: s(9) }
        );
    }
}
