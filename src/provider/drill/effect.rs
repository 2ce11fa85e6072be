//! What a drill's fault does to one call at one moment. Pure: chance is an argument.

use std::time::Duration;

use crate::settings::Fault;

/// Tokens of a new answer that are let through before `stall`, `cut` and `garbage` break it.
pub const TOKENS: u32 = 10;

/// The least time between two tokens under `slow`, and before the first.
pub const SLOW: Duration = Duration::from_secs(1);

/// How a call that is made under a fault is met, before anything of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The connection is refused.
    Refused,
    /// An error answer with this status.
    Status(u16),
    /// Nothing comes, not even headers.
    Silence,
    /// The provider answers; what becomes of the answer is for [`next`].
    Answered,
}

/// What an answer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    GoOn,
    /// It goes on, a second after its last token.
    Slowly,
    /// Nothing more comes, on an open connection.
    Silence,
    /// The connection is reset.
    Reset,
    /// Broken JSON, then the end of the body.
    Garbage,
}

/// Whether a drill of this share of calls befalls one with this chance (0 up to 1).
pub fn befalls(share: f64, chance: f64) -> bool {
    chance < share
}

/// How a new call is met.
pub const fn met(fault: Fault) -> Met {
    match fault {
        Fault::Down => Met::Refused,
        Fault::RateLimit => Met::Status(429),
        Fault::Unauthorized => Met::Status(401),
        Fault::Timeout => Met::Silence,
        Fault::Stall | Fault::Cut | Fault::Garbage | Fault::Slow => Met::Answered,
    }
}

/// What an answer under this fault does next, having told so many tokens. None: it was under way when the drill began, or has no more tokens to
/// tell; then the fault acts at once.
pub fn next(fault: Fault, told: Option<u32>) -> Next {
    let early = told.is_some_and(|told| told < TOKENS);
    match fault {
        Fault::Slow => Next::Slowly,
        Fault::Down | Fault::RateLimit | Fault::Unauthorized => Next::Reset,
        Fault::Timeout => Next::Silence,
        Fault::Stall | Fault::Cut | Fault::Garbage if early => Next::GoOn,
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
    fn each_fault_does_what_the_contract_says() {
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
            assert_eq!(next(fault, None), late, "{fault}, under way");
        }
        assert_eq!(Fault::ALL.len(), 8);
    }

    #[test]
    fn a_share_befalls_that_share() {
        // A linear congruential generator with a fixed seed (Knuth's MMIX), so that every run draws the same.
        let mut seed = 7_u64;
        let mut chance = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(seed >> 33).unwrap()) / f64::from(1_u32 << 31)
        };
        for (share, least, most) in [
            (1.0, 10_000, 10_000),
            (0.5, 4_850, 5_150),
            (0.1, 900, 1_100),
        ] {
            let hit = (0..10_000).filter(|_| befalls(share, chance())).count();
            assert!((least..=most).contains(&hit), "{hit} of 10,000 at {share}");
        }
        assert!(
            befalls(1.0, 0.999_999_999) && !befalls(0.5, 0.5) && befalls(f64::MIN_POSITIVE, 0.0)
        );
    }
}
