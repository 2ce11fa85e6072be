//! `GET /status`: the service's state for people. All of it is drawn here, so that it can be read without scripts; the page's script only asks
//! for it again.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::State;
use super::gate;
use super::pages::html;
use super::status::{SHOWN_INCIDENTS, problems};
use super::words::{Words, fill};
use crate::chat::{At, Incident, Mode, ProviderState};
use crate::ops::report::{Report, Trend};
use crate::ops::uptime::{self, Bar};
use crate::provider::backend::{Backend, Vitals};

/// The parts of the day's timeline, and their length.
const DAY: (u64, Duration) = (48, Duration::from_secs(30 * 60));

/// The parts of the month's timeline, and their length.
const MONTH: (u64, Duration) = (30, Duration::from_secs(24 * 60 * 60));

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage<'a> {
    title: &'a str,
    demo: bool,
    version: &'a str,
    words: &'static Words,
    mode: &'static str,
    /// As markup.
    headline: String,
    incident: Option<String>,
    /// As markup.
    since: String,
    /// As markup.
    as_of: String,
    now: Moment,
    switched: Option<Switched>,
    providers: Vec<Card>,
    timelines: Vec<Line>,
    incidents: Vec<Entry>,
    problems: Vec<String>,
    operator: bool,
    orders: bool,
}

/// A moment, for a program and for people.
struct Moment {
    exact: String,
    shown: String,
}

impl Moment {
    fn of(at: At) -> Self {
        let exact = at.to_string();
        let shown = match (exact.get(..10), exact.get(11..16)) {
            (Some(day), Some(time)) => format!("{day} {time} UTC"),
            _ => exact.clone(),
        };
        Self { exact, shown }
    }

    /// As markup, which holds nothing that needs escaping.
    fn html(&self) -> String {
        format!("<time datetime=\"{}\">{}</time>", self.exact, self.shown)
    }
}

/// The last switch.
struct Switched {
    from: String,
    to: String,
    /// As markup.
    told: String,
}

/// One provider.
struct Card {
    name: String,
    model: String,
    state: &'static str,
    words: &'static str,
    reason: Option<&'static str>,
    retry_at: Option<Retry>,
    active: bool,
    first_token: Option<(u64, u64)>,
    spark: Option<Spark>,
    usage: Option<String>,
}

/// When a provider is tried again.
struct Retry {
    at: Moment,
    told: String,
}

/// A provider's speed over the last half hour, as a line.
struct Spark {
    points: String,
    /// The same in words, for who does not see it.
    said: String,
}

/// One timeline.
struct Line {
    name: &'static str,
    began: &'static str,
    up: String,
    /// The same in words, for who does not see it.
    said: String,
    bars: Vec<Part>,
}

/// A part of a timeline.
struct Part {
    mode: &'static str,
    title: String,
}

/// One incident.
struct Entry {
    id: String,
    mode: &'static str,
    words: &'static str,
    runs: bool,
    /// As markup.
    when: String,
    cause: String,
}

/// Draws the page; what only the operator may see is on it where the request carries the admin token.
pub async fn page(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    let operator = gate::operator(&request, server).is_ok();
    let view = state.lobby.status.borrow().clone();
    let report = state.reports.borrow().clone();
    let desk = &state.lobby.desk;
    let now = desk.clock.wall();
    let table = desk.table();
    let words = Words::wanted(&request);
    let since = Moment::of(view.since).html();
    let page = StatusPage {
        title: &settings.chat.title,
        demo: settings.demo,
        version: env!("CARGO_PKG_VERSION"),
        words,
        mode: mode_name(view.mode),
        headline: fill(headline(words, view.mode), &[("since", &since)]),
        incident: view.incident.clone(),
        since: fill(words.since, &[("since", &since)]),
        as_of: fill(words.as_of, &[("at", &Moment::of(now).html())]),
        now: Moment::of(now),
        switched: switched(words, &report),
        providers: (table.backends.iter())
            .map(|one| card(words, one, view.active.as_deref(), report.trends.get(&one.name), now, operator))
            .collect(),
        timelines: vec![
            line(words, (words.day, words.day_ago), &report, now, DAY),
            line(words, (words.month, words.month_ago), &report, now, MONTH),
        ],
        incidents: report.incidents.iter().take(SHOWN_INCIDENTS).map(|one| entry(words, one, now)).collect(),
        problems: problems(&state),
        operator,
        orders: server.admin_token.is_some(),
    };
    html(&page, &state)
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Normal => "normal",
        Mode::Degraded => "degraded",
        Mode::Outage => "outage",
    }
}

const fn headline(words: &Words, mode: Mode) -> &'static str {
    match mode {
        Mode::Normal => words.normal,
        Mode::Degraded => words.degraded,
        Mode::Outage => words.outage,
    }
}

fn switched(words: &Words, report: &Report) -> Option<Switched> {
    let switch = report.switched.as_ref()?;
    let name = |one: &Option<std::sync::Arc<str>>| one.as_deref().unwrap_or(words.nobody).to_owned();
    let why = match (switch.reason, &switch.from) {
        (Some(reason), _) => reason,
        (None, None) => "it can be asked again",
        (None, Some(_)) => "it is preferred",
    };
    let (from, to, at) = (name(&switch.from), name(&switch.to), Moment::of(switch.at).html());
    let [shown_from, shown_to] = [&from, &to].map(|name| isolated(name));
    let values = [("at", &*at), ("from", &*shown_from), ("to", &*shown_to), ("why", words.said(why))];
    Some(Switched { told: fill(words.switch, &values), from, to })
}

/// A name as markup, so that it runs in its own direction whatever is around it.
fn isolated(name: &str) -> String {
    let safe = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<bdi>{safe}</bdi>")
}

fn card(
    words: &Words,
    backend: &Backend,
    active: Option<&str>,
    trend: Option<&Trend>,
    now: At,
    operator: bool,
) -> Card {
    let vitals = backend.vitals.borrow().clone();
    let waits = vitals.waits_until().filter(|at| *at > now);
    let (state, told) = match vitals.state {
        ProviderState::Closed => ("closed", if waits.is_some() { words.waits } else { words.working }),
        ProviderState::HalfOpen => ("half_open", words.trying),
        ProviderState::Open => ("open", words.failing),
        ProviderState::Blocked => ("blocked", words.blocked),
        ProviderState::Disabled => ("disabled", words.off),
    };
    let retry = |at| {
        let at = Moment::of(at);
        Retry { told: fill(words.again_at, &[("at", &at.shown)]), at }
    };
    let troubled = !vitals.can_be_asked(now) && vitals.state != ProviderState::Disabled;
    Card {
        name: backend.name.to_string(),
        model: backend.model.to_string(),
        state,
        words: told,
        reason: vitals.words(now).filter(|_| troubled).map(|phrase| words.said(phrase)),
        retry_at: waits.filter(|_| troubled).map(retry),
        active: active == Some(&*backend.name),
        first_token: vitals.first_token.map(|latency| (latency.p50, latency.p95)),
        spark: trend.and_then(|trend| spark(words, trend)),
        usage: operator.then(|| usage(&vitals)),
    }
}

fn usage(vitals: &Vitals) -> String {
    let used = vitals.used;
    let about = if used.estimated || vitals.spent.estimated { "about " } else { "" };
    format!(
        "{} tokens in, {} out, {about}${:.4} since the start; {about}${:.4} today",
        used.input_tokens, used.output_tokens, used.cost_usd, vitals.spent.usd
    )
}

/// A line of a hundred by twenty-four, for what is known; none where there is too little.
fn spark(words: &Words, trend: &Trend) -> Option<Spark> {
    let known: Vec<(usize, u64)> =
        trend.points.iter().enumerate().filter_map(|(at, point)| Some((at, (*point)?))).collect();
    let most = known.iter().map(|(_, ms)| *ms).max()?;
    let width = trend.points.len().saturating_sub(1).max(1);
    let place = |(at, ms): &(usize, u64)| {
        let x = at * 100 / width;
        let y = 23 - ms * 22 / most.max(1);
        format!("{x},{y}")
    };
    let points: Vec<_> = known.iter().map(place).collect();
    let said = fill(words.line, &[("most", &most.to_string())]);
    (points.len() > 1).then(|| Spark { points: points.join(" "), said })
}

fn line(
    words: &Words,
    (name, began): (&'static str, &'static str),
    report: &Report,
    now: At,
    (count, each): (u64, Duration),
) -> Line {
    let timeline = uptime::timeline(report.incidents.iter(), report.life, now, each, count);
    let up = timeline.up.map_or_else(|| words.unknown.to_owned(), |up| format!("{:.2} %", floor(up)));
    let with = |mode| timeline.bars.iter().filter(|bar| bar.mode == Some(mode)).count().to_string();
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
    Line { name, began, up, said, bars: timeline.bars.iter().map(|bar| part(words, bar)).collect() }
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
            let told = [(bar.outage, words.no_ai_for), (bar.degraded, words.backup_for)].into_iter();
            let told = told.filter(|(time, _)| !time.is_zero());
            let told: Vec<_> =
                told.map(|(time, what)| fill(what, &[("length", &length(words, time))])).collect();
            (mode_name(mode), told.join(", "))
        }
    };
    Part { mode, title: format!("{when}: {what}") }
}

fn entry(words: &Words, incident: &Incident, now: At) -> Entry {
    let lasted = length(words, incident.ended.unwrap_or(now).since(incident.started));
    let [from, to] = [incident.started, incident.ended.unwrap_or(now)].map(|at| Moment::of(at).html());
    let told = if incident.ended.is_some() { words.ended } else { words.running };
    Entry {
        id: incident.id.clone(),
        mode: mode_name(incident.mode),
        words: if incident.mode == Mode::Outage { words.no_ai } else { words.backup },
        runs: incident.ended.is_none(),
        when: fill(told, &[("from", &from), ("to", &to), ("length", &lasted)]),
        cause: words.cause(&incident.cause),
    }
}

/// A length in its two greatest units.
fn length(words: &Words, length: Duration) -> String {
    let seconds = length.as_secs();
    let sizes = [seconds % 60, seconds / 60 % 60, seconds / 3_600 % 24, seconds / 86_400];
    let parts: Vec<_> =
        sizes.into_iter().zip(words.units).rev().skip_while(|(size, _)| *size == 0).take(2).collect();
    let told: Vec<_> = parts
        .into_iter()
        .filter(|(size, _)| *size > 0)
        .map(|(size, unit)| format!("{size} {unit}"))
        .collect();
    if told.is_empty() { format!("0 {}", words.units[0]) } else { told.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_markup() {
        assert_eq!(isolated("a<b>&c"), "<bdi>a&lt;b&gt;&amp;c</bdi>");
    }

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
            assert_eq!(length(Words::english(), Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn a_line_is_drawn_of_what_is_known() {
        let trend = |points: &[Option<u64>]| Trend { points: points.iter().copied().collect() };
        assert!(
            spark(Words::english(), &trend(&[])).is_none()
                && spark(Words::english(), &trend(&[None, Some(5)])).is_none()
        );
        let line = spark(Words::english(), &trend(&[Some(100), None, Some(200), Some(0)])).unwrap();
        assert_eq!(line.points, "0,12 66,1 100,23");
        assert!(line.said.contains("200 ms"), "{}", line.said);
        assert_eq!(spark(Words::english(), &trend(&[Some(0), Some(0)])).unwrap().points, "0,23 100,23");
    }

    #[test]
    fn what_was_not_whole_is_not_shown_as_whole() {
        assert_eq!((floor(1.0), floor(0.99999), floor(0.0)), (100.0, 99.99, 0.0));
    }
}
