//! Time as the status page draws and tells it: moments, lengths, a provider's speed as a line, the service's history as bars.

use std::time::Duration;

use super::words::{Words, fill};
use crate::chat::{At, Mode};
use crate::ops::history::{self, History, Sum};
use crate::ops::report::{Report, Trend};
use crate::ops::uptime::{self, Bar};

/// The parts of the day's timeline, and their length.
const DAY: (u64, Duration) = (48, Duration::from_secs(30 * 60));

/// The parts of the month's timeline, and their length.
const MONTH: (u64, Duration) = (30, Duration::from_secs(24 * 60 * 60));

/// A moment, for a program and for people.
pub struct Moment {
    /// As programs read it.
    pub exact: String,
    /// As it is read before scripts told it in the reader's own zone.
    pub shown: String,
}

impl Moment {
    /// This one.
    pub fn of(at: At) -> Self {
        let exact = at.to_string();
        let shown = match (exact.get(..10), exact.get(11..16)) {
            (Some(day), Some(time)) => format!("{day} {time} UTC"),
            _ => exact.clone(),
        };
        Self { exact, shown }
    }

    /// As markup, which holds nothing that needs escaping.
    pub fn html(&self) -> String {
        format!("<time datetime=\"{}\">{}</time>", self.exact, self.shown)
    }
}

/// A provider's speed over the last half hour, as a line.
pub struct Spark {
    /// In the drawing's own measure.
    pub points: String,
    /// The same in words, for who does not see it.
    pub said: String,
}

/// One timeline.
pub struct Line {
    /// What stands above it.
    pub name: &'static str,
    /// What stands where it begins.
    pub began: &'static str,
    /// The share of the time in which there was an AI, in words.
    pub up: String,
    /// What was answered in it, in words; none where nothing was asked.
    pub served: Option<String>,
    /// The same in words, for who does not see it.
    pub said: String,
    /// Its parts, oldest first.
    pub bars: Vec<Part>,
}

/// A part of a timeline.
pub struct Part {
    /// The worst in it.
    pub mode: &'static str,
    /// What it was, in words.
    pub title: String,
}

/// The mode as the page names it to programs.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Normal => "normal",
        Mode::Degraded => "degraded",
        Mode::Outage => "outage",
    }
}

/// A line of a hundred by twenty-four, for what is known; none where there is too little.
pub fn spark(words: &Words, trend: &Trend) -> Option<Spark> {
    let known: Vec<(usize, u64)> = trend
        .points
        .iter()
        .enumerate()
        .filter_map(|(at, point)| Some((at, (*point)?)))
        .collect();
    let most = known.iter().map(|(_, ms)| *ms).max()?;
    let width = trend.points.len().saturating_sub(1).max(1);
    let place = |(at, ms): &(usize, u64)| {
        let x = at * 100 / width;
        let y = 23 - ms * 22 / most.max(1);
        format!("{x},{y}")
    };
    let points: Vec<_> = known.iter().map(place).collect();
    let said = fill(words.line, &[("most", &most.to_string())]);
    (points.len() > 1).then(|| Spark {
        points: points.join(" "),
        said,
    })
}

/// The last day.
pub fn day(words: &Words, report: &Report, served: &History, now: At) -> Line {
    let served = answered(words, served.last(history::DAY, now));
    Line {
        served,
        ..line(words, (words.day, words.day_ago), report, now, DAY)
    }
}

/// The last month.
pub fn month(words: &Words, report: &Report, served: &History, now: At) -> Line {
    let served = answered(words, served.last(history::MONTH, now));
    Line {
        served,
        ..line(words, (words.month, words.month_ago), report, now, MONTH)
    }
}

fn answered(words: &Words, sum: Sum) -> Option<String> {
    let share = |share: f64| format!("{:.2} %", floor(share));
    let (answered, ai) = (share(sum.answered()?), share(sum.by_ai()?));
    Some(fill(
        words.served,
        &[
            ("count", &sum.total().to_string()),
            ("answered", &answered),
            ("ai", &ai),
        ],
    ))
}

fn line(
    words: &Words,
    (name, began): (&'static str, &'static str),
    report: &Report,
    now: At,
    (count, each): (u64, Duration),
) -> Line {
    let timeline = uptime::timeline(report.incidents.iter(), report.life, now, each, count);
    let up = timeline.up.map_or_else(
        || words.unknown.to_owned(),
        |up| format!("{:.2} %", floor(up)),
    );
    let with = |mode| {
        timeline
            .bars
            .iter()
            .filter(|bar| bar.mode == Some(mode))
            .count()
            .to_string()
    };
    let said = fill(
        words.drawn,
        &[
            ("name", name),
            ("count", &count.to_string()),
            ("each", &length(words, each)),
            ("outage", &with(Mode::Outage)),
            ("degraded", &with(Mode::Degraded)),
        ],
    );
    let up = fill(words.available, &[("up", &up)]);
    Line {
        name,
        began,
        up,
        served: None,
        said,
        bars: timeline.bars.iter().map(|bar| part(words, bar)).collect(),
    }
}

/// In percent, rounded down: what was not whole is not shown as whole.
fn floor(share: f64) -> f64 {
    (share * 10_000.0).floor() / 100.0
}

fn part(words: &Words, bar: &Bar) -> Part {
    let [from, to] = [bar.from, bar.to].map(|at| Moment::of(at).shown);
    let when = fill(words.span, &[("from", &from), ("to", &to)]);
    let (mode, what) = match bar.mode {
        None => ("unknown", words.unknown.to_owned()),
        Some(Mode::Normal) => ("normal", words.all_well.to_owned()),
        Some(mode) => {
            let told = [
                (bar.outage, words.no_ai_for),
                (bar.degraded, words.backup_for),
            ]
            .into_iter();
            let told = told.filter(|(time, _)| !time.is_zero());
            let told: Vec<_> = told
                .map(|(time, what)| fill(what, &[("length", &length(words, time))]))
                .collect();
            (mode_name(mode), told.join(", "))
        }
    };
    Part {
        mode,
        title: format!("{when}: {what}"),
    }
}

/// A length in its two greatest units.
pub fn length(words: &Words, length: Duration) -> String {
    let seconds = length.as_secs();
    let sizes = [
        seconds % 60,
        seconds / 60 % 60,
        seconds / 3_600 % 24,
        seconds / 86_400,
    ];
    let parts: Vec<_> = sizes
        .into_iter()
        .zip(words.units)
        .rev()
        .skip_while(|(size, _)| *size == 0)
        .take(2)
        .collect();
    let told: Vec<_> = parts
        .into_iter()
        .filter(|(size, _)| *size > 0)
        .map(|(size, unit)| format!("{size} {unit}"))
        .collect();
    if told.is_empty() {
        format!("0 {}", words.units[0])
    } else {
        told.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_in_their_two_greatest_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3_725, "1 h 2 min"),
            (3_601, "1 h"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(
                length(Words::english(), Duration::from_secs(seconds)),
                words
            );
        }
    }

    #[test]
    fn a_line_is_drawn_of_what_is_known() {
        let trend = |points: &[Option<u64>]| Trend {
            points: points.iter().copied().collect(),
        };
        assert!(
            spark(Words::english(), &trend(&[])).is_none()
                && spark(Words::english(), &trend(&[None, Some(5)])).is_none()
        );
        let line = spark(
            Words::english(),
            &trend(&[Some(100), None, Some(200), Some(0)]),
        )
        .unwrap();
        assert_eq!(line.points, "0,12 66,1 100,23");
        assert!(line.said.contains("200 ms"), "{}", line.said);
        assert_eq!(
            spark(Words::english(), &trend(&[Some(0), Some(0)]))
                .unwrap()
                .points,
            "0,23 100,23"
        );
    }

    #[test]
    fn what_was_not_whole_is_not_shown_as_whole() {
        assert_eq!(
            (floor(1.0), floor(0.99999), floor(0.0)),
            (100.0, 99.99, 0.0)
        );
    }
}
