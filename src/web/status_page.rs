//! `GET /status`: the service's state for people. All of it is drawn here, so that it can be read without scripts; the page's script only asks
//! for it again.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::State;
use super::gate;
use super::pages::html;
use super::status::{SHOWN_INCIDENTS, problems};
use crate::chat::{At, Incident, Mode, ProviderState, StatusView};
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
    mode: &'static str,
    headline: String,
    incident: Option<String>,
    since: Moment,
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
}

/// The last switch.
struct Switched {
    from: String,
    to: String,
    at: Moment,
    why: String,
}

/// One provider.
struct Card {
    name: String,
    model: String,
    state: &'static str,
    words: &'static str,
    reason: Option<&'static str>,
    retry_at: Option<Moment>,
    active: bool,
    first_token: Option<(u64, u64)>,
    spark: Option<Spark>,
    usage: Option<String>,
}

/// A provider's speed over the last half hour, as a line.
struct Spark {
    points: String,
    most: u64,
}

/// One timeline.
struct Line {
    name: &'static str,
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
    started: Moment,
    ended: Option<Moment>,
    length: String,
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
    let page = StatusPage {
        title: &settings.chat.title,
        demo: settings.demo,
        version: env!("CARGO_PKG_VERSION"),
        mode: mode_name(view.mode),
        headline: headline(&view),
        incident: view.incident.clone(),
        since: Moment::of(view.since),
        now: Moment::of(now),
        switched: switched(&report),
        providers: (table.backends.iter())
            .map(|one| card(one, view.active.as_deref(), report.trends.get(&one.name), now, operator))
            .collect(),
        timelines: vec![line("24 hours", &report, now, DAY), line("30 days", &report, now, MONTH)],
        incidents: report.incidents.iter().take(SHOWN_INCIDENTS).map(|one| entry(one, now)).collect(),
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

fn headline(view: &StatusView) -> String {
    match (view.mode, &view.active) {
        (Mode::Normal, _) => "Everything works".to_owned(),
        (Mode::Degraded, Some(backup)) => format!("Answers come from a backup model, {backup}"),
        (Mode::Degraded, None) => "Answers come from a backup model".to_owned(),
        (Mode::Outage, _) => "No AI can answer now; visitors get prepared replies".to_owned(),
    }
}

fn switched(report: &Report) -> Option<Switched> {
    let switch = report.switched.as_ref()?;
    let name = |one: &Option<std::sync::Arc<str>>| one.as_deref().unwrap_or("nobody").to_owned();
    let why = match (switch.reason, &switch.from) {
        (Some(reason), _) => reason.to_owned(),
        (None, None) => "it can be asked again".to_owned(),
        (None, Some(_)) => "it is preferred".to_owned(),
    };
    Some(Switched { from: name(&switch.from), to: name(&switch.to), at: Moment::of(switch.at), why })
}

fn card(backend: &Backend, active: Option<&str>, trend: Option<&Trend>, now: At, operator: bool) -> Card {
    let vitals = backend.vitals.borrow().clone();
    let waits = vitals.waits_until().filter(|at| *at > now);
    let (state, words) = match vitals.state {
        ProviderState::Closed => ("closed", if waits.is_some() { "Asked to wait" } else { "Working" }),
        ProviderState::HalfOpen => ("half_open", "Being tried again"),
        ProviderState::Open => ("open", "Failing, left alone for a while"),
        ProviderState::Blocked => ("blocked", "Blocked until it is mended"),
        ProviderState::Disabled => ("disabled", "Switched off"),
    };
    let troubled = !vitals.can_be_asked(now) && vitals.state != ProviderState::Disabled;
    Card {
        name: backend.name.to_string(),
        model: backend.model.to_string(),
        state,
        words,
        reason: vitals.words(now).filter(|_| troubled),
        retry_at: waits.filter(|_| troubled).map(Moment::of),
        active: active == Some(&*backend.name),
        first_token: vitals.first_token.map(|latency| (latency.p50, latency.p95)),
        spark: trend.and_then(spark),
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
fn spark(trend: &Trend) -> Option<Spark> {
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
    (points.len() > 1).then(|| Spark { points: points.join(" "), most })
}

fn line(name: &'static str, report: &Report, now: At, (count, each): (u64, Duration)) -> Line {
    let timeline = uptime::timeline(report.incidents.iter(), report.life, now, each, count);
    let up = timeline.up.map_or_else(|| "not known yet".to_owned(), |up| format!("{:.2} %", floor(up)));
    let with = |mode| timeline.bars.iter().filter(|bar| bar.mode == Some(mode)).count();
    let said = format!(
        "The last {name} in {count} parts of {}: {} with an outage, {} with a backup model alone.",
        length_words(each),
        with(Mode::Outage),
        with(Mode::Degraded)
    );
    Line { name, up, said, bars: timeline.bars.iter().map(part).collect() }
}

/// In percent, rounded down: what was not whole is not shown as whole.
fn floor(share: f64) -> f64 {
    (share * 10_000.0).floor() / 100.0
}

fn part(bar: &Bar) -> Part {
    let when = format!("{} to {}", Moment::of(bar.from).shown, Moment::of(bar.to).shown);
    let (mode, what) = match bar.mode {
        None => ("unknown", "not known".to_owned()),
        Some(Mode::Normal) => ("normal", "all well".to_owned()),
        Some(mode) => {
            let told = [(bar.outage, "no AI"), (bar.degraded, "backup model")].into_iter();
            let told = told.filter(|(length, _)| !length.is_zero());
            let told: Vec<_> =
                told.map(|(length, what)| format!("{what} for {}", length_words(length))).collect();
            (mode_name(mode), told.join(", "))
        }
    };
    Part { mode, title: format!("{when}: {what}") }
}

fn entry(incident: &Incident, now: At) -> Entry {
    Entry {
        id: incident.id.clone(),
        mode: mode_name(incident.mode),
        words: if incident.mode == Mode::Outage { "No AI" } else { "Backup model" },
        started: Moment::of(incident.started),
        ended: incident.ended.map(Moment::of),
        length: length_words(incident.ended.unwrap_or(now).since(incident.started)),
        cause: incident.cause.clone(),
    }
}

/// A length in its two greatest units.
fn length_words(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, 0) => format!("{minutes} min"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, 0, _) => format!("{hours} h"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, 0, ..) => format!("{days} d"),
        (days, hours, ..) => format!("{days} d {hours} h"),
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
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(length_words(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn a_line_is_drawn_of_what_is_known() {
        let trend = |points: &[Option<u64>]| Trend { points: points.iter().copied().collect() };
        assert!(spark(&trend(&[])).is_none() && spark(&trend(&[None, Some(5)])).is_none());
        let line = spark(&trend(&[Some(100), None, Some(200), Some(0)])).unwrap();
        assert_eq!((line.points.as_str(), line.most), ("0,12 66,1 100,23", 200));
        assert_eq!(spark(&trend(&[Some(0), Some(0)])).unwrap().points, "0,23 100,23");
    }

    #[test]
    fn what_was_not_whole_is_not_shown_as_whole() {
        assert_eq!((floor(1.0), floor(0.99999), floor(0.0)), (100.0, 99.99, 0.0));
    }
}
