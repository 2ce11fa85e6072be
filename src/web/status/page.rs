//! `GET /status`: the service's state for people. The page is rendered completely on the server, so
//! that it works without scripts; its script only reloads it.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::drills::{self, DrillReportView, FaultOption, RunningDrillView};
use super::json::{MAX_SHOWN_INCIDENTS, problems};
use super::timeline::{
    DisplayTime, Sparkline, TimelineRow, day_timeline, format_duration, mode_name, month_timeline,
    sparkline,
};
use crate::domain::{Incident, ProviderState, ServiceMode, Timestamp};
use crate::ops::status::{LatencyTrend, StatusHistory, next_provider};
use crate::provider::handle::Provider;
use crate::provider::status::ProviderStatus;
use crate::web::AppState;
use crate::web::access;
use crate::web::locales::{Locale, interpolate};
use crate::web::pages::render_page;

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage<'a> {
    title: &'a str,
    demo: bool,
    version: &'a str,
    words: &'static Locale,
    mode: &'static str,
    headline_html: String,
    incident: Option<String>,
    since_html: String,
    as_of_html: String,
    now: DisplayTime,
    switched: Option<ProviderSwitch>,
    drills: Vec<RunningDrillView>,
    providers: Vec<ProviderCard>,
    faults: Vec<FaultOption>,
    drill_reports: Vec<DrillReportView>,
    timelines: Vec<TimelineRow>,
    incidents: Vec<IncidentRow>,
    problems: Vec<String>,
    is_operator: bool,
    /// An admin token is configured, so the page offers to enter it.
    has_admin_token: bool,
}

/// The last change of the active provider.
struct ProviderSwitch {
    from: String,
    to: String,
    html: String,
}

struct ProviderCard {
    name: String,
    model: String,
    state: &'static str,
    state_label: &'static str,
    reason: Option<&'static str>,
    retry_at: Option<RetryTime>,
    is_active: bool,
    first_token: Option<(u64, u64)>,
    spark: Option<Sparkline>,
    usage: Option<String>,
    drill: Option<RunningDrillView>,
}

struct RetryTime {
    at: DisplayTime,
    text: String,
}

struct IncidentRow {
    id: String,
    mode: &'static str,
    mode_label: &'static str,
    is_running: bool,
    when_html: String,
    cause: String,
}

/// Renders the page. Requests with the admin token get what only the operator may see.
pub async fn status_page(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    let is_operator = access::check_admin(&request, server).is_ok();
    let view = state.chat.status.borrow().clone();
    let report = state.status_history.borrow().clone();
    let turns = &state.chat.turns;
    let now = turns.clock.wall();
    let served = state.hourly_history.borrow().clone();
    let table = turns.config();
    let next = next_provider(&table, now);
    let words = Locale::negotiate(&request);
    let since = DisplayTime::new(view.since).html();
    let page = StatusPage {
        title: &settings.chat.title,
        demo: settings.demo,
        version: env!("CARGO_PKG_VERSION"),
        words,
        mode: mode_name(view.mode),
        headline_html: interpolate(headline(words, view.mode), &[("since", &since)]),
        incident: view.incident.clone(),
        since_html: interpolate(words.since, &[("since", &since)]),
        as_of_html: interpolate(words.as_of, &[("at", &DisplayTime::new(now).html())]),
        now: DisplayTime::new(now),
        switched: provider_switch(words, &report),
        drills: table
            .providers
            .iter()
            .filter_map(|provider| running_drill(words, provider))
            .collect(),
        providers: (table.providers.iter())
            .map(|provider| {
                provider_card(
                    words,
                    provider,
                    next.as_deref(),
                    report.latency_trends.get(&provider.name),
                    now,
                    is_operator,
                )
            })
            .collect(),
        faults: drills::fault_options(),
        drill_reports: if is_operator {
            drills::report_views(&state.drills.reports())
        } else {
            Vec::new()
        },
        timelines: vec![
            day_timeline(words, &report, &served, now),
            month_timeline(words, &report, &served, now),
        ],
        incidents: report
            .incidents
            .iter()
            .take(MAX_SHOWN_INCIDENTS)
            .map(|incident| incident_row(words, incident, now))
            .collect(),
        problems: problems(&state),
        is_operator,
        has_admin_token: server.admin_token.is_some(),
    };
    render_page(&page, &state)
}

const fn headline(words: &Locale, mode: ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Normal => words.normal,
        ServiceMode::Degraded => words.degraded,
        ServiceMode::Outage => words.outage,
    }
}

fn provider_switch(words: &Locale, report: &StatusHistory) -> Option<ProviderSwitch> {
    let switch = report.last_provider_change.as_ref()?;
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
    let at = DisplayTime::new(switch.at).html();
    let [from_html, to_html] = [&from, &to].map(|name| isolate_name(name));
    let values = [
        ("at", &*at),
        ("from", &*from_html),
        ("to", &*to_html),
        ("why", words.translate(reason)),
    ];
    Some(ProviderSwitch {
        html: interpolate(words.switch, &values),
        from,
        to,
    })
}

/// Wraps a name in `<bdi>`, so that its writing direction does not affect the text around it.
fn isolate_name(name: &str) -> String {
    let escaped = name
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<bdi>{escaped}</bdi>")
}

fn provider_card(
    words: &Locale,
    provider: &Provider,
    active: Option<&str>,
    trend: Option<&LatencyTrend>,
    now: Timestamp,
    is_operator: bool,
) -> ProviderCard {
    let status = provider.status.borrow().clone();
    let waits_until = status.unavailable_until().filter(|at| *at > now);
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
        let at = DisplayTime::new(at);
        RetryTime {
            text: interpolate(words.again_at, &[("at", &at.shown)]),
            at,
        }
    };
    let has_trouble = !status.is_available(now) && status.state != ProviderState::Disabled;
    ProviderCard {
        name: provider.name.to_string(),
        model: provider.model.to_string(),
        state,
        state_label,
        reason: status
            .describe(now)
            .filter(|_| has_trouble)
            .map(|phrase| words.translate(phrase)),
        retry_at: waits_until.filter(|_| has_trouble).map(retry),
        is_active: active == Some(&*provider.name),
        first_token: status
            .first_token_latency
            .map(|latency| (latency.p50, latency.p95)),
        spark: trend.and_then(|trend| sparkline(words, trend)),
        usage: is_operator.then(|| describe_usage(&status)),
        drill: running_drill(words, provider),
    }
}

fn running_drill(words: &Locale, provider: &Provider) -> Option<RunningDrillView> {
    let drill = provider.fault_switch.active()?.view(&provider.name);
    let name = isolate_name(&drill.provider);
    let until = DisplayTime::new(drill.until).html();
    let values = [
        ("name", &*name),
        ("fault", &*drill.fault),
        ("until", &*until),
    ];
    Some(RunningDrillView {
        provider: drill.provider.to_string(),
        html: interpolate(words.drill, &values),
    })
}

fn describe_usage(status: &ProviderStatus) -> String {
    let used = status.usage_totals;
    let prefix = if used.estimated || status.spend_today.estimated {
        "about "
    } else {
        ""
    };
    format!(
        "{} tokens in, {} out, {prefix}${:.4} since the start; {prefix}${:.4} today",
        used.input_tokens, used.output_tokens, used.cost_usd, status.spend_today.usd
    )
}

fn incident_row(words: &Locale, incident: &Incident, now: Timestamp) -> IncidentRow {
    let duration = format_duration(words, incident.ended.unwrap_or(now).since(incident.started));
    let [from, to] =
        [incident.started, incident.ended.unwrap_or(now)].map(|at| DisplayTime::new(at).html());
    let text = if incident.ended.is_some() {
        words.ended
    } else {
        words.running
    };
    IncidentRow {
        id: incident.id.clone(),
        mode: mode_name(incident.mode),
        mode_label: if incident.mode == ServiceMode::Outage {
            words.no_ai
        } else {
            words.backup
        },
        is_running: incident.ended.is_none(),
        when_html: interpolate(text, &[("from", &from), ("to", &to), ("length", &duration)]),
        cause: words.translate_cause(&incident.cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(isolate_name("a<b>&c"), "<bdi>a&lt;b&gt;&amp;c</bdi>");
    }
}
