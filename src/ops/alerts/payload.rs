//! Renders an alert: JSON for programs, and a sentence for people. Pure.

use std::sync::Arc;

use serde::Serialize;

use super::rules::{AlertChange, AlertSubject, AnomalyMetric, Notification};
use crate::domain::{ServiceMode, Timestamp};

/// The JSON body of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    pub event: &'static str,
    pub provider: Option<Arc<str>>,
    /// The service's mode when the alert was sent; for a change of the mode, the new one.
    pub mode: ServiceMode,
    /// The open or just closed incident. Status pages and JSON use the same id.
    pub incident: Option<String>,
    /// The reason in the protocol's word if it has one, else a sentence.
    pub reason: Option<String>,
    pub at: Timestamp,
    pub text: String,
    /// The number of times the condition became bad since its last alert but was not sent, because
    /// of `alerts.min_interval`.
    pub held_back: u32,
    /// An outage drill causes the condition, or caused the one that is over.
    pub drill: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlertContext {
    pub mode: ServiceMode,
    /// The open or just closed incident.
    pub incident: Option<String>,
    pub at: Timestamp,
}

impl Alert {
    pub fn new(notification: &Notification, context: AlertContext) -> Self {
        Self {
            event: event_name(&notification.condition.subject, notification.change()),
            provider: notification.condition.subject.provider().cloned(),
            mode: context.mode,
            incident: context.incident,
            reason: notification.condition.reason.clone(),
            at: context.at,
            text: if notification.is_drill {
                format!("Outage drill: {}", describe(notification))
            } else {
                describe(notification)
            },
            held_back: notification.suppressed,
            drill: notification.is_drill,
        }
    }

    /// The body for a Slack incoming webhook: the sentence and the incident's id.
    pub fn slack_body(&self) -> String {
        let incident = self
            .incident
            .as_ref()
            .map_or(String::new(), |id| format!(" ({id})"));
        let text = format!("Failsoft: {}{incident}", self.text);
        // Slack's markup uses these three characters.
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        serde_json::json!({ "text": text }).to_string()
    }
}

fn event_name(subject: &AlertSubject, change: AlertChange) -> &'static str {
    let [raised, cleared, flapped] = match subject {
        AlertSubject::Provider(_) => ["provider_down", "provider_up", "provider_flapped"],
        AlertSubject::Budget(_) => ["budget_spent", "budget_renewed", "budget_flapped"],
        AlertSubject::Mode => ["mode_changed", "mode_changed", "mode_flapped"],
        AlertSubject::Store => ["store_failed", "store_recovered", "store_flapped"],
        AlertSubject::Warning(_) => [
            "early_warning",
            "early_warning_over",
            "early_warning_flapped",
        ],
    };
    match change {
        AlertChange::Raised => raised,
        AlertChange::Cleared => cleared,
        AlertChange::Flapped => flapped,
    }
}

fn describe(notification: &Notification) -> String {
    let condition = &notification.condition;
    let change = notification.change();
    let level = condition.severity;
    let words = &condition.description;
    let text = match (&condition.subject, level) {
        (AlertSubject::Provider(name), 0) => format!("Provider {name} works again."),
        (AlertSubject::Provider(name), 1) => format!("Provider {name} is down: {words}."),
        (AlertSubject::Provider(name), _) => {
            format!("Provider {name} is blocked until somebody mends it: {words}.")
        }
        (AlertSubject::Budget(name), 0) => format!("Provider {name} may spend again."),
        (AlertSubject::Budget(name), _) => {
            format!(
                "Provider {name} has spent its budget for today; it is passed over until midnight UTC."
            )
        }
        (AlertSubject::Mode, 0) => "Everything works again.".to_owned(),
        (AlertSubject::Mode, 1) => format!("Answers come from a backup model. {words}"),
        (AlertSubject::Mode, _) => {
            format!("No AI can answer; visitors get prepared replies. {words}")
        }
        (AlertSubject::Store, 0) => "The store works again.".to_owned(),
        (AlertSubject::Store, _) => words.clone(),
        (AlertSubject::Warning(metric), 0) => {
            format!("{} as usual again. {words}", metric_subject(*metric))
        }
        (AlertSubject::Warning(metric), _) => {
            format!("{} not as usual. {words}", metric_subject(*metric))
        }
    };
    let times = match notification.suppressed {
        0 => return text.trim_end().to_owned(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let text = text.trim_end();
    match change {
        AlertChange::Flapped => {
            format!("{text} Since the last alert it was bad {times} for a while.")
        }
        AlertChange::Raised | AlertChange::Cleared => {
            format!("{text} Before, it was so {times} without an alert.")
        }
    }
}

fn metric_subject(metric: AnomalyMetric) -> &'static str {
    match metric {
        AnomalyMetric::Degraded => "The share of answers without an AI is",
        AnomalyMetric::Stale => "The share of old saved answers is",
        AnomalyMetric::Cost => "The cost is",
        AnomalyMetric::FirstToken => "The time to first words is",
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::AlertCondition;
    use super::*;

    fn notification(subject: AlertSubject, level: u8, before: u8, muted: u32) -> Notification {
        let reason = (level > 0).then(|| "timeout".to_owned());
        let condition = AlertCondition {
            subject,
            severity: level,
            reason,
            description: "no answer in time".into(),
            is_drill: false,
        };
        Notification {
            condition,
            previous_severity: before,
            suppressed: muted,
            is_drill: false,
        }
    }

    fn alert(notification: &Notification) -> Alert {
        let context = AlertContext {
            mode: ServiceMode::Degraded,
            incident: Some("inc-7".into()),
            at: Timestamp(5),
        };
        Alert::new(notification, context)
    }

    #[test]
    fn an_alert_serializes_to_the_documented_json() {
        let json = serde_json::to_value(alert(&notification(
            AlertSubject::Provider("a".into()),
            1,
            0,
            0,
        )))
        .unwrap();
        let expected = serde_json::json!({
            "event": "provider_down", "provider": "a", "mode": "degraded", "incident": "inc-7", "reason": "timeout",
            "at": "1970-01-01T00:00:00.005Z", "text": "Provider a is down: no answer in time.", "held_back": 0, "drill": false,
        });
        assert_eq!(json, expected);
        let staged = alert(&Notification {
            is_drill: true,
            ..notification(AlertSubject::Provider("a".into()), 1, 0, 0)
        });
        let expected = ("Outage drill: Provider a is down: no answer in time.", true);
        assert_eq!((staged.text.as_str(), staged.drill), expected);
        let recovered = alert(&notification(AlertSubject::Store, 0, 1, 0));
        assert_eq!(
            (recovered.event, &recovered.provider, &recovered.reason),
            ("store_recovered", &None, &None)
        );
    }

    #[test]
    fn every_subject_and_change_has_a_text() {
        let warnings = AnomalyMetric::ALL.map(AlertSubject::Warning);
        let subjects = [
            AlertSubject::Provider("a".into()),
            AlertSubject::Budget("a".into()),
            AlertSubject::Mode,
            AlertSubject::Store,
        ];
        for subject in subjects.into_iter().chain(warnings) {
            for (level, before, muted) in [(1, 0, 0), (2, 0, 3), (0, 1, 0), (0, 0, 98), (1, 0, 1)] {
                let alert = alert(&notification(subject.clone(), level, before, muted));
                assert!(
                    alert.text.ends_with('.') || alert.text.ends_with("time"),
                    "{}",
                    alert.text
                );
                assert_eq!(
                    alert.text.contains("98 times"),
                    muted == 98,
                    "{}",
                    alert.text
                );
                assert_eq!(
                    alert.event.ends_with("flapped"),
                    muted == 98,
                    "{}",
                    alert.event
                );
            }
        }
    }

    #[test]
    fn slack_markup_is_escaped() {
        let mut alert = alert(&notification(AlertSubject::Store, 1, 0, 0));
        alert.text = "a <!channel> & b".into();
        assert_eq!(
            alert.slack_body(),
            r#"{"text":"Failsoft: a &lt;!channel&gt; &amp; b (inc-7)"}"#
        );
    }
}
