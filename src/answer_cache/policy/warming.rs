//! The schedule of cache warming.

use std::time::Duration;

use crate::config::CacheSettings;
use crate::domain::Timestamp;

/// Returns `true` if a question should be asked again. `age` is that of its saved answer, `None` if
/// there is none.
///
/// That is after `warm_interval`, or earlier if the answer would expire: it is refreshed with a
/// tenth of its lifetime to spare.
pub fn is_refresh_due(age: Option<Duration>, settings: &CacheSettings) -> bool {
    let lifetime = settings
        .ttl
        .saturating_add(settings.revalidate)
        .max(settings.stale_for);
    let latest = lifetime.saturating_sub(lifetime / 10);
    age.is_none_or(|age| age >= settings.warm_interval.min(latest))
}

/// Returns `true` within `cache.warm_hours`, which are in UTC.
pub fn is_in_warm_window(now: Timestamp, settings: &CacheSettings) -> bool {
    const MINUTES_PER_DAY: u64 = 24 * 60;
    let minute = u16::try_from(now.0 / 60_000 % MINUTES_PER_DAY).unwrap_or_default();
    settings
        .warm_hours
        .is_none_or(|hours| hours.contains(minute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DailyWindow;

    #[test]
    fn question_is_due_before_its_answer_expires() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let default = CacheSettings::default();
        let short_lived = CacheSettings {
            stale_for: Duration::ZERO,
            ..CacheSettings::default()
        };
        for (settings, age, due) in [
            (&default, None, true),
            (&default, Some(minutes(359)), false),
            (&default, Some(minutes(360)), true),
            (&short_lived, Some(minutes(53)), false),
            (&short_lived, Some(minutes(54)), true),
        ] {
            assert_eq!(is_refresh_due(age, settings), due, "{age:?}");
        }
    }

    #[test]
    fn warm_hours_are_in_utc() {
        let night = CacheSettings {
            warm_hours: Some(DailyWindow {
                start_minute: 120,
                end_minute: 300,
            }),
            ..CacheSettings::default()
        };
        // 2026-11-18 00:00 UTC.
        let at = |minute: u64| Timestamp(1_794_960_000_000 + minute * 60_000);
        for (minute, within) in [(119, false), (120, true), (299, true), (300, false)] {
            assert_eq!(is_in_warm_window(at(minute), &night), within, "{minute}");
            assert!(is_in_warm_window(at(minute), &CacheSettings::default()));
        }
    }
}
