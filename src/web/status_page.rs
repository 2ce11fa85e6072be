//! `GET /status`: the service's state for people. The page is rendered completely on the server, so
//! that it works without scripts; its script only reloads it.

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
    headline_html: String,
    incident: Option<String>,
    since_html: String,
    as_of_html: String,
    now: Moment,
    switched: Option<Switched>,
    drills: Vec<Running>,
    providers: Vec<Card>,
    faults: Vec<Choice>,
    drill_reports: Vec<Told>,
    timelines: Vec<Line>,
    incidents: Vec<Entry>,
    problems: Vec<String>,
    is_operator: bool,
    /// An admin token is configured, so the page offers to enter it.
    has_admin_token: bool,
}

/// The last change of the active provider.
struct Switched {
    from: String,
    to: String,
    html: String,
}

struct Card {
    name: String,
    model: String,
    state: &'static str,
    state_label: &'static str,
    reason: Option<&'static str>,
    retry_at: Option<Retry>,
    is_active: bool,
    first_token: Option<(u64, u64)>,
    spark: Option<Spark>,
    usage: Option<String>,
    drill: Option<Running>,
}

struct Retry {
    at: Moment,
    text: String,
}

struct Entry {
    id: String,
    mode: &'static str,
    mode_label: &'static str,
    is_running: bool,
    when_html: String,
    cause: String,
}

/// Renders the page. Requests with the admin token get what only the operator may see.
pub async fn page(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    let is_operator = gate::operator(&request, server).is_ok();
    let view = state.lobby.status.borrow().clone();
    let report = state.reports.borrow().clone();
    let turns = &state.lobby.desk;
    let now = turns.clock.wall();
    let served = state.history.borrow().clone();
    let table = turns.table();
    let next = active(&table, now);
    let words = Words::wanted(&request);
    let since = Moment::of(view.since).html();
    let page = StatusPage {
        title: &settings.chat.title,
        demo: settings.demo,
        version: env!("CARGO_PKG_VERSION"),
        words,
        mode: mode_name(view.mode),
        headline_html: fill(headline(words, view.mode), &[("since", &since)]),
        incident: view.incident.clone(),
        since_html: fill(words.since, &[("since", &since)]),
        as_of_html: fill(words.as_of, &[("at", &Moment::of(now).html())]),
        now: Moment::of(now),
        switched: switched(words, &report),
        drills: table
            .backends
            .iter()
            .filter_map(|provider| drill(words, provider))
            .collect(),
        providers: (table.backends.iter())
            .map(|provider| {
                card(
                    words,
                    provider,
                    next.as_deref(),
                    report.trends.get(&provider.name),
                    now,
                    is_operator,
                )
            })
            .collect(),
        faults: status_drills::choices(),
        drill_reports: if is_operator {
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
            .map(|incident| entry(words, incident, now))
            .collect(),
        problems: problems(&state),
        is_operator,
        has_admin_token: server.admin_token.is_some(),
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
    let name = |provider: &Option<std::sync::Arc<str>>| {
        provider.as_deref().unwrap_or(words.nobody).to_owned()
    };
    let reason = match (switch.reason, &switch.from) {
        (Some(reason), _) => reason,
        (None, None) => "it is available again",
        (None, Some(_)) => "it is preferred",
    };
    let from = name(&switch.from);
    let to = name(&switch.to);
    let at = Moment::of(switch.at).html();
    let [from_html, to_html] = [&from, &to].map(|name| isolated(name));
    let values = [
        ("at", &*at),
        ("from", &*from_html),
        ("to", &*to_html),
        ("why", words.said(reason)),
    ];
    Some(Switched {
        html: fill(words.switch, &values),
        from,
        to,
    })
}

/// Wraps a name in `<bdi>`, so that its writing direction does not affect the text around it.
fn isolated(name: &str) -> String {
    let escaped = name
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<bdi>{escaped}</bdi>")
}

fn card(
    words: &Words,
    provider: &Backend,
    active: Option<&str>,
    trend: Option<&Trend>,
    now: At,
    is_operator: bool,
) -> Card {
    let status = provider.vitals.borrow().clone();
    let waits_until = status.waits_until().filter(|at| *at > now);
    let (state, state_label) = match status.state {
        ProviderState::Closed => (
            "closed",
            if waits_until.is_some() {
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
            text: fill(words.again_at, &[("at", &at.shown)]),
            at,
        }
    };
    let has_trouble = !status.can_be_asked(now) && status.state != ProviderState::Disabled;
    Card {
        name: provider.name.to_string(),
        model: provider.model.to_string(),
        state,
        state_label,
        reason: status
            .words(now)
            .filter(|_| has_trouble)
            .map(|phrase| words.said(phrase)),
        retry_at: waits_until.filter(|_| has_trouble).map(retry),
        is_active: active == Some(&*provider.name),
        first_token: status.first_token.map(|latency| (latency.p50, latency.p95)),
        spark: trend.and_then(|trend| spark(words, trend)),
        usage: is_operator.then(|| usage(&status)),
        drill: drill(words, provider),
    }
}

fn drill(words: &Words, provider: &Backend) -> Option<Running> {
    let drill = provider.drills.running()?.view(&provider.name);
    let name = isolated(&drill.provider);
    let until = Moment::of(drill.until).html();
    let values = [
        ("name", &*name),
        ("fault", &*drill.fault),
        ("until", &*until),
    ];
    Some(Running {
        provider: drill.provider.to_string(),
        html: fill(words.drill, &values),
    })
}

fn usage(status: &Vitals) -> String {
    let used = status.used;
    let prefix = if used.estimated || status.spent.estimated {
        "about "
    } else {
        ""
    };
    format!(
        "{} tokens in, {} out, {prefix}${:.4} since the start; {prefix}${:.4} today",
        used.input_tokens, used.output_tokens, used.cost_usd, status.spent.usd
    )
}

fn entry(words: &Words, incident: &Incident, now: At) -> Entry {
    let duration = length(words, incident.ended.unwrap_or(now).since(incident.started));
    let [from, to] =
        [incident.started, incident.ended.unwrap_or(now)].map(|at| Moment::of(at).html());
    let text = if incident.ended.is_some() {
        words.ended
    } else {
        words.running
    };
    Entry {
        id: incident.id.clone(),
        mode: mode_name(incident.mode),
        mode_label: if incident.mode == Mode::Outage {
            words.no_ai
        } else {
            words.backup
        },
        is_running: incident.ended.is_none(),
        when_html: fill(text, &[("from", &from), ("to", &to), ("length", &duration)]),
        cause: words.cause(&incident.cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(isolated("a<b>&c"), "<bdi>a&lt;b&gt;&amp;c</bdi>");
    }
}
