//! Cron expressions, for drills that come again: five fields, in UTC, each `*`, a number, a range, a list or steps of these.
//!
//! The fields mean what crontab(5) says: minute, hour, day of month, month, day of week (0 and 7 are Sunday); where both day
//! fields are narrowed, either is enough. There are no names for months and days, and no `@daily`.

use super::problem::quoted;
use crate::chat::At;

/// A day in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// The fields in order: name, lowest, highest.
const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
];

/// A schedule. Each field is a set of its numbers as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day must only fit one of the two day fields.
    either_day: bool,
}

impl Cron {
    /// Reads `"0 3 * * 1"`.
    ///
    /// # Errors
    /// Says which field is wrong and what it may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "{} is not a cron expression; write five fields: minute, hour, day of month, month, day of week, such as \"0 3 * * 1\"",
                quoted(text)
            ));
        };
        let [minutes_of, hours_of, days_of, months_of, weekdays_of] = FIELDS;
        let weekdays = field(weekday, weekdays_of)?;
        Ok(Self {
            minutes: field(minute, minutes_of)?,
            hours: field(hour, hours_of)?,
            days: field(day, days_of)?,
            months: field(month, months_of)?,
            weekdays: weekdays | (weekdays >> 7),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    /// Whether the schedule holds in the minute of `at`, in UTC.
    pub fn holds_at(&self, at: At) -> bool {
        // Read off the moment as it is written, so that there is one calendar.
        let text = at.to_string();
        let part =
            |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse().ok());
        let (Some(month), Some(day)) = (part(5..7), part(8..10)) else {
            return false;
        };
        let (Some(hour), Some(minute)) = (part(11..13), part(14..16)) else {
            return false;
        };
        // 1970 began on a Thursday.
        let weekday = u32::try_from((at.0 / DAY_MS + 4) % 7).unwrap_or_default();
        self.matches(minute, hour, day, month, weekday)
    }

    /// Whether the schedule holds in that minute of UTC: `minute` 0-59, `hour` 0-23, `day` 1-31, `month` 1-12,
    /// `weekday` 0-6 from Sunday.
    pub fn matches(&self, minute: u32, hour: u32, day: u32, month: u32, weekday: u32) -> bool {
        let has = |set: u64, number: u32| number < 64 && set & (1 << number) != 0;
        let (by_day, by_weekday) = (has(self.days, day), has(self.weekdays, weekday));
        has(self.minutes, minute)
            && has(self.hours, hour)
            && has(self.months, month)
            && if self.either_day {
                by_day || by_weekday
            } else {
                by_day && by_weekday
            }
    }
}

fn field(text: &str, (name, lowest, highest): (&str, u32, u32)) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{} is not right for the {name}; use *, numbers from {lowest} to {highest}, a-b, lists with commas, or */n",
            quoted(text)
        )
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>()
            .ok()
            .filter(|n| digits && (lowest..=highest).contains(n))
            .ok_or_else(wrong)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                Some(
                    step.parse::<u8>()
                        .ok()
                        .filter(|n| *n > 0)
                        .ok_or_else(wrong)?,
                ),
            ),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (lowest, highest),
            Some((from, to)) => (number(from)?, number(to)?),
            // "5/10" means from 5 on, every 10.
            None => (
                number(range)?,
                if step.is_some() {
                    highest
                } else {
                    number(range)?
                },
            ),
        };
        if from > to {
            return Err(wrong());
        }
        for n in (from..=to).step_by(step.map_or(1, usize::from)) {
            set |= 1_u64 << n;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_as_crontab_does() {
        // (expression, minute, hour, day, month, weekday, matches)
        for (text, m, h, d, mo, w, expected) in [
            ("0 3 * * 1", 0, 3, 17, 6, 1, true),
            ("0 3 * * 1", 0, 3, 17, 6, 2, false),
            ("0 3 * * 1", 1, 3, 17, 6, 1, false),
            ("*/15 * * * *", 45, 0, 1, 1, 0, true),
            ("*/15 * * * *", 46, 0, 1, 1, 0, false),
            ("5/20 * * * *", 25, 0, 1, 1, 0, true),
            ("0 9-17/4,22 * * *", 0, 13, 1, 1, 0, true),
            ("0 9-17/4,22 * * *", 0, 22, 1, 1, 0, true),
            ("0 9-17/4,22 * * *", 0, 14, 1, 1, 0, false),
            ("* * * * 7", 0, 0, 1, 1, 0, true),
            ("* * 13 * 5", 0, 0, 13, 1, 1, true),
            ("* * 13 * 5", 0, 0, 12, 1, 5, true),
            ("* * 13 * 5", 0, 0, 12, 1, 4, false),
            ("* * 13 * *", 0, 0, 12, 1, 5, false),
        ] {
            assert_eq!(
                Cron::parse(text).unwrap().matches(m, h, d, mo, w),
                expected,
                "{text} at {m} {h} {d} {mo} {w}"
            );
        }
    }

    #[test]
    fn a_moment_of_the_wall_clock_is_read_in_utc() {
        // 2026-11-18 is a Wednesday.
        let at = At(1_795_000_000_123);
        for (text, expected) in [
            ("6 11 18 11 *", true),
            ("6 11 * * 3", true),
            ("6 11 * * 2", false),
            ("7 11 18 11 *", false),
            ("6 12 18 11 *", false),
        ] {
            assert_eq!(Cron::parse(text).unwrap().holds_at(at), expected, "{text}");
        }
        let leap = At(1_709_164_800_000);
        assert_eq!(leap.to_string(), "2024-02-29T00:00:00.000Z");
        assert!(Cron::parse("0 0 29 2 4").unwrap().holds_at(leap));
    }

    #[test]
    fn says_which_field_is_wrong() {
        for (text, part) in [
            ("", "five fields"),
            ("0 3 * *", "five fields"),
            ("0 3 * * 1 *", "five fields"),
            ("60 3 * * 1", "for the minute; use *, numbers from 0 to 59"),
            ("0 24 * * 1", "for the hour"),
            ("0 3 0 * 1", "for the day of month"),
            ("0 3 * 13 1", "for the month"),
            ("0 3 * * 8", "for the day of week"),
            ("0 3 * * mon", "for the day of week"),
            ("5-1 * * * *", "for the minute"),
            ("*/0 * * * *", "for the minute"),
            ("1,,2 * * * *", "for the minute"),
            ("+5 * * * *", "for the minute"),
        ] {
            let what = Cron::parse(text).unwrap_err();
            assert!(what.contains(part), "{text}: {what}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9*,/ -]{0,30}") {
            let _ = Cron::parse(&text).map(|cron| cron.matches(1, 2, 3, 4, 5));
        }
    }
}
