//! What can be broken, and what that means for one answer at one moment. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Words of a new answer that are told before `stall`, `cut` and `garbage` break it.
const BREAK_AFTER: usize = 10;

/// The least time before each word under [`Fault::Slow`].
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// One way for a provider to fail. For new calls; for answers under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Connections are refused; reset.
    Down,
    /// 429 with `Retry-After: 30`; reset.
    RateLimit,
    /// 401; reset.
    Unauthorized,
    /// Silence after the request, not even headers; silence.
    Timeout,
    /// Silence after ten words; silence.
    Stall,
    /// A TCP reset after ten words; a reset.
    Cut,
    /// Broken JSON after ten words, then the end of the body; the same at once.
    Garbage,
    /// One word a second.
    Slow,
}

impl Fault {
    /// Every fault, in the order in which a page shows them.
    pub const ALL: [Self; 8] = [
        Self::Down,
        Self::RateLimit,
        Self::Unauthorized,
        Self::Timeout,
        Self::Stall,
        Self::Cut,
        Self::Garbage,
        Self::Slow,
    ];

    /// The name outside, as in `rate_limit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::RateLimit => "rate_limit",
            Self::Unauthorized => "unauthorized",
            Self::Timeout => "timeout",
            Self::Stall => "stall",
            Self::Cut => "cut",
            Self::Garbage => "garbage",
            Self::Slow => "slow",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no fault has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFault;

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown fault; known are ")?;
        f.write_str(&Fault::ALL.map(Fault::as_str).join(", "))
    }
}

impl std::error::Error for UnknownFault {}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.as_str() == name)
            .ok_or(UnknownFault)
    }
}

/// The state of a simulator, numbered so that an answer knows whether it is older than the fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// What is broken.
    pub fault: Option<Fault>,
    /// When it mends by itself.
    pub until: Option<Instant>,
    /// Counts the changes.
    pub since: u64,
}

impl Condition {
    /// The condition that follows this one.
    pub fn next(self, fault: Option<Fault>, until: Option<Instant>) -> Self {
        Self {
            fault,
            until,
            since: self.since.wrapping_add(1),
        }
    }
}

/// What an answer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The next word, at its usual pace.
    GoOn,
    /// The next word, a second later.
    Slowly,
    /// Nothing more, on an open connection.
    Silence,
    /// A TCP reset.
    Reset,
    /// Broken JSON, then the end.
    Garbage,
}

/// What `now` does to an answer which was asked for under `began` and has told `told` of `total` words.
///
/// A fault that the answer was born under leaves it ten words, or all but the end if it is shorter than that: else
/// the one-word answer to a probe would call a provider healthy whose every answer breaks. A younger fault acts at once.
pub(super) fn effect(began: Condition, now: Condition, told: usize, total: usize) -> Effect {
    let due = now.since != began.since || told >= BREAK_AFTER.min(total);
    match now.fault {
        None => Effect::GoOn,
        Some(Fault::Slow) => Effect::Slowly,
        Some(Fault::Down | Fault::RateLimit | Fault::Unauthorized) => Effect::Reset,
        Some(Fault::Timeout) => Effect::Silence,
        Some(_) if !due => Effect::GoOn,
        Some(Fault::Stall) => Effect::Silence,
        Some(Fault::Cut) => Effect::Reset,
        Some(Fault::Garbage) => Effect::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(fault));
            assert!(UnknownFault.to_string().contains(fault.as_str()));
        }
        assert_eq!("none".parse::<Fault>(), Err(UnknownFault));
        assert_eq!("Down".parse::<Fault>(), Err(UnknownFault));
    }

    #[test]
    fn a_fault_spares_the_first_words_of_a_new_answer_only() {
        let well = Condition::default();
        let table = [
            (Fault::Down, Effect::Reset, Effect::Reset),
            (Fault::RateLimit, Effect::Reset, Effect::Reset),
            (Fault::Unauthorized, Effect::Reset, Effect::Reset),
            (Fault::Timeout, Effect::Silence, Effect::Silence),
            (Fault::Stall, Effect::GoOn, Effect::Silence),
            (Fault::Cut, Effect::GoOn, Effect::Reset),
            (Fault::Garbage, Effect::GoOn, Effect::Garbage),
            (Fault::Slow, Effect::Slowly, Effect::Slowly),
        ];
        for (fault, early, late) in table {
            let broken = well.next(Some(fault), None);
            assert_eq!(
                effect(broken, broken, 9, 50),
                early,
                "{fault}, new, nine words"
            );
            assert_eq!(
                effect(broken, broken, 10, 50),
                late,
                "{fault}, new, ten words"
            );
            assert_eq!(
                effect(broken, broken, 0, 1),
                early,
                "{fault}, new, before the only word"
            );
            assert_eq!(
                effect(broken, broken, 1, 1),
                late,
                "{fault}, new, after the only word"
            );
            assert_eq!(effect(well, broken, 0, 50), late, "{fault}, under way");
            assert_eq!(
                effect(broken, broken.next(None, None), 3, 50),
                Effect::GoOn,
                "{fault}, mended"
            );
        }
    }
}
