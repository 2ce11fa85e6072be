//! When questions are answered ahead of time.

use std::time::Duration;

use crate::chat::At;
use crate::settings::CacheSettings;

/// Whether a question is to be asked, whose answer is so old, or was never given: after `warm_interval`, and before the answer is of no use any
/// more, with a tenth of that time to spare.
pub fn is_due(old: Option<Duration>, settings: &CacheSettings) -> bool {
    let useful = settings
        .ttl
        .saturating_add(settings.revalidate)
        .max(settings.stale_for);
    let spared = useful.saturating_sub(useful / 10);
    old.is_none_or(|old| old >= settings.warm_interval.min(spared))
}

/// Whether this is a time of the day for it.
pub fn is_time(now: At, settings: &CacheSettings) -> bool {
    const DAY: u64 = 24 * 60;
    let minute = u16::try_from(now.0 / 60_000 % DAY).unwrap_or_default();
    settings
        .warm_hours
        .is_none_or(|hours| hours.contains(minute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Hours;

    #[test]
    fn a_question_is_due_before_its_answer_is_of_no_use() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let usual = CacheSettings::default();
        let brief = CacheSettings {
            stale_for: Duration::ZERO,
            ..CacheSettings::default()
        };
        for (settings, old, due) in [
            (&usual, None, true),
            (&usual, Some(minutes(359)), false),
            (&usual, Some(minutes(360)), true),
            (&brief, Some(minutes(53)), false),
            (&brief, Some(minutes(54)), true),
        ] {
            assert_eq!(is_due(old, settings), due, "{old:?}");
        }
    }

    #[test]
    fn the_hours_are_those_of_the_day_in_utc() {
        let night = CacheSettings {
            warm_hours: Some(Hours { from: 120, to: 300 }),
            ..CacheSettings::default()
        };
        // 2026-11-18 00:00 UTC.
        let at = |minute: u64| At(1_794_960_000_000 + minute * 60_000);
        for (minute, within) in [(119, false), (120, true), (299, true), (300, false)] {
            assert_eq!(is_time(at(minute), &night), within, "{minute}");
            assert!(is_time(at(minute), &CacheSettings::default()));
        }
    }
}
