//! Parsers of single values. Their error messages end with what would be valid.

use super::address::parse_base_url;
use super::duration::parse_duration;
use crate::config::diagnostics::quoted;
use crate::config::enums::{ConfigEnum, Prefill, parse_config_enum};
use crate::config::model::DailyWindow;
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

pub(crate) type ParseResult<T> = Result<T, String>;

/// The upper bound of counts without a natural limit: far above any use, and safe from overflow.
pub(crate) const MAX_COUNT: u64 = 1_000_000_000;

/// Renders a message such as `an integer where a duration is needed`.
pub(crate) fn type_mismatch(value: &DeValue<'_>, expected: &str) -> String {
    let kind = value.type_str();
    let starts_with_vowel = value.is_integer() || value.is_array();
    let article = if starts_with_vowel { "an" } else { "a" };
    format!("{article} {kind} where {expected} is needed")
}

pub(crate) fn string<'v>(value: &'v DeValue<'_>, expected: &str) -> ParseResult<&'v str> {
    value.as_str().ok_or_else(|| type_mismatch(value, expected))
}

pub(crate) fn text(value: &DeValue<'_>) -> ParseResult<String> {
    string(value, "text in quotes").map(str::to_owned)
}

/// A non-empty line of text, such as a name or a model.
pub(crate) fn single_line(value: &DeValue<'_>) -> ParseResult<String> {
    let text = string(value, "text in quotes")?;
    if text.trim().is_empty() {
        return Err("empty; a text is needed".to_owned());
    }
    if text.chars().any(char::is_control) {
        let text = quoted(text);
        return Err(format!(
            "{text} has a line break or another control character in it"
        ));
    }
    Ok(text.trim().to_owned())
}

/// A text that `parse` converts. `expected` describes it in the message for another type.
pub(crate) fn from_text<T>(
    expected: &'static str,
    parse: impl Fn(&str) -> ParseResult<T>,
) -> impl Fn(&DeValue<'_>) -> ParseResult<T> {
    move |value| parse(string(value, expected)?)
}

/// An optional value: an empty text is `None`.
pub(crate) fn optional<T>(
    parse: impl Fn(&DeValue<'_>) -> ParseResult<T>,
) -> impl Fn(&DeValue<'_>) -> ParseResult<Option<T>> {
    move |value| match value.as_str() {
        Some("") => Ok(None),
        _ => parse(value).map(Some),
    }
}

pub(crate) fn base_url(value: &DeValue<'_>) -> ParseResult<String> {
    parse_base_url(string(value, "a URL in quotes")?)
}

pub(crate) fn boolean(value: &DeValue<'_>) -> ParseResult<bool> {
    value
        .as_bool()
        .ok_or_else(|| type_mismatch(value, "true or false"))
}

pub(crate) fn integer<T: TryFrom<u64>>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> ParseResult<T> {
    move |value| {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let number = value
            .as_integer()
            .ok_or_else(|| type_mismatch(value, &expected))?;
        u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| bounds.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{number} is out of range; {expected} is needed"))
    }
}

/// A count from 1 without a natural limit.
pub(crate) fn count<T: TryFrom<u64>>(value: &DeValue<'_>) -> ParseResult<T> {
    integer(1..=MAX_COUNT)(value)
}

pub(crate) fn float(bounds: RangeInclusive<f64>) -> impl Fn(&DeValue<'_>) -> ParseResult<f64> {
    move |value| {
        let expected = if bounds.end().is_finite() {
            format!("a number from {} to {}", bounds.start(), bounds.end())
        } else {
            format!("a number of {} or more", bounds.start())
        };
        let written = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return Err(type_mismatch(value, &expected)),
        };
        match written.parse::<f64>() {
            Ok(number) if number.is_finite() && bounds.contains(&number) => Ok(number),
            _ => Err(format!("{written} is out of range; {expected} is needed")),
        }
    }
}

pub(crate) fn ratio(value: &DeValue<'_>) -> ParseResult<f64> {
    float(0.0..=1.0)(value)
}

pub(crate) fn duration(value: &DeValue<'_>) -> ParseResult<Duration> {
    let expected = "a duration in quotes, such as \"250ms\", \"10s\" or \"5m\",";
    parse_duration(string(value, expected)?)
}

pub(crate) fn positive_duration(value: &DeValue<'_>) -> ParseResult<Duration> {
    let span = duration(value)?;
    if span.is_zero() {
        return Err("must be longer than zero".to_owned());
    }
    Ok(span)
}

pub(crate) fn config_enum<T: ConfigEnum>(value: &DeValue<'_>) -> ParseResult<T> {
    parse_config_enum(string(value, T::KIND)?)
}

/// A prefill mode. Also accepts `true` and `false`.
pub(crate) fn prefill(value: &DeValue<'_>) -> ParseResult<Prefill> {
    match value.as_bool() {
        Some(true) => Ok(Prefill::Assistant),
        Some(false) => Ok(Prefill::Off),
        None => config_enum(value),
    }
}

pub(crate) fn path(value: &DeValue<'_>) -> ParseResult<PathBuf> {
    match string(value, "a path in quotes")? {
        "" => Err("empty; a path is needed".to_owned()),
        text if text.contains('\0') => Err("not a path: it has a zero byte in it".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

/// A network such as `10.0.0.0/8`, or a single address.
pub(crate) fn network(value: &DeValue<'_>) -> ParseResult<IpNet> {
    let text = string(value, "a network such as \"10.0.0.0/8\"")?;
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!("{} is not a network; write it in CIDR form, such as \"10.0.0.0/8\", \"::1/128\" or \"127.0.0.1\"", quoted(text))
    })
}

pub(crate) fn daily_window(value: &DeValue<'_>) -> ParseResult<DailyWindow> {
    let text = string(value, "hours such as \"02:00-05:00\"")?;
    let minute_of_day = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let two_digits = |text: &str, below: u16| {
            let number = text.parse::<u16>().ok()?;
            (text.len() == 2 && number < below).then_some(number)
        };
        Some(two_digits(hour, 24)? * 60 + two_digits(minute, 60)?)
    };
    let window = text.split_once('-').and_then(|(from, to)| {
        let start_minute = minute_of_day(from.trim())?;
        let end_minute = minute_of_day(to.trim())?;
        (start_minute != end_minute).then_some(DailyWindow {
            start_minute,
            end_minute,
        })
    });
    window.ok_or_else(|| {
        let text = quoted(text);
        format!("{text} are not hours of a day; write them as \"02:00-05:00\", in UTC")
    })
}
