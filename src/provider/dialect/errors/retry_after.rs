//! The wait that a provider requests, in order of trust: `retry-after-ms`, `retry-after` in seconds
//! or as a date, Google's `RetryInfo`, the message text, the reset time of an exhausted limit.
//!
//! The result always lies between zero and one day. Past dates and negative numbers become zero;
//! malformed values are skipped.

use std::time::Duration;

use serde_json::Value;

use crate::domain::{FaultKind, Timestamp};

use super::body::ProviderErrorBody;

/// The longest accepted wait in seconds, one day.
const MAX_RETRY_AFTER_S: f64 = 86_400.0;

pub(crate) type HeaderLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The requested wait of a response with this `fault`. `None` for faults that time does not heal.
pub(crate) fn retry_after_hint(
    header: HeaderLookup<'_>,
    error_body: &ProviderErrorBody,
    fault: FaultKind,
    now: Timestamp,
) -> Option<Duration> {
    let is_rate_limit = fault == FaultKind::RateLimited;
    let is_busy = is_rate_limit || matches!(fault, FaultKind::Overloaded | FaultKind::QuotaSpent);
    if !is_busy && fault != FaultKind::ServerError {
        return None;
    }
    from_headers(header, now)
        .or_else(|| google_retry_info(&error_body.error))
        .or_else(|| from_message(&error_body.message).filter(|_| is_busy))
        .or_else(|| from_reset_headers(header, now).filter(|_| is_rate_limit))
}

fn from_headers(header: HeaderLookup<'_>, now: Timestamp) -> Option<Duration> {
    let number = |name| header(name).and_then(|value| value.trim().parse::<f64>().ok());
    number("retry-after-ms")
        .and_then(|ms| clamp_seconds(ms / 1000.0))
        .or_else(|| number("retry-after").and_then(clamp_seconds))
        .or_else(|| {
            let value = header("retry-after")?;
            match httpdate::parse_http_date(value.trim()) {
                Ok(date) => duration_until(Timestamp::from_system_time(date), now),
                Err(_) => parse_duration_prefix(&value).and_then(clamp_seconds),
            }
        })
}

/// Gemini's `error.details[]` of type `google.rpc.RetryInfo`: a duration as text, or as seconds and
/// nanoseconds.
fn google_retry_info(error: &Value) -> Option<Duration> {
    let details = error.get("details")?.as_array()?;
    let info = details.iter().find(|detail| {
        let kind = detail.get("@type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with("google.rpc.RetryInfo"))
    })?;
    let delay = info.get("retryDelay")?;
    if let Some(text) = delay.as_str() {
        return parse_duration_prefix(text).and_then(clamp_seconds);
    }
    // Protobuf writes 64-bit numbers as strings in JSON.
    let number = |key| match delay.get(key) {
        Some(Value::String(text)) => text.parse::<f64>().ok(),
        Some(number) => number.as_f64(),
        None => None,
    };
    let seconds = number("seconds");
    let nanos = number("nanos");
    seconds.or(nanos)?;
    clamp_seconds(seconds.unwrap_or_default() + nanos.unwrap_or_default() / 1e9)
}

/// Parses "Please retry in 58.2s", "Please retry after 45 seconds", "Please try again in 6m0s".
fn from_message(message: &str) -> Option<Duration> {
    const OPENINGS: [&str; 3] = ["retry in ", "retry after ", "try again in "];
    let lower = message.to_ascii_lowercase();
    let seconds = OPENINGS.iter().find_map(|opening| {
        let (_, after) = lower.split_once(opening)?;
        parse_duration_prefix(after)
    });
    seconds.and_then(clamp_seconds)
}

/// The time until the exhausted limit refills. If none is marked exhausted, the earliest reset,
/// because the others may have capacity left.
fn from_reset_headers(header: HeaderLookup<'_>, now: Timestamp) -> Option<Duration> {
    let openai = ["requests", "tokens"].map(|limit| {
        let reset = header(&format!("x-ratelimit-reset-{limit}"));
        let left = header(&format!("x-ratelimit-remaining-{limit}"));
        (reset.and_then(|reset| parse_reset(&reset)), left)
    });
    let anthropic = ["requests", "tokens", "input-tokens", "output-tokens"].map(|limit| {
        let reset = header(&format!("anthropic-ratelimit-{limit}-reset"));
        let left = header(&format!("anthropic-ratelimit-{limit}-remaining"));
        let date = reset.and_then(|reset| humantime::parse_rfc3339(reset.trim()).ok());
        (
            date.and_then(|date| duration_until(Timestamp::from_system_time(date), now)),
            left,
        )
    });
    let limits: Vec<(Duration, bool)> = openai
        .into_iter()
        .chain(anthropic)
        .filter_map(|(reset, left)| Some((reset?, left.is_some_and(|left| left.trim() == "0"))))
        .collect();
    let exhausted = limits.iter().filter(|(_, is_exhausted)| *is_exhausted);
    let latest = exhausted.map(|(reset, _)| *reset).max();
    latest.or_else(|| limits.iter().map(|(reset, _)| *reset).min())
}

/// Parses a reset as a Go-style duration or as plain seconds. Greater plain numbers are ignored:
/// they are timestamps in an unknown unit.
fn parse_reset(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| (0.0..=MAX_RETRY_AFTER_S).contains(seconds));
    seconds
        .or_else(|| parse_duration_prefix(text))
        .and_then(clamp_seconds)
}

fn duration_until(moment: Timestamp, now: Timestamp) -> Option<Duration> {
    clamp_seconds(moment.since(now).as_secs_f64())
}

fn clamp_seconds(seconds: f64) -> Option<Duration> {
    // A number too large for `f64` parses as infinity and is clamped like any other absurd value.
    (!seconds.is_nan()).then(|| Duration::from_secs_f64(seconds.clamp(0.0, MAX_RETRY_AFTER_S)))
}

/// The seconds of the duration at the start of `text`: "58.2s", "6m0s", "45 seconds", "850ms". The
/// unit is mandatory.
fn parse_duration_prefix(text: &str) -> Option<f64> {
    let mut rest = text.trim_start();
    let mut total = None;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, tail) = rest.split_at(digits.unwrap_or(rest.len()));
        let Ok(number) = number.parse::<f64>() else {
            return total;
        };
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic());
        let (unit, tail) = tail.split_at(letters.unwrap_or(tail.len()));
        let Some(seconds) = unit_seconds(unit) else {
            return total;
        };
        total = Some(total.unwrap_or_default() + number * seconds);
        rest = tail.trim_start();
    }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit.to_lowercase().as_str() {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}
