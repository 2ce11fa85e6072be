//! Cron expressions for scheduled drills, evaluated in UTC.
//!
//! The syntax is that of crontab(5): minute, hour, day of month, month and day of week (0 and 7 are
//! Sunday). If both day fields are restricted, a day needs to match only one of them. Names of
//! months and days and macros such as `@daily` are not supported.

use crate::config::diagnostics::quoted;
use crate::domain::Timestamp;
use std::num::NonZeroU8;

const DAY_MS: u64 = 86_400_000;

const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
];

/// A parsed schedule. Each field is a bit set of its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both day fields are restricted, so that a day must match only one of them.
    either_day_field: bool,
}

impl Cron {
    /// Parses an expression such as `"0 3 * * 1"`.
    ///
    /// # Errors
    /// Names the invalid field and its valid values.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            let text = quoted(text);
            return Err(format!(
                "{text} is not a cron expression; write five fields: minute, hour, day of month, month, day of week, such as \"0 3 * * 1\""
            ));
        };
        let [minutes_of, hours_of, days_of, months_of, weekdays_of] = FIELDS;
        let weekdays = parse_field(weekday, weekdays_of)?;
        Ok(Self {
            minutes: parse_field(minute, minutes_of)?,
            hours: parse_field(hour, hours_of)?,
            days: parse_field(day, days_of)?,
            months: parse_field(month, months_of)?,
            weekdays: weekdays | (weekdays >> 7),
            either_day_field: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    pub fn matches_at(&self, at: Timestamp) -> bool {
        // The RFC 3339 text contains the calendar fields, so no second calendar is needed.
        let text = at.to_string();
        let part = |start: usize| text.get(start..start + 2)?.parse().ok();
        let [Some(month), Some(day), Some(hour), Some(minute)] = [5, 8, 11, 14].map(part) else {
            return false;
        };
        // 1970-01-01 was a Thursday.
        let weekday = u32::try_from((at.0 / DAY_MS + 4) % 7).unwrap_or_default();
        self.matches_fields(minute, hour, day, month, weekday)
    }

    /// Returns `true` if the schedule contains the given minute in UTC: `minute` 0-59, `hour` 0-23,
    /// `day` 1-31, `month` 1-12, `weekday` 0-6 from Sunday.
    fn matches_fields(&self, minute: u32, hour: u32, day: u32, month: u32, weekday: u32) -> bool {
        let has = |set: u64, number: u32| number < 64 && set & (1 << number) != 0;
        let matches_day = has(self.days, day);
        let matches_weekday = has(self.weekdays, weekday);
        has(self.minutes, minute)
            && has(self.hours, hour)
            && has(self.months, month)
            && if self.either_day_field {
                matches_day || matches_weekday
            } else {
                matches_day && matches_weekday
            }
    }
}

fn parse_field(text: &str, (name, min, max): (&str, u32, u32)) -> Result<u64, String> {
    let invalid = || {
        format!(
            "{} is not right for the {name}; use *, numbers from {min} to {max}, a-b, lists with commas, or */n",
            quoted(text)
        )
    };
    let parse_number = |text: &str| match text.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) && !text.starts_with('+') => Ok(number),
        _ => Err(invalid()),
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse().map_err(|_| invalid())?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((from, to)) => (parse_number(from)?, parse_number(to)?),
            None => {
                let from = parse_number(range)?;
                // "5/10" means every tenth value from 5 on.
                (from, if step.is_some() { max } else { from })
            }
        };
        if from > to {
            return Err(invalid());
        }
        for n in (from..=to).step_by(step.map_or(1, |step: NonZeroU8| step.get().into())) {
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
    fn schedules_match_like_crontab() {
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
                Cron::parse(text).unwrap().matches_fields(m, h, d, mo, w),
                expected,
                "{text} at {m} {h} {d} {mo} {w}"
            );
        }
    }

    #[test]
    fn timestamps_are_matched_in_utc() {
        // 2026-11-18 is a Wednesday.
        let at = Timestamp(1_795_000_000_123);
        for (text, expected) in [
            ("6 11 18 11 *", true),
            ("6 11 * * 3", true),
            ("6 11 * * 2", false),
            ("7 11 18 11 *", false),
            ("6 12 18 11 *", false),
        ] {
            assert_eq!(
                Cron::parse(text).unwrap().matches_at(at),
                expected,
                "{text}"
            );
        }
        let leap_day = Timestamp(1_709_164_800_000);
        assert_eq!(leap_day.to_string(), "2024-02-29T00:00:00.000Z");
        assert!(Cron::parse("0 0 29 2 4").unwrap().matches_at(leap_day));
    }

    #[test]
    fn errors_name_the_invalid_field() {
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
            let message = Cron::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[0-9*,/ -]{0,30}") {
            let _ = Cron::parse(&text).map(|cron| cron.matches_fields(1, 2, 3, 4, 5));
        }
    }
}
