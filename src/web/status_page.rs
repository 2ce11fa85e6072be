//! `GET /status`: the service's state for people. All of it is drawn here, so that it can be read without scripts; the page's script only asks
//! for it again.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::State;
use super::gate;
use super::history::{Line, Moment, Spark, day, length, mode_name, month, spark};
use super::pages::html;
use super::status::{SHOWN_INCIDENTS, problems};
use super::status_drills::{self, Choice, Running, Told};
use super::words::{Words, fill};
use crate::chat::{At, Incident, Mode, ProviderState};
use crate::ops::report::{Report, Trend};
use crate::ops::status::active;
use crate::provider::backend::{Backend, Vitals};

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
    drills: Vec<Running>,
    providers: Vec<Card>,
    faults: Vec<Choice>,
    told: Vec<Told>,
    timelines: Vec<Line>,
    incidents: Vec<Entry>,
    problems: Vec<String>,
    operator: bool,
    orders: bool,
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
    drill: Option<Running>,
}

/// When a provider is tried again.
struct Retry {
    at: Moment,
    told: String,
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
    let served = state.history.borrow().clone();
    let table = desk.table();
    let next = active(&table, now);
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
        drills: table
            .backends
            .iter()
            .filter_map(|one| drill(words, one))
            .collect(),
        providers: (table.backends.iter())
            .map(|one| {
                card(
                    words,
                    one,
                    next.as_deref(),
                    report.trends.get(&one.name),
                    now,
                    operator,
                )
            })
            .collect(),
        faults: status_drills::choices(),
        told: if operator {
            status_drills::told(&state.drills.reports())
        } else {
            Vec::new()
        },
        timelines: vec![
            day(words, &report, &served, now),
            month(words, &report, &served, now),
        ],
        incidents: report
            .incidents
            .iter()
            .take(SHOWN_INCIDENTS)
            .map(|one| entry(words, one, now))
            .collect(),
        problems: problems(&state),
        operator,
        orders: server.admin_token.is_some(),
    };
    html(&page, &state)
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
    let name =
        |one: &Option<std::sync::Arc<str>>| one.as_deref().unwrap_or(words.nobody).to_owned();
    let why = match (switch.reason, &switch.from) {
        (Some(reason), _) => reason,
        (None, None) => "it can be asked again",
        (None, Some(_)) => "it is preferred",
    };
    let (from, to, at) = (
        name(&switch.from),
        name(&switch.to),
        Moment::of(switch.at).html(),
    );
    let [shown_from, shown_to] = [&from, &to].map(|name| isolated(name));
    let values = [
        ("at", &*at),
        ("from", &*shown_from),
        ("to", &*shown_to),
        ("why", words.said(why)),
    ];
    Some(Switched {
        told: fill(words.switch, &values),
        from,
        to,
    })
}

/// A name as markup, so that it runs in its own direction whatever is around it.
fn isolated(name: &str) -> String {
    let safe = name
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
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
        ProviderState::Closed => (
            "closed",
            if waits.is_some() {
                words.waits
            } else {
                words.working
            },
        ),
        ProviderState::HalfOpen => ("half_open", words.trying),
        ProviderState::Open => ("open", words.failing),
        ProviderState::Blocked => ("blocked", words.blocked),
        ProviderState::Disabled => ("disabled", words.off),
    };
    let retry = |at| {
        let at = Moment::of(at);
        Retry {
            told: fill(words.again_at, &[("at", &at.shown)]),
            at,
        }
    };
    let troubled = !vitals.can_be_asked(now) && vitals.state != ProviderState::Disabled;
    Card {
        name: backend.name.to_string(),
        model: backend.model.to_string(),
        state,
        words: told,
        reason: vitals
            .words(now)
            .filter(|_| troubled)
            .map(|phrase| words.said(phrase)),
        retry_at: waits.filter(|_| troubled).map(retry),
        active: active == Some(&*backend.name),
        first_token: vitals.first_token.map(|latency| (latency.p50, latency.p95)),
        spark: trend.and_then(|trend| spark(words, trend)),
        usage: operator.then(|| usage(&vitals)),
        drill: drill(words, backend),
    }
}

fn drill(words: &Words, backend: &Backend) -> Option<Running> {
    let drill = backend.drills.running()?.view(&backend.name);
    let (name, until) = (isolated(&drill.provider), Moment::of(drill.until).html());
    let values = [
        ("name", &*name),
        ("fault", &*drill.fault),
        ("until", &*until),
    ];
    Some(Running {
        provider: drill.provider.to_string(),
        told: fill(words.drill, &values),
    })
}

fn usage(vitals: &Vitals) -> String {
    let used = vitals.used;
    let about = if used.estimated || vitals.spent.estimated {
        "about "
    } else {
        ""
    };
    format!(
        "{} tokens in, {} out, {about}${:.4} since the start; {about}${:.4} today",
        used.input_tokens, used.output_tokens, used.cost_usd, vitals.spent.usd
    )
}

fn entry(words: &Words, incident: &Incident, now: At) -> Entry {
    let lasted = length(words, incident.ended.unwrap_or(now).since(incident.started));
    let [from, to] =
        [incident.started, incident.ended.unwrap_or(now)].map(|at| Moment::of(at).html());
    let told = if incident.ended.is_some() {
        words.ended
    } else {
        words.running
    };
    Entry {
        id: incident.id.clone(),
        mode: mode_name(incident.mode),
        words: if incident.mode == Mode::Outage {
            words.no_ai
        } else {
            words.backup
        },
        runs: incident.ended.is_none(),
        when: fill(told, &[("from", &from), ("to", &to), ("length", &lasted)]),
        cause: words.cause(&incident.cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_markup() {
        assert_eq!(isolated("a<b>&c"), "<bdi>a&lt;b&gt;&amp;c</bdi>");
    }
}
