//! Events that instances exchange about a shared provider. Pure.

use std::time::Duration;

use super::breaker::{Breaker, Cause, LONGEST_FLOOR, LONGEST_HOLD, Saved, Transition};
use crate::chat::{Fault, ProviderState};

/// A fact about a provider that one instance learned from its own calls. Durations count from the
/// receipt, because clocks of other machines are not trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    /// The breaker opened or blocked.
    Tripped {
        /// A key or a quota was refused.
        blocked: bool,
        /// `None` for slow first tokens.
        fault: Option<Fault>,
        strikes: u32,
        lasts: Duration,
    },
    /// The breaker is closed, but the provider asked for no calls.
    Limited {
        lasts: Duration,
    },
    /// The breaker closed after a good probe.
    Well,
    Reset,
}

impl News {
    /// Returns the event for a transition of this instance's breaker.
    ///
    /// `None` if the transition only repeats a peer's event, or the breaker went half-open.
    pub fn of(transition: &Transition, strikes: u32, now: Duration) -> Option<Self> {
        if transition.cause == Some(Cause::Told) {
            return None;
        }
        let blocked = match transition.to {
            ProviderState::Open => false,
            ProviderState::Blocked => true,
            ProviderState::Closed => return Some(Self::Well),
            ProviderState::HalfOpen | ProviderState::Disabled => return None,
        };
        let lasts = transition.retry_at.unwrap_or(now).saturating_sub(now);
        Some(Self::Tripped {
            blocked,
            fault: transition.fault,
            strikes,
            lasts,
        })
    }

    /// Returns `true` if the provider itself said so, which holds for every instance with the same
    /// account. Otherwise the event is a hint, because the sender's network may be at fault.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Tripped { fault, .. } => fault.is_some_and(is_the_providers_word),
            Self::Limited { .. } | Self::Well | Self::Reset => true,
        }
    }

    /// Applies the event to a breaker. `until` is the event's end plus this instance's own jitter.
    pub fn apply(
        self,
        breaker: &mut Breaker,
        until: Duration,
        now: Duration,
    ) -> Option<Transition> {
        match self {
            Self::Tripped {
                blocked,
                fault,
                strikes,
                ..
            } if self.is_shared() => breaker.adopt(
                Saved {
                    strikes,
                    until,
                    blocked,
                    fault,
                },
                now,
            ),
            Self::Tripped { .. } => {
                breaker.beware(now);
                None
            }
            Self::Limited { .. } => {
                breaker.hold(until, now);
                None
            }
            Self::Well => breaker.relieve(now),
            Self::Reset => {
                let transition = breaker.relieve(now);
                breaker.reset(now);
                transition
            }
        }
    }

    /// Limits the duration to a plausible value: a day for a rate limit, five minutes otherwise.
    pub fn within_reason(self) -> Self {
        match self {
            Self::Tripped {
                blocked,
                fault,
                strikes,
                lasts,
            } => {
                let is_rate_limit = matches!(fault, Some(Fault::RateLimited | Fault::Overloaded));
                let max = if is_rate_limit {
                    LONGEST_HOLD
                } else {
                    LONGEST_FLOOR
                };
                Self::Tripped {
                    blocked,
                    fault,
                    strikes,
                    lasts: lasts.min(max),
                }
            }
            Self::Limited { lasts } => Self::Limited {
                lasts: lasts.min(LONGEST_HOLD),
            },
            Self::Well | Self::Reset => self,
        }
    }

    pub fn shortened_to(self, left: Duration) -> Self {
        match self {
            Self::Tripped {
                blocked,
                fault,
                strikes,
                lasts,
            } => Self::Tripped {
                blocked,
                fault,
                strikes,
                lasts: lasts.min(left),
            },
            Self::Limited { lasts } => Self::Limited {
                lasts: lasts.min(left),
            },
            Self::Well | Self::Reset => self,
        }
    }

    /// Returns the event as it remains after `elapsed`, or `None` if it is over.
    pub fn left_after(self, elapsed: Duration) -> Option<Self> {
        let left = self.lasts().saturating_sub(elapsed);
        (!left.is_zero()).then(|| self.shortened_to(left))
    }

    /// Returns how long the event is valid; zero for events that only matter at once.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Tripped { lasts, .. } | Self::Limited { lasts } => *lasts,
            Self::Well | Self::Reset => Duration::ZERO,
        }
    }
}

fn is_the_providers_word(fault: Fault) -> bool {
    match fault {
        Fault::Unauthorized
        | Fault::QuotaSpent
        | Fault::Misconfigured
        | Fault::RateLimited
        | Fault::Overloaded
        | Fault::ServerError => true,
        Fault::Unreachable
        | Fault::Reset
        | Fault::Stalled
        | Fault::Truncated
        | Fault::Timeout
        | Fault::Malformed
        | Fault::Empty
        | Fault::Poor
        | Fault::TooLong
        | Fault::Policy
        | Fault::BadRequest
        | Fault::Diverged => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn tripped(fault: Option<Fault>, lasts: Duration) -> News {
        News::Tripped {
            blocked: false,
            fault,
            strikes: 0,
            lasts,
        }
    }

    #[test]
    fn only_faults_reported_by_the_provider_are_authoritative() {
        let shared: Vec<_> = Fault::ALL
            .into_iter()
            .filter(|fault| tripped(Some(*fault), s(1)).is_shared())
            .collect();
        let expected = [
            Fault::RateLimited,
            Fault::ServerError,
            Fault::Overloaded,
            Fault::Unauthorized,
            Fault::QuotaSpent,
            Fault::Misconfigured,
        ];
        assert_eq!(shared, expected);
        assert!(
            !tripped(None, s(1)).is_shared(),
            "a slow first token may be a slow network"
        );
        assert!(News::Well.is_shared() && News::Limited { lasts: s(1) }.is_shared());
    }

    #[test]
    fn only_own_transitions_become_events() {
        use ProviderState::{Blocked, Closed, HalfOpen, Open};
        let fault = Some(Fault::Timeout);
        let change = |from, to, cause| Transition {
            from,
            to,
            retry_at: Some(s(110)),
            fault,
            cause,
        };
        let event = |from, to, cause| News::of(&change(from, to, cause), 3, s(100));
        let open = News::Tripped {
            blocked: false,
            fault,
            strikes: 3,
            lasts: s(10),
        };
        assert_eq!(event(Closed, Open, Some(Cause::Run)), Some(open));
        assert_eq!(event(HalfOpen, Open, Some(Cause::Probe)), Some(open));
        let blocked = News::Tripped {
            blocked: true,
            fault,
            strikes: 3,
            lasts: s(10),
        };
        assert_eq!(event(Closed, Blocked, Some(Cause::Key)), Some(blocked));
        assert_eq!(event(HalfOpen, Closed, None), Some(News::Well));
        assert_eq!(
            event(Open, HalfOpen, Some(Cause::Run)),
            None,
            "being probed is no event"
        );
        for to in [Closed, Open, Blocked] {
            assert_eq!(
                event(HalfOpen, to, Some(Cause::Told)),
                None,
                "an event must not circulate"
            );
        }
    }

    #[test]
    fn clamped_limits_the_duration() {
        let year = s(365 * 24 * 3_600);
        assert_eq!(
            News::Limited { lasts: year }.within_reason().lasts(),
            LONGEST_HOLD
        );
        assert_eq!(
            tripped(Some(Fault::Overloaded), year)
                .within_reason()
                .lasts(),
            LONGEST_HOLD
        );
        assert_eq!(
            tripped(Some(Fault::ServerError), year)
                .within_reason()
                .lasts(),
            LONGEST_FLOOR
        );
        assert_eq!(
            tripped(None, Duration::MAX).within_reason().lasts(),
            LONGEST_FLOOR
        );
        let short = tripped(Some(Fault::Timeout), s(9));
        assert_eq!(short.within_reason(), short);
        assert_eq!(News::Well.within_reason(), News::Well);
    }

    #[test]
    fn expired_events_are_dropped() {
        let trip = tripped(Some(Fault::ServerError), s(10));
        assert_eq!(
            trip.left_after(s(4)),
            Some(tripped(Some(Fault::ServerError), s(6)))
        );
        assert_eq!(
            (trip.left_after(s(10)), News::Well.left_after(s(0))),
            (None, None)
        );
        assert_eq!(
            News::Limited { lasts: s(9) }.shortened_to(s(20)),
            News::Limited { lasts: s(9) }
        );
    }
}
