//! What the pages say that are drawn here, in the visitor's language: one file a language, with all words in it. What only the operator sees is
//! English.
//! The chat's own words stand in `static/locales`, since it may be shown where this page is not.

mod ar;
mod de;
mod en;
mod es;
mod fr;

use actix_web::HttpRequest;
use actix_web::http::header::ACCEPT_LANGUAGE;

/// The words in one language. In braces is what takes their place.
pub struct Words {
    /// The language, as pages name it.
    pub lang: &'static str,
    /// Which way it runs: `ltr` or `rtl`.
    pub dir: &'static str,
    /// In the place of the chat where scripts are off.
    pub needs_scripts: &'static str,
    /// The same where they are on and did not come.
    pub does_not_load: &'static str,
    /// The status page's name.
    pub status: &'static str,
    /// Above the headline of a demo.
    pub demo: &'static str,
    /// Headline: the first provider can be asked.
    pub normal: &'static str,
    /// Headline with `{since}`: a backup answers.
    pub degraded: &'static str,
    /// Headline with `{since}`: nobody can answer.
    pub outage: &'static str,
    /// Under the headline, with `{since}`.
    pub since: &'static str,
    /// The last switch, with `{at}`, `{from}`, `{to}` and `{why}`.
    pub switch: &'static str,
    /// In the place of a provider where there is none.
    pub nobody: &'static str,
    /// The mark of who would be asked next.
    pub first: &'static str,
    /// A provider's state: closed.
    pub working: &'static str,
    /// A provider's state: closed, and it asked for patience.
    pub waits: &'static str,
    /// A provider's state: half-open.
    pub trying: &'static str,
    /// A provider's state: open.
    pub failing: &'static str,
    /// A provider's state: blocked.
    pub blocked: &'static str,
    /// A provider's state: disabled.
    pub off: &'static str,
    /// When one is tried again, with `{at}`.
    pub again_at: &'static str,
    /// The same with the seconds `{n}` that are left.
    pub again_in: &'static str,
    /// The same when they are over.
    pub again_now: &'static str,
    /// Before a provider's time to its first words.
    pub speed: &'static str,
    /// In the place of that where nobody asked it.
    pub idle: &'static str,
    /// What the line on a card is, with the largest, `{most}`, in milliseconds.
    pub line: &'static str,
    /// A timeline's name.
    pub day: &'static str,
    /// A timeline's name.
    pub month: &'static str,
    /// Where the day's timeline begins.
    pub day_ago: &'static str,
    /// Where the month's timeline begins.
    pub month_ago: &'static str,
    /// Where timelines end.
    pub now: &'static str,
    /// Above a timeline, with the share `{up}`.
    pub available: &'static str,
    /// What was answered in a stretch of time, with `{count}`, `{answered}` and `{ai}`.
    pub served: &'static str,
    /// In the place of what is not known.
    pub unknown: &'static str,
    /// A timeline in words, with `{name}`, `{count}`, `{each}`, `{outage}` and `{degraded}`.
    pub drawn: &'static str,
    /// A time with `{from}` and `{to}`.
    pub span: &'static str,
    /// Of a part of a timeline.
    pub all_well: &'static str,
    /// Of a part of a timeline, with `{length}`.
    pub no_ai_for: &'static str,
    /// Of a part of a timeline, with `{length}`.
    pub backup_for: &'static str,
    /// Above the incidents.
    pub incidents: &'static str,
    /// In their place where there are none.
    pub none: &'static str,
    /// An incident's worst mode: outage.
    pub no_ai: &'static str,
    /// An incident's worst mode: degraded.
    pub backup: &'static str,
    /// An incident's time, with `{from}`, `{to}` and `{length}`.
    pub ended: &'static str,
    /// The time of one that runs, with `{from}` and `{length}`.
    pub running: &'static str,
    /// Above what the operator should look at.
    pub problems: &'static str,
    /// How old the page is, with `{at}`.
    pub as_of: &'static str,
    /// The same while it renews itself.
    pub live: &'static str,
    /// The same when that fails, with the seconds `{n}`.
    pub old: &'static str,
    /// The link to the same for programs.
    pub json: &'static str,
    /// Seconds, minutes, hours, days, as they stand after a number.
    pub units: [&'static str; 4],
    /// An outage drill that runs, with `{name}`, `{fault}` and `{until}`.
    pub drill: &'static str,
    /// Behind a trouble that is staged.
    pub staged: &'static str,
    /// What the service says in English of its providers' troubles, and the same here.
    pub phrases: &'static [(&'static str, &'static str)],
}

/// Behind a trouble in an incident's cause, where a drill staged it.
const STAGED: &str = " (an outage drill)";

/// All languages; the first for who speaks none of them.
const ALL: [&Words; 5] = [&en::WORDS, &de::WORDS, &es::WORDS, &fr::WORDS, &ar::WORDS];

impl Words {
    /// In the language that a request asks for: by `?lang=`, else the first of the browser's that there is. It saves the chat page a round trip;
    /// which one is spoken there it decides by itself.
    pub fn wanted(request: &HttpRequest) -> &'static Self {
        let asked = request
            .query_string()
            .split('&')
            .filter_map(|pair| pair.strip_prefix("lang="));
        let accepted = request
            .headers()
            .get(ACCEPT_LANGUAGE)
            .and_then(|list| list.to_str().ok());
        Self::first(asked.chain(best_first(accepted.unwrap_or_default())))
    }

    /// In English.
    pub const fn english() -> &'static Self {
        &en::WORDS
    }

    fn first<'a>(wanted: impl Iterator<Item = &'a str>) -> &'static Self {
        let mut names = wanted.filter_map(|one| one.trim().split(['-', '_', ';']).next());
        let known = names.find_map(|name| {
            ALL.into_iter()
                .find(|words| words.lang.eq_ignore_ascii_case(name))
        });
        known.unwrap_or(&en::WORDS)
    }

    /// A phrase of the service's in this language; as it is where nobody translated it.
    pub fn said<'a>(&self, phrase: &'a str) -> &'a str {
        self.phrases
            .iter()
            .find(|(english, _)| *english == phrase)
            .map_or(phrase, |(_, here)| here)
    }

    /// An incident's cause, which names providers and their troubles.
    pub fn cause(&self, cause: &str) -> String {
        let one = |part: &str| match part.rsplit_once(": ") {
            Some((name, trouble)) => match trouble.strip_suffix(STAGED) {
                Some(trouble) => format!("{name}: {} ({})", self.said(trouble), self.staged),
                None => format!("{name}: {}", self.said(trouble)),
            },
            None => self.said(part).to_owned(),
        };
        cause.split("; ").map(one).collect::<Vec<_>>().join("; ")
    }
}

/// The languages of a browser's list by their weights; of those that weigh the same the first goes first, and what weighs nothing is not wanted.
fn best_first(list: &str) -> impl Iterator<Item = &str> {
    let weighed = list.split(',').map(|one| {
        let (name, rest) = one.split_once(';').unwrap_or((one, ""));
        (
            rest.trim()
                .strip_prefix("q=")
                .map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)),
            name,
        )
    });
    let mut wanted: Vec<_> = weighed.filter(|(weight, _)| *weight > 0.0).collect();
    wanted.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    wanted.into_iter().map(|(_, name)| name)
}

/// Puts what they stand for in the place of the names in braces.
pub fn fill(words: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(words.len());
    let mut rest = words;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        filled.extend(
            values
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value),
        );
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chat::Fault;
    use crate::provider::backend::trouble_in_words;

    /// All of its words, in the order of the fields.
    fn texts(words: &Words) -> Vec<&'static str> {
        let Words {
            lang,
            dir,
            needs_scripts,
            does_not_load,
            status,
            demo,
            normal,
            degraded,
            outage,
            since,
            switch,
            nobody,
            first,
            working,
            waits,
            trying,
            failing,
            blocked,
            off,
            again_at,
            again_in,
            again_now,
            speed,
            idle,
            line,
            day,
            month,
            day_ago,
            month_ago,
            now,
            available,
            served,
            unknown,
            drawn,
            span,
            all_well,
            no_ai_for,
            backup_for,
            incidents,
            none,
            no_ai,
            backup,
            ended,
            running,
            problems,
            as_of,
            live,
            old,
            json,
            units: [s, min, h, d],
            drill,
            staged,
            phrases: _,
        } = words;
        vec![
            lang,
            dir,
            needs_scripts,
            does_not_load,
            status,
            demo,
            normal,
            degraded,
            outage,
            since,
            switch,
            nobody,
            first,
            working,
            waits,
            trying,
            failing,
            blocked,
            off,
            again_at,
            again_in,
            again_now,
            speed,
            idle,
            line,
            day,
            month,
            day_ago,
            month_ago,
            now,
            available,
            served,
            unknown,
            drawn,
            span,
            all_well,
            no_ai_for,
            backup_for,
            incidents,
            none,
            no_ai,
            backup,
            ended,
            running,
            problems,
            as_of,
            live,
            old,
            json,
            s,
            min,
            h,
            d,
            drill,
            staged,
        ]
    }

    fn names(text: &str) -> BTreeSet<&str> {
        text.split('{')
            .skip(1)
            .map(|rest| rest.split_once('}').unwrap().0)
            .collect()
    }

    #[test]
    fn every_language_says_all_of_it() {
        let english = texts(&en::WORDS);
        for words in ALL {
            for (here, english) in texts(words).iter().zip(&english) {
                assert!(
                    !here.trim().is_empty() && names(here) == names(english),
                    "{}: {here}",
                    words.lang
                );
            }
            assert_eq!(words.dir == "rtl", words.lang == "ar");
            // What may be seen of a provider's trouble is English in English alone.
            let troubles = Fault::ALL.into_iter().map(trouble_in_words);
            for phrase in troubles.chain([
                "today's budget is spent",
                "it can be asked again",
                "it is preferred",
            ]) {
                assert!(
                    (words.said(phrase) == phrase) == (words.lang == "en"),
                    "{}: {phrase}",
                    words.lang
                );
            }
        }
    }

    #[test]
    fn the_first_language_that_there_is_is_spoken() {
        for (wanted, lang) in [
            (&["de-AT"][..], "de"),
            (&["", "xx", " FR;q=0.8"], "fr"),
            (&["../etc", "%00"], "en"),
            (&[], "en"),
            (&["pt", "ar_EG"], "ar"),
        ] {
            assert_eq!(
                Words::first(wanted.iter().copied()).lang,
                lang,
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn the_language_that_weighs_most_goes_first() {
        for (list, lang) in [
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("ar;q=0.1, fr;q=0.9", "fr"),
            ("de;q=0, es; q=0.2", "es"),
            ("xx, fr;q=0.5, de;q=0.5", "fr"),
            ("de;q=nan, *;q=much", "en"),
            ("", "en"),
        ] {
            assert_eq!(Words::first(best_first(list)).lang, lang, "{list}");
        }
    }

    #[test]
    fn a_cause_is_told_in_every_language() {
        assert_eq!(
            de::WORDS.cause("a: it refuses our key; b:c: its rate limit"),
            "a: unser Schlüssel wird abgelehnt; b:c: Anfragegrenze erreicht"
        );
        assert_eq!(
            en::WORDS.cause("a: it refuses our key"),
            "a: it refuses our key"
        );
        assert_eq!(
            fr::WORDS.cause("The service was not running."),
            "Le service ne tournait pas."
        );
    }

    #[test]
    fn names_in_braces_are_filled_once() {
        assert_eq!(
            fill("{a} and {b}, {c}", &[("a", "{b}"), ("b", "2")]),
            "{b} and 2, "
        );
        assert_eq!(fill("nothing {", &[]), "nothing ");
    }
}
