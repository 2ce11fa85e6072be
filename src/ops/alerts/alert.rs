//! Renders an alert: JSON for programs, and a sentence for people. Pure.

use std::sync::Arc;

use serde::Serialize;

use super::cause::{Cause, Figure};
use super::rules::{News, Told};
use crate::chat::{At, Mode};

/// The JSON body of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    pub event: &'static str,
    pub provider: Option<Arc<str>>,
    /// The service's mode when the alert was sent; for a change of the mode, the new one.
    pub mode: Mode,
    /// The open or just closed incident. Status pages and JSON use the same id.
    pub incident: Option<String>,
    /// The reason in the protocol's word if it has one, else a sentence.
    pub reason: Option<String>,
    pub at: At,
    pub text: String,
    /// The number of times the condition became bad since its last alert but was not sent, because
    /// of `alerts.min_interval`.
    pub held_back: u32,
    /// An outage drill causes the condition, or caused the one that is over.
    pub drill: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub mode: Mode,
    /// The open or just closed incident.
    pub incident: Option<String>,
    pub at: At,
}

impl Alert {
    pub fn of(notification: &Told, context: Scene) -> Self {
        Self {
            event: event(&notification.found.cause, notification.news()),
            provider: notification.found.cause.provider().cloned(),
            mode: context.mode,
            incident: context.incident,
            reason: notification.found.reason.clone(),
            at: context.at,
            text: if notification.staged {
                format!("Outage drill: {}", text(notification))
            } else {
                text(notification)
            },
            held_back: notification.muted,
            drill: notification.staged,
        }
    }

    /// The body for a Slack incoming webhook: the sentence and the incident's id.
    pub fn for_slack(&self) -> String {
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

fn event(subject: &Cause, change: News) -> &'static str {
    let [raised, cleared, flapped] = match subject {
        Cause::Provider(_) => ["provider_down", "provider_up", "provider_flapped"],
        Cause::Budget(_) => ["budget_spent", "budget_renewed", "budget_flapped"],
        Cause::Mode => ["mode_changed", "mode_changed", "mode_flapped"],
        Cause::Store => ["store_failed", "store_recovered", "store_flapped"],
        Cause::Warning(_) => [
            "early_warning",
            "early_warning_over",
            "early_warning_flapped",
        ],
    };
    match change {
        News::Worse => raised,
        News::Better => cleared,
        News::Flapped => flapped,
    }
}

fn text(notification: &Told) -> String {
    let condition = &notification.found;
    let change = notification.news();
    let level = condition.level;
    let words = &condition.words;
    let text = match (&condition.cause, level) {
        (Cause::Provider(name), 0) => format!("Provider {name} works again."),
        (Cause::Provider(name), 1) => format!("Provider {name} is down: {words}."),
        (Cause::Provider(name), _) => {
            format!("Provider {name} is blocked until somebody mends it: {words}.")
        }
        (Cause::Budget(name), 0) => format!("Provider {name} may spend again."),
        (Cause::Budget(name), _) => {
            format!(
                "Provider {name} has spent its budget for today; it is passed over until midnight UTC."
            )
        }
        (Cause::Mode, 0) => "Everything works again.".to_owned(),
        (Cause::Mode, 1) => format!("Answers come from a backup model. {words}"),
        (Cause::Mode, _) => format!("No AI can answer; visitors get prepared replies. {words}"),
        (Cause::Store, 0) => "The store works again.".to_owned(),
        (Cause::Store, _) => words.clone(),
        (Cause::Warning(metric), 0) => format!("{} as usual again. {words}", subject(*metric)),
        (Cause::Warning(metric), _) => format!("{} not as usual. {words}", subject(*metric)),
    };
    let times = match notification.muted {
        0 => return text.trim_end().to_owned(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let text = text.trim_end();
    match change {
        News::Flapped => format!("{text} Since the last alert it was bad {times} for a while."),
        News::Worse | News::Better => format!("{text} Before, it was so {times} without an alert."),
    }
}

fn subject(metric: Figure) -> &'static str {
    match metric {
        Figure::Degraded => "The share of answers without an AI is",
        Figure::Stale => "The share of old saved answers is",
        Figure::Cost => "The cost is",
        Figure::FirstToken => "The time to first words is",
    }
}

#[cfg(test)]
mod tests {
    use super::super::cause::Finding;
    use super::*;

    fn notification(subject: Cause, level: u8, before: u8, muted: u32) -> Told {
        let reason = (level > 0).then(|| "timeout".to_owned());
        let condition = Finding {
            cause: subject,
            level,
            reason,
            words: "no answer in time".into(),
            staged: false,
        };
        Told {
            found: condition,
            before,
            muted,
            staged: false,
        }
    }

    fn alert(notification: &Told) -> Alert {
        let context = Scene {
            mode: Mode::Degraded,
            incident: Some("inc-7".into()),
            at: At(5),
        };
        Alert::of(notification, context)
    }

    #[test]
    fn an_alert_serializes_to_the_documented_json() {
        let json = serde_json::to_value(alert(&notification(Cause::Provider("a".into()), 1, 0, 0)))
            .unwrap();
        let expected = serde_json::json!({
            "event": "provider_down", "provider": "a", "mode": "degraded", "incident": "inc-7", "reason": "timeout",
            "at": "1970-01-01T00:00:00.005Z", "text": "Provider a is down: no answer in time.", "held_back": 0, "drill": false,
        });
        assert_eq!(json, expected);
        let staged = alert(&Told {
            staged: true,
            ..notification(Cause::Provider("a".into()), 1, 0, 0)
        });
        let expected = ("Outage drill: Provider a is down: no answer in time.", true);
        assert_eq!((staged.text.as_str(), staged.drill), expected);
        let recovered = alert(&notification(Cause::Store, 0, 1, 0));
        assert_eq!(
            (recovered.event, &recovered.provider, &recovered.reason),
            ("store_recovered", &None, &None)
        );
    }

    #[test]
    fn every_subject_and_change_has_a_text() {
        let warnings = Figure::ALL.map(Cause::Warning);
        let subjects = [
            Cause::Provider("a".into()),
            Cause::Budget("a".into()),
            Cause::Mode,
            Cause::Store,
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
        let mut alert = alert(&notification(Cause::Store, 1, 0, 0));
        alert.text = "a <!channel> & b".into();
        assert_eq!(
            alert.for_slack(),
            r#"{"text":"Failsoft: a &lt;!channel&gt; &amp; b (inc-7)"}"#
        );
    }
}
