//! Durations in the configuration and on the command line: `"250ms"`, `"10s"`, `"5m"`, `"24h"`.

use crate::config::diagnostics::quoted;
use std::time::Duration;

/// Ten years. Longer durations could overflow the clock when added to it.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Parses `"1500ms"`, `"10s"` or `"1h30m"`: integers with units that are added up, at most ten
/// years.
///
/// # Errors
/// Returns a sentence that shows the valid form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || {
        format!(
            "{} is not a duration; write a whole number and its unit, such as \"250ms\", \"10s\", \"5m\", \"24h\" or \"30d\"",
            quoted(text)
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| !c.is_ascii_alphabetic());
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(invalid)?;
        millis = number
            .checked_mul(*factor)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(invalid)?;
        rest = after;
    }
    let duration = Duration::from_millis(millis);
    if duration > MAX_DURATION {
        return Err(format!("{} is longer than ten years (3650d)", quoted(text)));
    }
    Ok(duration)
}

/// Formats a duration for [`parse_duration`], in the largest unit that divides it.
///
/// Drops fractions of a millisecond.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    UNITS
        .iter()
        .rev()
        .find(|(_, factor)| {
            millis >= u128::from(*factor) && millis.is_multiple_of(u128::from(*factor))
        })
        .map_or_else(
            || "0s".to_owned(),
            |(name, factor)| format!("{}{name}", millis / u128::from(*factor)),
        )
}

fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn valid_durations_are_parsed() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            (" 2s ", 2_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn invalid_durations_are_rejected_with_an_example() {
        for text in [
            "",
            "10",
            "s",
            "ten s",
            "1.5s",
            "-1s",
            "10 s",
            "10sec",
            "10S",
            "99999999999999999999d",
            "18446744073709551615d",
            "1s 2",
            "３s",
        ] {
            let message = parse_duration(text).unwrap_err();
            assert!(
                message.contains("is not a duration; write"),
                "{text}: {message}"
            );
        }
        assert!(parse_duration("4000d").unwrap_err().contains("ten years"));
    }

    proptest! {
        #[test]
        fn formatted_durations_parse_to_the_same_value(millis in 0u64..=315_360_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
