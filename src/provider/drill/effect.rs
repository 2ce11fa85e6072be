//! The effect of a drill's fault on one call at one moment. Pure: random numbers are arguments.

use std::time::Duration;

use crate::settings::Fault;

/// Tokens of a new answer that pass before `stall`, `cut` and `garbage` take effect.
pub const TOKENS: u32 = 10;

/// Under `slow`, the minimum time between two tokens and before the first one.
pub const SLOW: Duration = Duration::from_secs(1);

/// The fate of a new call under a fault, before anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Refused,
    Status(u16),
    /// Nothing arrives, not even headers.
    Silence,
    /// The provider answers; [`stream_fault`] decides on the answer.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// The next token follows a second after the last one.
    Slowly,
    /// Nothing more arrives on the open connection.
    Silence,
    Reset,
    /// Broken JSON arrives, then the body ends.
    Garbage,
}

/// Returns `true` if a drill with this `share` of calls affects a call that drew `random` (0..1).
pub fn befalls(share: f64, random: f64) -> bool {
    random < share
}

pub const fn met(fault: Fault) -> Met {
    match fault {
        Fault::Down => Met::Refused,
        Fault::RateLimit => Met::Status(429),
        Fault::Unauthorized => Met::Status(401),
        Fault::Timeout => Met::Silence,
        Fault::Stall | Fault::Cut | Fault::Garbage | Fault::Slow => Met::Answered,
    }
}

/// Returns the fate of an answer that has sent `tokens` tokens.
///
/// `None` means that the answer was running when the drill started, or has no more tokens to send:
/// the fault takes effect at once.
pub fn next(fault: Fault, tokens: Option<u32>) -> Next {
    let is_early = tokens.is_some_and(|tokens| tokens < TOKENS);
    match fault {
        Fault::Slow => Next::Slowly,
        Fault::Down | Fault::RateLimit | Fault::Unauthorized => Next::Reset,
        Fault::Timeout => Next::Silence,
        Fault::Stall | Fault::Cut | Fault::Garbage if is_early => Next::GoOn,
        Fault::Stall => Next::Silence,
        Fault::Cut => Next::Reset,
        Fault::Garbage => Next::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Choice as _;

    #[test]
    fn each_fault_has_its_contracted_effect() {
        for (fault, new, early, late) in [
            (Fault::Down, Met::Refused, Next::Reset, Next::Reset),
            (Fault::RateLimit, Met::Status(429), Next::Reset, Next::Reset),
            (
                Fault::Unauthorized,
                Met::Status(401),
                Next::Reset,
                Next::Reset,
            ),
            (Fault::Timeout, Met::Silence, Next::Silence, Next::Silence),
            (Fault::Stall, Met::Answered, Next::GoOn, Next::Silence),
            (Fault::Cut, Met::Answered, Next::GoOn, Next::Reset),
            (Fault::Garbage, Met::Answered, Next::GoOn, Next::Garbage),
            (Fault::Slow, Met::Answered, Next::Slowly, Next::Slowly),
        ] {
            assert_eq!(met(fault), new, "{fault}");
            assert_eq!(next(fault, Some(TOKENS - 1)), early, "{fault}, nine tokens");
            assert_eq!(next(fault, Some(TOKENS)), late, "{fault}, ten tokens");
            assert_eq!(next(fault, None), late, "{fault}, already running");
        }
        assert_eq!(Fault::ALL.len(), 8);
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
            let hit = (0..10_000).filter(|_| befalls(share, random())).count();
            assert!((min..=max).contains(&hit), "{hit} of 10,000 at {share}");
        }
        assert!(
            befalls(1.0, 0.999_999_999) && !befalls(0.5, 0.5) && befalls(f64::MIN_POSITIVE, 0.0)
        );
    }
}
