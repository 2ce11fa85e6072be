//! Reads single values; what is wrong is said in one sentence that ends with what would be right.

use super::choice::{Choice, Prefill, parse_choice};
use super::duration::parse_duration;
use super::problem::quoted;
use super::tables::Hours;
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// A value, or what is wrong with it.
pub(super) type Parsed<T> = Result<T, String>;

/// `an integer where a duration is needed`.
pub(crate) fn wrong(value: &DeValue<'_>, wanted: &str) -> String {
    let (kind, article) = (
        value.type_str(),
        if value.is_integer() || value.is_array() {
            "an"
        } else {
            "a"
        },
    );
    format!("{article} {kind} where {wanted} is needed")
}

fn string<'v>(value: &'v DeValue<'_>, wanted: &str) -> Parsed<&'v str> {
    value.as_str().ok_or_else(|| wrong(value, wanted))
}

/// Any text.
pub(super) fn text(value: &DeValue<'_>) -> Parsed<String> {
    string(value, "text in quotes").map(str::to_owned)
}

/// One line of text that is not empty: a name, a model, a word.
pub(super) fn line(value: &DeValue<'_>) -> Parsed<String> {
    let text = string(value, "text in quotes")?;
    if text.trim().is_empty() {
        return Err("empty; a text is needed".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(format!(
            "{} has a line break or another control character in it",
            quoted(text)
        ));
    }
    Ok(text.trim().to_owned())
}

/// A text that `parse` makes something of; it is called `wanted` when it is no text at all.
pub(super) fn from_text<T>(
    wanted: &'static str,
    parse: impl Fn(&str) -> Parsed<T>,
) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| parse(string(value, wanted)?)
}

/// What `parse` reads, or nothing from an empty text.
pub(super) fn maybe<T>(
    parse: impl Fn(&DeValue<'_>) -> Parsed<T>,
) -> impl Fn(&DeValue<'_>) -> Parsed<Option<T>> {
    move |value| match value.as_str() {
        Some("") => Ok(None),
        _ => parse(value).map(Some),
    }
}

/// true or false.
pub(super) fn flag(value: &DeValue<'_>) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| wrong(value, "true or false"))
}

/// A whole number within bounds.
pub(super) fn whole<T: TryFrom<u64>>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        let wanted = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let number = value.as_integer().ok_or_else(|| wrong(value, &wanted))?;
        u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| bounds.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{number} is out of range; {wanted} is needed"))
    }
}

/// A number within bounds; a whole one may be written without its point.
pub(super) fn number(bounds: RangeInclusive<f64>) -> impl Fn(&DeValue<'_>) -> Parsed<f64> {
    move |value| {
        let wanted = if bounds.end().is_finite() {
            format!("a number from {} to {}", bounds.start(), bounds.end())
        } else {
            format!("a number of {} or more", bounds.start())
        };
        let written = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => return Err(wrong(value, &wanted)),
        };
        let number: Option<f64> = written.parse().ok();
        number
            .filter(|number| number.is_finite() && bounds.contains(number))
            .ok_or_else(|| format!("{written} is out of range; {wanted} is needed"))
    }
}

/// A share, from 0 to 1.
pub(super) fn rate(value: &DeValue<'_>) -> Parsed<f64> {
    number(0.0..=1.0)(value)
}

const DURATION: &str = "a duration in quotes, such as \"250ms\", \"10s\" or \"5m\",";

/// A duration that may be zero.
pub(super) fn duration(value: &DeValue<'_>) -> Parsed<Duration> {
    parse_duration(string(value, DURATION)?)
}

/// A duration above zero.
pub(super) fn span(value: &DeValue<'_>) -> Parsed<Duration> {
    let span = duration(value)?;
    if span.is_zero() {
        return Err("must be longer than zero".to_owned());
    }
    Ok(span)
}

/// One of a few words.
pub(super) fn choice<T: Choice>(value: &DeValue<'_>) -> Parsed<T> {
    parse_choice(string(value, T::KIND)?)
}

/// A way to prefill; plain true and false have a meaning too.
pub(super) fn prefill(value: &DeValue<'_>) -> Parsed<Prefill> {
    match value.as_bool() {
        Some(true) => Ok(Prefill::Assistant),
        Some(false) => Ok(Prefill::Off),
        None => choice(value),
    }
}

/// A path.
pub(super) fn path(value: &DeValue<'_>) -> Parsed<PathBuf> {
    match string(value, "a path in quotes")? {
        "" => Err("empty; a path is needed".to_owned()),
        text if text.contains('\0') => Err("not a path: it has a zero byte in it".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

/// A network, `10.0.0.0/8`, or a single address.
pub(super) fn network(value: &DeValue<'_>) -> Parsed<IpNet> {
    let text = string(value, "a network such as \"10.0.0.0/8\"")?;
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!("{} is not a network; write it in CIDR form, such as \"10.0.0.0/8\", \"::1/128\" or \"127.0.0.1\"", quoted(text))
    })
}

/// Hours of the day, `02:00-05:00`.
pub(super) fn hours(value: &DeValue<'_>) -> Parsed<Hours> {
    let text = string(value, "hours such as \"02:00-05:00\"")?;
    let time = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let two = |text: &str, below: u16| {
            text.parse::<u16>()
                .ok()
                .filter(|n| text.len() == 2 && *n < below)
        };
        Some(two(hour, 24)? * 60 + two(minute, 60)?)
    };
    let hours = text.split_once('-').and_then(|(from, to)| {
        Some(Hours {
            from: time(from.trim())?,
            to: time(to.trim())?,
        })
    });
    hours.filter(|hours| hours.from != hours.to).ok_or_else(|| {
        format!(
            "{} are not hours of a day; write them as \"02:00-05:00\", in UTC",
            quoted(text)
        )
    })
}
