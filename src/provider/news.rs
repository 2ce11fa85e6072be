//! What the instances of a fleet tell each other of a provider, and for whom it holds. Pure.

use std::time::Duration;

use super::breaker::{Breaker, Cause, LONGEST_FLOOR, LONGEST_HOLD, Saved, Transition};
use crate::chat::{Fault, ProviderState};

/// What one instance learnt of a provider by its own calls. Lengths of time count from the moment that it is told: no clock of
/// another machine is believed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    /// Its breaker opened, or blocked, for this long.
    Tripped {
        /// Blocked: a key or a quota was refused.
        blocked: bool,
        /// What it failed with; none for first tokens that became slow.
        fault: Option<Fault>,
        /// Probes that failed since it opened.
        strikes: u32,
        /// Until it is tried again.
        lasts: Duration,
    },
    /// Its breaker is closed, but the provider asked to be left alone for this long.
    Limited {
        /// Until it may be asked again.
        lasts: Duration,
    },
    /// Its breaker closed, because a probe went well.
    Well,
    /// An operator had everything forgotten that was held against it.
    Reset,
}

impl News {
    /// What a change of this instance's own breaker tells others; nothing where it only repeats what another instance said, or where the
    /// provider is now being tried.
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

    /// Whether it is the provider that said so, to everyone who asks it in the same name; else it may hold for the network of the one who
    /// tells it alone, and is a hint.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Tripped { fault, .. } => fault.is_some_and(is_the_providers_word),
            Self::Limited { .. } | Self::Well | Self::Reset => true,
        }
    }

    /// What a breaker makes of it, where waiting is until `until`: a little later than it says, each at a moment of its own.
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
                let relieved = breaker.relieve(now);
                breaker.reset(now);
                relieved
            }
        }
    }

    /// The same, for no longer than can be meant: a rate limit up to a day, as from the provider itself; all else up to five minutes.
    pub fn within_reason(self) -> Self {
        match self {
            Self::Tripped {
                blocked,
                fault,
                strikes,
                lasts,
            } => {
                let limit = matches!(fault, Some(Fault::RateLimited | Fault::Overloaded));
                let longest = if limit { LONGEST_HOLD } else { LONGEST_FLOOR };
                Self::Tripped {
                    blocked,
                    fault,
                    strikes,
                    lasts: lasts.min(longest),
                }
            }
            Self::Limited { lasts } => Self::Limited {
                lasts: lasts.min(LONGEST_HOLD),
            },
            Self::Well | Self::Reset => self,
        }
    }

    /// The same, but over after `left`, where it would last longer.
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

    /// What is left of it after `time`; nothing where it is over.
    pub fn left_after(self, time: Duration) -> Option<Self> {
        let left = self.lasts().saturating_sub(time);
        (!left.is_zero()).then(|| self.shortened_to(left))
    }

    /// How long it means anything; zero for what is over when it is said.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Tripped { lasts, .. } | Self::Limited { lasts } => *lasts,
            Self::Well | Self::Reset => Duration::ZERO,
        }
    }
}

/// Faults that came as an answer of the provider's own.
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
    fn what_the_provider_says_holds_for_all_and_what_the_network_does_is_a_hint() {
        let shared: Vec<_> = Fault::ALL
            .into_iter()
            .filter(|fault| tripped(Some(*fault), s(1)).is_shared())
            .collect();
        let said = [
            Fault::RateLimited,
            Fault::ServerError,
            Fault::Overloaded,
            Fault::Unauthorized,
            Fault::QuotaSpent,
            Fault::Misconfigured,
        ];
        assert_eq!(shared, said);
        assert!(
            !tripped(None, s(1)).is_shared(),
            "slow from here may be the way there"
        );
        assert!(News::Well.is_shared() && News::Limited { lasts: s(1) }.is_shared());
    }

    #[test]
    fn only_ones_own_changes_are_told() {
        use ProviderState::{Blocked, Closed, HalfOpen, Open};
        let fault = Some(Fault::Timeout);
        let change = |from, to, cause| Transition {
            from,
            to,
            retry_at: Some(s(110)),
            fault,
            cause,
        };
        let told = |from, to, cause| News::of(&change(from, to, cause), 3, s(100));
        let open = News::Tripped {
            blocked: false,
            fault,
            strikes: 3,
            lasts: s(10),
        };
        assert_eq!(told(Closed, Open, Some(Cause::Run)), Some(open));
        assert_eq!(told(HalfOpen, Open, Some(Cause::Probe)), Some(open));
        let blocked = News::Tripped {
            blocked: true,
            fault,
            strikes: 3,
            lasts: s(10),
        };
        assert_eq!(told(Closed, Blocked, Some(Cause::Key)), Some(blocked));
        assert_eq!(told(HalfOpen, Closed, None), Some(News::Well));
        assert_eq!(
            told(Open, HalfOpen, Some(Cause::Run)),
            None,
            "being tried is no news"
        );
        for to in [Closed, Open, Blocked] {
            assert_eq!(
                told(HalfOpen, to, Some(Cause::Told)),
                None,
                "else it would go round for ever"
            );
        }
    }

    #[test]
    fn nothing_is_believed_for_longer_than_it_can_be_meant() {
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
    fn what_is_over_is_no_news() {
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
