//! Outage drills on the status page. Running drills are shown to everyone; the reports are for the
//! operator and in English.

use super::timeline::{DisplayTime, format_duration};
use crate::config::{ConfigEnum as _, InjectedFault};
use crate::ops::drills::DrillReport;
use crate::web::locales::Locale;

const MAX_SHOWN_REPORTS: usize = 10;

pub(crate) struct RunningDrillView {
    pub(crate) provider: String,
    /// The fault and the end of the drill.
    pub(crate) html: String,
}

/// A drill that ended, or was skipped.
pub(crate) struct DrillReportView {
    pub(crate) provider: String,
    pub(crate) fault: String,
    pub(crate) started: DisplayTime,
    /// The duration of the drill and how it ended, or the reason for skipping it.
    pub(crate) outcome: String,
    /// The effects on visitors and on the breaker, a sentence per line.
    pub(crate) lines: Vec<String>,
}

pub(crate) struct FaultOption {
    pub(crate) value: &'static str,
    pub(crate) label: &'static str,
}

pub(crate) fn fault_options() -> Vec<FaultOption> {
    InjectedFault::ALL
        .iter()
        .map(|fault| FaultOption {
            value: fault.as_str(),
            label: fault_label(*fault),
        })
        .collect()
}

const fn fault_label(fault: InjectedFault) -> &'static str {
    match fault {
        InjectedFault::Down => "Down",
        InjectedFault::RateLimit => "Rate limit",
        InjectedFault::Unauthorized => "Key refused",
        InjectedFault::Timeout => "No answer",
        InjectedFault::Stall => "Falls silent",
        InjectedFault::Cut => "Breaks off",
        InjectedFault::Garbage => "Broken data",
        InjectedFault::Slow => "Slow",
    }
}

fn describe_fault(fault: &str, share: f64) -> String {
    let fault = fault
        .parse::<InjectedFault>()
        .map_or(fault, |fault| fault_label(fault));
    if share < 1.0 {
        format!("{fault}, {:.0} % of calls", share * 100.0)
    } else {
        fault.to_owned()
    }
}

pub(crate) fn report_views(reports: &[DrillReport]) -> Vec<DrillReportView> {
    reports
        .iter()
        .take(MAX_SHOWN_REPORTS)
        .map(report_view)
        .collect()
}

fn report_view(report: &DrillReport) -> DrillReportView {
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
                format_duration(Locale::english(), ended.since(drill.from))
            )
        }
    };
    DrillReportView {
        provider: drill.provider.to_string(),
        fault: describe_fault(&drill.fault, drill.share),
        started: DisplayTime::new(drill.from),
        outcome,
        lines: if report.skipped.is_some() {
            Vec::new()
        } else {
            effect_lines(report)
        },
    }
}

fn effect_lines(report: &DrillReport) -> Vec<String> {
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
    let breaker = match (breaker.opened_after_ms, breaker.rate_limited_after_ms) {
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
            report.calls.affected, report.calls.total
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DrillView, Timestamp};
    use crate::ops::drills::{BreakerTimeline, CallCounts, EndedBy};
    use crate::turn::drill_impact::DrillImpact;

    #[test]
    fn drill_report_is_described() {
        let mut report = DrillReport {
            id: "drill-1".into(),
            drill: DrillView {
                provider: "a".into(),
                fault: "rate_limit".into(),
                share: 0.5,
                from: Timestamp(0),
                until: Timestamp(60_000),
            },
            scheduled: false,
            skipped: None,
            ended: Some(Timestamp(30_000)),
            ended_by: Some(EndedBy::Operator),
            calls: CallCounts {
                total: 5,
                affected: 3,
            },
            turns: DrillImpact {
                turns: 2,
                sources: [("ai".to_owned(), 2)].into(),
                restarts: 1,
                longest_first_token_ms: Some(1_250),
                ..DrillImpact::default()
            },
            breaker: BreakerTimeline {
                times_opened: 1,
                opened_after_ms: Some(400),
                rate_limited_after_ms: None,
                closed_after_ms: Some(7),
            },
        };
        let view = report_view(&report);
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
        let view = report_view(&report);
        assert_eq!(
            (view.outcome.as_str(), view.lines.len()),
            ("scheduled, skipped: another drill runs", 0)
        );
    }
}
