//! The faults to inject, and their effect on an answer at one moment. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The number of words that a new answer sends before `stall`, `cut` and `garbage` break it.
const BREAK_AFTER: usize = 10;

/// The minimum time before each word under `InjectedFault::Slow`.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// One way for a provider to fail. Each variant names the effect on new calls, and the one on
/// running answers if it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// New connections are refused; running answers are reset.
    Down,
    /// 429 with `Retry-After: 30`; running answers are reset.
    RateLimit,
    /// 401; running answers are reset.
    Unauthorized,
    /// Silence after the request, without headers; running answers stall.
    Timeout,
    /// Silence after ten words; running answers stall at once.
    Stall,
    /// A TCP reset after ten words; running answers are reset at once.
    Cut,
    /// Broken JSON after ten words, then the end of the body; running answers break at once.
    Garbage,
    /// One word a second, in new and running answers.
    Slow,
}

impl Fault {
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

/// The fault of a simulator. It is numbered, so that an answer knows whether it started before the
/// fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Condition {
    pub fault: Option<Fault>,
    pub until: Option<Instant>,
    pub since: u64,
}

impl Condition {
    pub fn next(self, fault: Option<Fault>, until: Option<Instant>) -> Self {
        Self {
            fault,
            until,
            since: self.since.wrapping_add(1),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send the next word, at the usual speed.
    GoOn,
    /// Send the next word after at least a second.
    Slowly,
    Silence,
    Reset,
    /// Send broken JSON, then end.
    Garbage,
}

/// Returns the next step of an answer that started under `started_under`, when `sent` of its
/// `total` words are sent and the state is `now`.
///
/// A fault set before the answer started leaves it ten words, or all words of a shorter answer but
/// not its end. Otherwise the one-word answer to a probe would make a provider look healthy whose
/// every answer breaks. A fault set later acts at once.
pub(super) fn effect(
    started_under: Condition,
    now: Condition,
    sent: usize,
    total: usize,
) -> Effect {
    let is_due = now.since != started_under.since || sent >= BREAK_AFTER.min(total);
    match now.fault {
        None => Effect::GoOn,
        Some(Fault::Slow) => Effect::Slowly,
        Some(Fault::Down | Fault::RateLimit | Fault::Unauthorized) => Effect::Reset,
        Some(Fault::Timeout) => Effect::Silence,
        Some(_) if !is_due => Effect::GoOn,
        Some(Fault::Stall) => Effect::Silence,
        Some(Fault::Cut) => Effect::Reset,
        Some(Fault::Garbage) => Effect::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_to_their_faults() {
        for fault in Fault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(fault));
            assert!(UnknownFault.to_string().contains(fault.as_str()));
        }
        assert_eq!("none".parse::<Fault>(), Err(UnknownFault));
        assert_eq!("Down".parse::<Fault>(), Err(UnknownFault));
    }

    #[test]
    fn fault_spares_the_first_words_of_new_answers_only() {
        let healthy = Condition::default();
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
            let broken = healthy.next(Some(fault), None);
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
            assert_eq!(effect(healthy, broken, 0, 50), late, "{fault}, running");
            assert_eq!(
                effect(broken, broken.next(None, None), 3, 50),
                Effect::GoOn,
                "{fault}, cleared"
            );
        }
    }
}
