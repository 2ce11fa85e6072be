//! The texts of the server-rendered pages in the visitor's language, one file per language. Texts
//! that only the operator sees are English.
//!
//! The chat has its own texts in `static/locales`, since it also runs on other sites.

mod ar;
mod de;
mod en;
mod es;
mod fr;

use actix_web::HttpRequest;
use actix_web::http::header::ACCEPT_LANGUAGE;

/// The texts in one language. Names in braces are placeholders.
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Locale {
    pub lang: &'static str,
    /// The direction of writing: `ltr` or `rtl`.
    pub dir: &'static str,
    /// Shown in place of the chat if scripts are off.
    pub needs_scripts: &'static str,
    /// Shown in place of the chat if its scripts did not load.
    pub does_not_load: &'static str,
    pub status: &'static str,
    pub demo: &'static str,
    /// Headline: the preferred provider is available.
    pub normal: &'static str,
    /// Headline with `{since}`: only a backup is available.
    pub degraded: &'static str,
    /// Headline with `{since}`: no provider is available.
    pub outage: &'static str,
    pub since: &'static str,
    /// The last change of the active provider, with `{at}`, `{from}`, `{to}` and `{why}`.
    pub switch: &'static str,
    /// Replaces a provider's name if there is none.
    pub nobody: &'static str,
    /// Marks the provider that is tried first.
    pub first: &'static str,
    pub working: &'static str,
    /// The label of a closed breaker whose provider is rate limited.
    pub waits: &'static str,
    /// The label of a half-open breaker.
    pub trying: &'static str,
    /// The label of an open breaker.
    pub failing: &'static str,
    pub blocked: &'static str,
    pub off: &'static str,
    /// The next attempt, with `{at}`.
    pub again_at: &'static str,
    /// The next attempt, with the seconds `{n}` until then.
    pub again_in: &'static str,
    /// The next attempt, when the time has come.
    pub again_now: &'static str,
    /// The label of a provider's time to first token.
    pub speed: &'static str,
    /// Replaces the time to first token if the provider was not used lately.
    pub idle: &'static str,
    /// The description of a sparkline, with the maximum `{most}` in milliseconds.
    pub line: &'static str,
    pub day: &'static str,
    pub month: &'static str,
    pub day_ago: &'static str,
    pub month_ago: &'static str,
    pub now: &'static str,
    /// Above a timeline, with the share `{up}`.
    pub available: &'static str,
    /// The answers within a period, with `{count}`, `{answered}` and `{ai}`.
    pub served: &'static str,
    /// Replaces a value that is unknown.
    pub unknown: &'static str,
    /// The description of a timeline, with `{name}`, `{count}`, `{each}`, `{outage}` and
    /// `{degraded}`.
    pub drawn: &'static str,
    /// A period, with `{from}` and `{to}`.
    pub span: &'static str,
    /// A bar of a timeline without trouble.
    pub all_well: &'static str,
    /// A bar of a timeline with an outage of `{length}`.
    pub no_ai_for: &'static str,
    /// A bar of a timeline with `{length}` on a backup.
    pub backup_for: &'static str,
    pub incidents: &'static str,
    /// Shown if there are no incidents.
    pub none: &'static str,
    /// The worst mode of an incident: outage.
    pub no_ai: &'static str,
    /// The worst mode of an incident: degraded.
    pub backup: &'static str,
    /// The time of an incident that has ended, with `{from}`, `{to}` and `{length}`.
    pub ended: &'static str,
    /// The time of an incident that continues, with `{from}` and `{length}`.
    pub running: &'static str,
    pub problems: &'static str,
    /// The age of the page, with `{at}`.
    pub as_of: &'static str,
    /// The age of the page while it updates itself.
    pub live: &'static str,
    /// The age of the page while updates fail, with the seconds `{n}`.
    pub old: &'static str,
    pub json: &'static str,
    /// The units after a number: seconds, minutes, hours, days.
    pub units: [&'static str; 4],
    /// A running outage drill, with `{name}`, `{fault}` and `{until}`.
    pub drill: &'static str,
    /// Follows a provider's trouble that a drill caused.
    pub staged: &'static str,
    /// Translations of the English phrases in provider states and incident causes.
    pub phrases: &'static [(&'static str, &'static str)],
}

/// Follows a provider's trouble in an English incident cause, if a drill caused it.
const DRILL_SUFFIX: &str = " (an outage drill)";

/// All languages, the default first.
const LOCALES: [&Locale; 5] = [&en::EN, &de::DE, &es::ES, &fr::FR, &ar::AR];

impl Locale {
    /// Selects the language of a request: `?lang=`, else the best available one of
    /// `Accept-Language`.
    ///
    /// The chat's script makes its own choice; the guess here lets the page preload the right
    /// texts.
    pub fn negotiate(request: &HttpRequest) -> &'static Self {
        let from_query = request
            .query_string()
            .split('&')
            .filter_map(|pair| pair.strip_prefix("lang="));
        let from_header = request
            .headers()
            .get(ACCEPT_LANGUAGE)
            .and_then(|list| list.to_str().ok());
        Self::first_supported(from_query.chain(by_quality(from_header.unwrap_or_default())))
    }

    pub const fn english() -> &'static Self {
        &en::EN
    }

    fn first_supported<'a>(languages: impl Iterator<Item = &'a str>) -> &'static Self {
        let mut names =
            languages.filter_map(|language| language.trim().split(['-', '_', ';']).next());
        let known = names.find_map(|name| {
            LOCALES
                .into_iter()
                .find(|words| words.lang.eq_ignore_ascii_case(name))
        });
        known.unwrap_or(&en::EN)
    }

    /// Translates a phrase. An unknown phrase is returned as it is.
    pub fn translate<'a>(&self, phrase: &'a str) -> &'a str {
        self.phrases
            .iter()
            .find(|(english, _)| *english == phrase)
            .map_or(phrase, |(_, translation)| translation)
    }

    /// Translates an incident's cause: providers and their troubles, separated by semicolons.
    pub fn translate_cause(&self, cause: &str) -> String {
        let translate = |part: &str| match part.rsplit_once(": ") {
            Some((name, trouble)) => match trouble.strip_suffix(DRILL_SUFFIX) {
                Some(trouble) => format!("{name}: {} ({})", self.translate(trouble), self.staged),
                None => format!("{name}: {}", self.translate(trouble)),
            },
            None => self.translate(part).to_owned(),
        };
        cause
            .split("; ")
            .map(translate)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Returns the languages of an `Accept-Language` list by weight, in the order of the list for equal
/// weights. Languages with weight zero are left out.
fn by_quality(list: &str) -> impl Iterator<Item = &str> {
    let weighted = list.split(',').map(|item| {
        let (name, rest) = item.split_once(';').unwrap_or((item, ""));
        (
            rest.trim()
                .strip_prefix("q=")
                .map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)),
            name,
        )
    });
    let mut languages: Vec<_> = weighted.filter(|(weight, _)| *weight > 0.0).collect();
    languages.sort_by(|(first, _), (second, _)| second.total_cmp(first));
    languages.into_iter().map(|(_, name)| name)
}

/// Replaces the placeholders in braces. An unknown placeholder is removed.
pub fn interpolate(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        text.extend(
            values
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value),
        );
        rest = after;
    }
    text + rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::domain::FaultKind;
    use crate::provider::status::describe_fault;

    /// Returns all texts in the alphabetical order of the fields.
    fn texts(words: &Locale) -> Vec<String> {
        let mut fields = serde_json::to_value(words).unwrap();
        fields.as_object_mut().unwrap().remove("phrases");
        let mut texts = Vec::new();
        for value in fields.as_object().unwrap().values() {
            match value {
                Value::Array(units) => texts.extend(units.iter().map(text)),
                value => texts.push(text(value)),
            }
        }
        texts
    }

    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{')
            .skip(1)
            .map(|rest| rest.split_once('}').unwrap().0)
            .collect()
    }

    #[test]
    fn every_language_has_all_texts_and_placeholders() {
        let english = texts(&en::EN);
        for words in LOCALES {
            for (text, english) in texts(words).into_iter().zip(&english) {
                assert!(
                    !text.trim().is_empty() && placeholders(&text) == placeholders(english),
                    "{}: {text}",
                    words.lang
                );
            }
            assert_eq!(words.dir == "rtl", words.lang == "ar");
            // Every phrase that visitors can see is translated.
            let troubles = FaultKind::ALL.into_iter().map(describe_fault);
            for phrase in troubles.chain([
                "today's budget is spent",
                "it is available again",
                "it is preferred",
            ]) {
                assert!(
                    (words.translate(phrase) == phrase) == (words.lang == "en"),
                    "{}: {phrase}",
                    words.lang
                );
            }
        }
    }

    #[test]
    fn first_available_language_is_selected() {
        for (wanted, lang) in [
            (&["de-AT"][..], "de"),
            (&["", "xx", " FR;q=0.8"], "fr"),
            (&["../etc", "%00"], "en"),
            (&[], "en"),
            (&["pt", "ar_EG"], "ar"),
        ] {
            assert_eq!(
                Locale::first_supported(wanted.iter().copied()).lang,
                lang,
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn language_with_the_highest_weight_is_selected() {
        for (list, lang) in [
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("ar;q=0.1, fr;q=0.9", "fr"),
            ("de;q=0, es; q=0.2", "es"),
            ("xx, fr;q=0.5, de;q=0.5", "fr"),
            ("de;q=nan, *;q=much", "en"),
            ("", "en"),
        ] {
            assert_eq!(
                Locale::first_supported(by_quality(list)).lang,
                lang,
                "{list}"
            );
        }
    }

    #[test]
    fn incident_causes_are_translated() {
        assert_eq!(
            de::DE.translate_cause("a: it refuses our key; b:c: its rate limit"),
            "a: unser Schlüssel wird abgelehnt; b:c: Anfragegrenze erreicht"
        );
        assert_eq!(
            en::EN.translate_cause("a: it refuses our key"),
            "a: it refuses our key"
        );
        assert_eq!(
            fr::FR.translate_cause("The service was not running."),
            "Le service ne tournait pas."
        );
    }

    #[test]
    fn placeholders_are_replaced_once() {
        assert_eq!(
            interpolate("{a} and {b}, {c}", &[("a", "{b}"), ("b", "2")]),
            "{b} and 2, "
        );
        assert_eq!(interpolate("nothing {", &[]), "nothing ");
    }
}
