//! The effect of a drill's fault on one call at one moment. Pure: random numbers are arguments.

use std::time::Duration;

use crate::config::InjectedFault;

/// Tokens of a new answer that pass before `stall`, `cut` and `garbage` take effect.
pub const TOKENS_BEFORE_FAULT: u32 = 10;

/// Under `slow`, the minimum time between two tokens and before the first one.
pub const SLOW_TOKEN_INTERVAL: Duration = Duration::from_secs(1);

/// The fate of a new call under a fault, before anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    ConnectionRefused,
    Status(u16),
    /// Nothing arrives, not even headers.
    Hang,
    /// The provider answers; [`stream_fault`] decides on the answer.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFault {
    None,
    /// The next token follows a second after the last one.
    Throttle,
    /// Nothing more arrives on the open connection.
    Hang,
    Reset,
    /// Broken JSON arrives, then the body ends.
    Garbage,
}

/// Returns `true` if a drill with this `share` of calls affects a call that drew `random` (0..1).
pub fn selects(share: f64, random: f64) -> bool {
    random < share
}

pub const fn call_fault(fault: InjectedFault) -> CallFault {
    match fault {
        InjectedFault::Down => CallFault::ConnectionRefused,
        InjectedFault::RateLimit => CallFault::Status(429),
        InjectedFault::Unauthorized => CallFault::Status(401),
        InjectedFault::Timeout => CallFault::Hang,
        InjectedFault::Stall
        | InjectedFault::Cut
        | InjectedFault::Garbage
        | InjectedFault::Slow => CallFault::None,
    }
}

/// Returns the fate of an answer that has sent `tokens` tokens.
///
/// `None` means that the answer was running when the drill started, or has no more tokens to send:
/// the fault takes effect at once.
pub fn stream_fault(fault: InjectedFault, tokens: Option<u32>) -> StreamFault {
    let is_early = tokens.is_some_and(|tokens| tokens < TOKENS_BEFORE_FAULT);
    match fault {
        InjectedFault::Slow => StreamFault::Throttle,
        InjectedFault::Down | InjectedFault::RateLimit | InjectedFault::Unauthorized => {
            StreamFault::Reset
        }
        InjectedFault::Timeout => StreamFault::Hang,
        InjectedFault::Stall | InjectedFault::Cut | InjectedFault::Garbage if is_early => {
            StreamFault::None
        }
        InjectedFault::Stall => StreamFault::Hang,
        InjectedFault::Cut => StreamFault::Reset,
        InjectedFault::Garbage => StreamFault::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigEnum as _;

    #[test]
    fn each_fault_has_its_contracted_effect() {
        for (fault, new, early, late) in [
            (
                InjectedFault::Down,
                CallFault::ConnectionRefused,
                StreamFault::Reset,
                StreamFault::Reset,
            ),
            (
                InjectedFault::RateLimit,
                CallFault::Status(429),
                StreamFault::Reset,
                StreamFault::Reset,
            ),
            (
                InjectedFault::Unauthorized,
                CallFault::Status(401),
                StreamFault::Reset,
                StreamFault::Reset,
            ),
            (
                InjectedFault::Timeout,
                CallFault::Hang,
                StreamFault::Hang,
                StreamFault::Hang,
            ),
            (
                InjectedFault::Stall,
                CallFault::None,
                StreamFault::None,
                StreamFault::Hang,
            ),
            (
                InjectedFault::Cut,
                CallFault::None,
                StreamFault::None,
                StreamFault::Reset,
            ),
            (
                InjectedFault::Garbage,
                CallFault::None,
                StreamFault::None,
                StreamFault::Garbage,
            ),
            (
                InjectedFault::Slow,
                CallFault::None,
                StreamFault::Throttle,
                StreamFault::Throttle,
            ),
        ] {
            assert_eq!(call_fault(fault), new, "{fault}");
            assert_eq!(
                stream_fault(fault, Some(TOKENS_BEFORE_FAULT - 1)),
                early,
                "{fault}, nine tokens"
            );
            assert_eq!(
                stream_fault(fault, Some(TOKENS_BEFORE_FAULT)),
                late,
                "{fault}, ten tokens"
            );
            assert_eq!(stream_fault(fault, None), late, "{fault}, already running");
        }
        assert_eq!(InjectedFault::ALL.len(), 8);
    }

    #[test]
    fn selects_matches_the_share() {
        // A linear congruential generator (Knuth's MMIX) with a fixed seed, so that every run draws
        // the same numbers.
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(seed >> 33).unwrap()) / f64::from(1_u32 << 31)
        };
        for (share, min, max) in [
            (1.0, 10_000, 10_000),
            (0.5, 4_850, 5_150),
            (0.1, 900, 1_100),
        ] {
            let hit = (0..10_000).filter(|_| selects(share, random())).count();
            assert!((min..=max).contains(&hit), "{hit} of 10,000 at {share}");
        }
        assert!(
            selects(1.0, 0.999_999_999) && !selects(0.5, 0.5) && selects(f64::MIN_POSITIVE, 0.0)
        );
    }
}
