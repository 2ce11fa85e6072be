//! Drawing of time on the status page: timestamps, durations, sparklines of latency, timelines of
//! availability.

use std::time::Duration;

use crate::domain::{ServiceMode, Timestamp};
use crate::ops::hourly_history::{self, AnswerTotals, HourlyHistory};
use crate::ops::status::{LatencyTrend, StatusHistory};
use crate::ops::uptime;
use crate::web::locales::{Locale, interpolate};

/// The number and the length of the bars in the day's timeline.
const DAY_BARS: (u64, Duration) = (48, Duration::from_secs(30 * 60));

/// The number and the length of the bars in the month's timeline.
const MONTH_BARS: (u64, Duration) = (30, Duration::from_secs(24 * 60 * 60));

/// A point in time, for programs and for people.
pub struct DisplayTime {
    /// RFC 3339.
    pub exact: String,
    /// UTC. A script replaces it by the reader's own time zone.
    pub shown: String,
}

impl DisplayTime {
    pub fn new(at: Timestamp) -> Self {
        let exact = at.to_string();
        let shown = match (exact.get(..10), exact.get(11..16)) {
            (Some(day), Some(time)) => format!("{day} {time} UTC"),
            _ => exact.clone(),
        };
        Self { exact, shown }
    }

    /// Returns a `<time>` element. Its content needs no escaping.
    pub fn html(&self) -> String {
        format!("<time datetime=\"{}\">{}</time>", self.exact, self.shown)
    }
}

/// A provider's latency over the last half hour.
pub struct Sparkline {
    /// The points of an SVG polyline in a view box of 100 by 24.
    pub points: String,
    /// The description for screen readers.
    pub label: String,
}

pub struct TimelineRow {
    pub name: &'static str,
    /// The text under the left end.
    pub start_label: &'static str,
    /// The share of the time in which an AI was available.
    pub availability: String,
    /// The answers in this time. `None` if nothing was asked.
    pub served: Option<String>,
    /// The description for screen readers.
    pub label: String,
    /// Oldest first.
    pub bars: Vec<TimelineBar>,
}

pub struct TimelineBar {
    /// The worst mode within the bar, or `unknown`.
    pub mode: &'static str,
    pub title: String,
}

/// Returns the mode as the page's `data-mode` attributes name it.
pub fn mode_name(mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Normal => "normal",
        ServiceMode::Degraded => "degraded",
        ServiceMode::Outage => "outage",
    }
}

/// Draws the known points. Returns `None` for fewer than two.
pub fn sparkline(words: &Locale, trend: &LatencyTrend) -> Option<Sparkline> {
    let known: Vec<(usize, u64)> = trend
        .points
        .iter()
        .enumerate()
        .filter_map(|(index, point)| Some((index, (*point)?)))
        .collect();
    let max_ms = known.iter().map(|(_, ms)| *ms).max()?;
    let width = trend.points.len().saturating_sub(1).max(1);
    let points: Vec<_> = known
        .iter()
        .map(|(index, ms)| {
            let x = index * 100 / width;
            let y = 23 - ms * 22 / max_ms.max(1);
            format!("{x},{y}")
        })
        .collect();
    let label = interpolate(words.line, &[("most", &max_ms.to_string())]);
    (points.len() > 1).then(|| Sparkline {
        points: points.join(" "),
        label,
    })
}

pub fn day_timeline(
    words: &Locale,
    report: &StatusHistory,
    served: &HourlyHistory,
    now: Timestamp,
) -> TimelineRow {
    let answers = served.totals_for_last(hourly_history::HOURS_PER_DAY, now);
    let names = (words.day, words.day_ago);
    build_row(words, names, report, answers, now, DAY_BARS)
}

pub fn month_timeline(
    words: &Locale,
    report: &StatusHistory,
    served: &HourlyHistory,
    now: Timestamp,
) -> TimelineRow {
    let answers = served.totals_for_last(hourly_history::HOURS_PER_MONTH, now);
    let names = (words.month, words.month_ago);
    build_row(words, names, report, answers, now, MONTH_BARS)
}

fn describe_answers(words: &Locale, sum: AnswerTotals) -> Option<String> {
    let answered = format_percent(sum.answered_ratio()?);
    let ai = format_percent(sum.ai_ratio()?);
    Some(interpolate(
        words.served,
        &[
            ("count", &sum.total().to_string()),
            ("answered", &answered),
            ("ai", &ai),
        ],
    ))
}

fn build_row(
    words: &Locale,
    (name, start_label): (&'static str, &'static str),
    report: &StatusHistory,
    answers: AnswerTotals,
    now: Timestamp,
    (count, bar_length): (u64, Duration),
) -> TimelineRow {
    let incidents = report.incidents.iter();
    let timeline = uptime::timeline(incidents, report.lifetime, now, bar_length, count);
    let share = timeline.uptime.map(format_percent);
    let bars_in = |mode| {
        let bars = timeline.bars.iter();
        bars.filter(|bar| bar.mode == Some(mode))
            .count()
            .to_string()
    };
    let label = interpolate(
        words.drawn,
        &[
            ("name", name),
            ("count", &count.to_string()),
            ("each", &format_duration(words, bar_length)),
            ("outage", &bars_in(ServiceMode::Outage)),
            ("degraded", &bars_in(ServiceMode::Degraded)),
        ],
    );
    let share = share.as_deref().unwrap_or(words.unknown);
    let availability = interpolate(words.available, &[("up", share)]);
    TimelineRow {
        name,
        start_label,
        availability,
        served: describe_answers(words, answers),
        label,
        bars: (timeline.bars.iter().map(|bar| build_bar(words, bar))).collect(),
    }
}

fn format_percent(share: f64) -> String {
    format!("{:.2} %", round_down_percent(share))
}

/// Converts a share into percent, rounded down so that less than all is never shown as 100 %.
fn round_down_percent(share: f64) -> f64 {
    (share * 10_000.0).floor() / 100.0
}

fn build_bar(words: &Locale, bar: &uptime::UptimeBar) -> TimelineBar {
    let [from, to] = [bar.from, bar.to].map(|at| DisplayTime::new(at).shown);
    let period = interpolate(words.span, &[("from", &from), ("to", &to)]);
    let (mode, description) = match bar.mode {
        None => ("unknown", words.unknown.to_owned()),
        Some(ServiceMode::Normal) => ("normal", words.all_well.to_owned()),
        Some(mode) => {
            let troubles = [
                (bar.outage, words.no_ai_for),
                (bar.degraded, words.backup_for),
            ];
            let descriptions: Vec<_> = troubles
                .into_iter()
                .filter(|(time, _)| !time.is_zero())
                .map(|(time, text)| interpolate(text, &[("length", &format_duration(words, time))]))
                .collect();
            (mode_name(mode), descriptions.join(", "))
        }
    };
    TimelineBar {
        mode,
        title: format!("{period}: {description}"),
    }
}

/// Formats a duration in its two largest units.
pub fn format_duration(words: &Locale, length: Duration) -> String {
    let seconds = length.as_secs();
    let amounts = [
        seconds % 60,
        seconds / 60 % 60,
        seconds / 3_600 % 24,
        seconds / 86_400,
    ];
    let parts: Vec<_> = amounts
        .into_iter()
        .zip(words.units)
        .rev()
        .skip_while(|(amount, _)| *amount == 0)
        .take(2)
        .filter(|(amount, _)| *amount > 0)
        .map(|(amount, unit)| format!("{amount} {unit}"))
        .collect();
    if parts.is_empty() {
        format!("0 {}", words.units[0])
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3_725, "1 h 2 min"),
            (3_601, "1 h"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(
                format_duration(Locale::english(), Duration::from_secs(seconds)),
                expected
            );
        }
    }

    #[test]
    fn sparkline_skips_unknown_points() {
        let trend = |points: &[Option<u64>]| LatencyTrend {
            points: points.iter().copied().collect(),
        };
        assert!(
            sparkline(Locale::english(), &trend(&[])).is_none()
                && sparkline(Locale::english(), &trend(&[None, Some(5)])).is_none()
        );
        let line = sparkline(
            Locale::english(),
            &trend(&[Some(100), None, Some(200), Some(0)]),
        )
        .unwrap();
        assert_eq!(line.points, "0,12 66,1 100,23");
        assert!(line.label.contains("200 ms"), "{}", line.label);
        assert_eq!(
            sparkline(Locale::english(), &trend(&[Some(0), Some(0)]))
                .unwrap()
                .points,
            "0,23 100,23"
        );
    }

    #[test]
    fn percent_is_rounded_down() {
        assert_eq!(
            (
                round_down_percent(1.0),
                round_down_percent(0.99999),
                round_down_percent(0.0)
            ),
            (100.0, 99.99, 0.0)
        );
    }
}
