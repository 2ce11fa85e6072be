//! Outage drills on the status page: that one runs is for everyone, what came of the last ones for the operator, in English.

use super::history::{Moment, length};
use super::words::Words;
use crate::ops::drills::Report;
use crate::settings::{Choice as _, Fault};

/// The reports that are shown.
const SHOWN: usize = 10;

/// A drill that runs.
pub(super) struct Running {
    /// The provider.
    pub(super) provider: String,
    /// What it does, and until when, as markup.
    pub(super) told: String,
}

/// A drill that ended, or was not run.
pub(super) struct Told {
    /// The provider.
    pub(super) provider: String,
    /// What it did, and to whom.
    pub(super) words: String,
    /// When it began.
    pub(super) from: Moment,
    /// How long it ran, and who ended it; or that it was not run.
    pub(super) course: String,
    /// What visitors got, line by line.
    pub(super) lines: Vec<String>,
}

/// A fault to choose.
pub(super) struct Choice {
    /// Its name in the protocol.
    pub(super) value: &'static str,
    /// What it does.
    pub(super) words: &'static str,
}

/// All faults, in the order of the protocol.
pub(super) fn choices() -> Vec<Choice> {
    Fault::ALL
        .iter()
        .map(|fault| Choice {
            value: fault.name(),
            words: words(*fault),
        })
        .collect()
}

const fn words(fault: Fault) -> &'static str {
    match fault {
        Fault::Down => "Down",
        Fault::RateLimit => "Rate limit",
        Fault::Unauthorized => "Key refused",
        Fault::Timeout => "No answer",
        Fault::Stall => "Falls silent",
        Fault::Cut => "Breaks off",
        Fault::Garbage => "Broken data",
        Fault::Slow => "Slow",
    }
}

fn said(fault: &str, share: f64) -> String {
    let fault = fault.parse::<Fault>().map_or(fault, |fault| words(fault));
    if share < 1.0 {
        format!("{fault}, {:.0} % of calls", share * 100.0)
    } else {
        fault.to_owned()
    }
}

/// The last reports, as lines.
pub(super) fn told(reports: &[Report]) -> Vec<Told> {
    reports.iter().take(SHOWN).map(one).collect()
}

fn one(report: &Report) -> Told {
    let drill = &report.drill;
    let planned = if report.scheduled { "planned, " } else { "" };
    let course = match (&report.skipped, report.ended) {
        (Some(why), _) => format!("planned, not run: {why}"),
        (None, None) => format!("{planned}running"),
        (None, Some(ended)) => {
            let early = if ended < drill.until {
                " (ended early)"
            } else {
                ""
            };
            format!(
                "{planned}{}{early}",
                length(Words::english(), ended.since(drill.from))
            )
        }
    };
    Told {
        provider: drill.provider.to_string(),
        words: said(&drill.fault, drill.share),
        from: Moment::of(drill.from),
        course,
        lines: if report.skipped.is_some() {
            Vec::new()
        } else {
            lines(report)
        },
    }
}

fn lines(report: &Report) -> Vec<String> {
    let (turns, breaker) = (&report.turns, report.breaker);
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms / 100 % 10);
    let sources: Vec<_> = turns
        .sources
        .iter()
        .map(|(name, many)| format!("{many} {name}"))
        .collect();
    let mut answers = match turns.turns {
        0 => "No visitor asked".to_owned(),
        1 => format!("1 answer: {}", sources.join(", ")),
        many => format!("{many} answers: {}", sources.join(", ")),
    };
    if turns.restarts > 0 {
        let times = if turns.restarts == 1 {
            "once".to_owned()
        } else {
            format!("{} times", turns.restarts)
        };
        answers += &format!("; begun anew in mid-answer {times}");
    }
    if let Some(longest) = turns.longest_first_token_ms {
        answers += &format!("; first words after {} at most", seconds(longest));
    }
    let breaker = match (breaker.opened_after_ms, breaker.limited_after_ms) {
        (Some(after), _) => format!("The breaker opened after {}", seconds(after)),
        (None, Some(after)) => format!(
            "Left alone from {} on, as its rate limit asked",
            seconds(after)
        ),
        (None, None) => "The breaker stayed closed".to_owned(),
    };
    let again = report.breaker.closed_after_ms;
    let again = again.map_or(String::new(), |after| {
        format!(", asked again {} after the end", seconds(after))
    });
    vec![
        answers,
        format!(
            "{breaker}{again}; {} of {} calls failed by the drill",
            report.calls.befallen, report.calls.total
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{At, DrillView};
    use crate::ops::drills::{BreakerSeen, Calls, EndedBy};
    use crate::turn::witness::Seen;

    #[test]
    fn a_report_is_told_in_words() {
        let mut report = Report {
            id: "drill-1".into(),
            drill: DrillView {
                provider: "a".into(),
                fault: "rate_limit".into(),
                share: 0.5,
                from: At(0),
                until: At(60_000),
            },
            scheduled: false,
            skipped: None,
            ended: Some(At(30_000)),
            ended_by: Some(EndedBy::Operator),
            calls: Calls {
                total: 5,
                befallen: 3,
            },
            turns: Seen {
                turns: 2,
                sources: [("ai".to_owned(), 2)].into(),
                restarts: 1,
                longest_first_token_ms: Some(1_250),
                ..Seen::default()
            },
            breaker: BreakerSeen {
                opened: 1,
                opened_after_ms: Some(400),
                limited_after_ms: None,
                closed_after_ms: Some(7),
            },
        };
        let shown = one(&report);
        assert_eq!(
            (shown.words.as_str(), shown.course.as_str()),
            ("Rate limit, 50 % of calls", "30 s (ended early)")
        );
        assert_eq!(
            shown.lines,
            [
                "2 answers: 2 ai; begun anew in mid-answer once; first words after 1.2 s at most",
                "The breaker opened after 0.4 s, asked again 0.0 s after the end; 3 of 5 calls failed by the drill",
            ]
        );
        report.skipped = Some("another drill runs".into());
        let shown = one(&report);
        assert_eq!(
            (shown.course.as_str(), shown.lines.len()),
            ("planned, not run: another drill runs", 0)
        );
    }
}
