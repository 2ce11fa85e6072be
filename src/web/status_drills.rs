//! Outage drills on the status page. Running drills are shown to everyone; the reports are for the
//! operator and in English.

use super::history::{Moment, length};
use super::words::Words;
use crate::ops::drills::Report;
use crate::settings::{Choice as _, Fault};

const SHOWN: usize = 10;

pub(super) struct Running {
    pub(super) provider: String,
    /// The fault and the end of the drill.
    pub(super) html: String,
}

/// A drill that ended, or was skipped.
pub(super) struct Told {
    pub(super) provider: String,
    pub(super) fault: String,
    pub(super) started: Moment,
    /// The duration of the drill and how it ended, or the reason for skipping it.
    pub(super) outcome: String,
    /// The effects on visitors and on the breaker, a sentence per line.
    pub(super) lines: Vec<String>,
}

pub(super) struct Choice {
    pub(super) value: &'static str,
    pub(super) label: &'static str,
}

pub(super) fn choices() -> Vec<Choice> {
    Fault::ALL
        .iter()
        .map(|fault| Choice {
            value: fault.name(),
            label: words(*fault),
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

pub(super) fn told(reports: &[Report]) -> Vec<Told> {
    reports.iter().take(SHOWN).map(one).collect()
}

fn one(report: &Report) -> Told {
    let drill = &report.drill;
    let scheduled = if report.scheduled { "scheduled, " } else { "" };
    let outcome = match (&report.skipped, report.ended) {
        (Some(reason), _) => format!("scheduled, skipped: {reason}"),
        (None, None) => format!("{scheduled}running"),
        (None, Some(ended)) => {
            let early = if ended < drill.until {
                " (ended early)"
            } else {
                ""
            };
            format!(
                "{scheduled}{}{early}",
                length(Words::english(), ended.since(drill.from))
            )
        }
    };
    Told {
        provider: drill.provider.to_string(),
        fault: said(&drill.fault, drill.share),
        started: Moment::of(drill.from),
        outcome,
        lines: if report.skipped.is_some() {
            Vec::new()
        } else {
            lines(report)
        },
    }
}

fn lines(report: &Report) -> Vec<String> {
    let turns = &report.turns;
    let breaker = report.breaker;
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms / 100 % 10);
    let sources: Vec<_> = turns
        .sources
        .iter()
        .map(|(source, count)| format!("{count} {source}"))
        .collect();
    let mut answers = match turns.turns {
        0 => "No visitor asked anything".to_owned(),
        1 => format!("1 answer: {}", sources.join(", ")),
        count => format!("{count} answers: {}", sources.join(", ")),
    };
    if turns.restarts > 0 {
        let times = if turns.restarts == 1 {
            "once".to_owned()
        } else {
            format!("{} times", turns.restarts)
        };
        answers += &format!("; restarted in mid-answer {times}");
    }
    if let Some(longest) = turns.longest_first_token_ms {
        answers += &format!("; first words after {} at most", seconds(longest));
    }
    let breaker = match (breaker.opened_after_ms, breaker.limited_after_ms) {
        (Some(after), _) => format!("The breaker opened after {}", seconds(after)),
        (None, Some(after)) => {
            format!("Paused after {}, because of its rate limit", seconds(after))
        }
        (None, None) => "The breaker stayed closed".to_owned(),
    };
    let closed_again = report
        .breaker
        .closed_after_ms
        .map_or(String::new(), |after| {
            format!(", in use again {} after the end", seconds(after))
        });
    vec![
        answers,
        format!(
            "{breaker}{closed_again}; the drill failed {} of {} calls",
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
    fn drill_report_is_described() {
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
        let view = one(&report);
        assert_eq!(
            (view.fault.as_str(), view.outcome.as_str()),
            ("Rate limit, 50 % of calls", "30 s (ended early)")
        );
        assert_eq!(
            view.lines,
            [
                "2 answers: 2 ai; restarted in mid-answer once; first words after 1.2 s at most",
                "The breaker opened after 0.4 s, in use again 0.0 s after the end; the drill failed 3 of 5 calls",
            ]
        );
        report.skipped = Some("another drill runs".into());
        let view = one(&report);
        assert_eq!(
            (view.outcome.as_str(), view.lines.len()),
            ("scheduled, skipped: another drill runs", 0)
        );
    }
}
