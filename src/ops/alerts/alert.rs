//! An alert as it is told: for programs, and in a sentence for people. Pure.

use std::sync::Arc;

use serde::Serialize;

use super::cause::{Cause, Figure};
use super::rules::{News, Told};
use crate::chat::{At, Mode};

/// What a receiver gets as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// What happened, in one word.
    pub event: &'static str,
    /// The provider that it is about.
    pub provider: Option<Arc<str>>,
    /// The service's mode when it was told; of a change of the mode the new one.
    pub mode: Mode,
    /// The incident that runs, or that has just ended: the id that banner, page and JSON share.
    pub incident: Option<String>,
    /// Why, in the protocol's word where there is one.
    pub reason: Option<String>,
    /// When.
    pub at: At,
    /// All of it in a sentence.
    pub text: String,
    /// How often the same became bad since its last alert without being told, because of `alerts.min_interval`.
    pub held_back: u32,
    /// Whether an outage drill brings it about, or brought about what is over: then nobody needs to get up.
    pub drill: bool,
}

/// What else is so when something is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The service's mode.
    pub mode: Mode,
    /// The incident that runs, or has just ended.
    pub incident: Option<String>,
    /// When it was found.
    pub at: At,
}

impl Alert {
    /// What is told, in this scene.
    pub fn of(told: &Told, scene: Scene) -> Self {
        Self {
            event: event(&told.found.cause, told.news()),
            provider: told.found.cause.provider().cloned(),
            mode: scene.mode,
            incident: scene.incident,
            reason: told.found.reason.clone(),
            at: scene.at,
            text: if told.staged {
                format!("Outage drill: {}", text(told))
            } else {
                text(told)
            },
            held_back: told.muted,
            drill: told.staged,
        }
    }

    /// The body for Slack: the sentence, with the incident's id.
    pub fn for_slack(&self) -> String {
        let incident = self
            .incident
            .as_ref()
            .map_or(String::new(), |id| format!(" ({id})"));
        let text = format!("Failsoft: {}{incident}", self.text);
        // Slack takes these three for its own marks.
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        serde_json::json!({ "text": text }).to_string()
    }
}

/// The event's name.
fn event(cause: &Cause, news: News) -> &'static str {
    let [worse, better, flapped] = match cause {
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
    match news {
        News::Worse => worse,
        News::Better => better,
        News::Flapped => flapped,
    }
}

fn text(told: &Told) -> String {
    let (found, news) = (&told.found, told.news());
    let (level, words) = (found.level, &found.words);
    let text = match (&found.cause, level) {
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
        (Cause::Warning(figure), 0) => format!("{} as usual again. {words}", subject(*figure)),
        (Cause::Warning(figure), _) => format!("{} not as usual. {words}", subject(*figure)),
    };
    let times = match told.muted {
        0 => return text.trim_end().to_owned(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let text = text.trim_end();
    match news {
        News::Flapped => format!("{text} Since the last alert it was bad {times} for a while."),
        News::Worse | News::Better => format!("{text} Before, it was so {times} without an alert."),
    }
}

fn subject(figure: Figure) -> &'static str {
    match figure {
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

    fn told(cause: Cause, level: u8, before: u8, muted: u32) -> Told {
        let reason = (level > 0).then(|| "timeout".to_owned());
        let found = Finding {
            cause,
            level,
            reason,
            words: "no answer in time".into(),
            staged: false,
        };
        Told {
            found,
            before,
            muted,
            staged: false,
        }
    }

    fn alert(told: &Told) -> Alert {
        let scene = Scene {
            mode: Mode::Degraded,
            incident: Some("inc-7".into()),
            at: At(5),
        };
        Alert::of(told, scene)
    }

    #[test]
    fn a_receiver_gets_what_it_was_promised() {
        let json =
            serde_json::to_value(alert(&told(Cause::Provider("a".into()), 1, 0, 0))).unwrap();
        let expected = serde_json::json!({
            "event": "provider_down", "provider": "a", "mode": "degraded", "incident": "inc-7", "reason": "timeout",
            "at": "1970-01-01T00:00:00.005Z", "text": "Provider a is down: no answer in time.", "held_back": 0, "drill": false,
        });
        assert_eq!(json, expected);
        let staged = alert(&Told {
            staged: true,
            ..told(Cause::Provider("a".into()), 1, 0, 0)
        });
        let expected = ("Outage drill: Provider a is down: no answer in time.", true);
        assert_eq!((staged.text.as_str(), staged.drill), expected);
        let whole = alert(&told(Cause::Store, 0, 1, 0));
        assert_eq!(
            (whole.event, &whole.provider, &whole.reason),
            ("store_recovered", &None, &None)
        );
    }

    #[test]
    fn every_cause_and_news_has_words() {
        let figures = Figure::ALL.map(Cause::Warning);
        let causes = [
            Cause::Provider("a".into()),
            Cause::Budget("a".into()),
            Cause::Mode,
            Cause::Store,
        ];
        for cause in causes.into_iter().chain(figures) {
            for (level, before, muted) in [(1, 0, 0), (2, 0, 3), (0, 1, 0), (0, 0, 98), (1, 0, 1)] {
                let alert = alert(&told(cause.clone(), level, before, muted));
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
    fn slack_takes_nothing_for_a_mark_of_its_own() {
        let mut alert = alert(&told(Cause::Store, 1, 0, 0));
        alert.text = "a <!channel> & b".into();
        assert_eq!(
            alert.for_slack(),
            r#"{"text":"Failsoft: a &lt;!channel&gt; &amp; b (inc-7)"}"#
        );
    }
}
