//! The service's state for programs: liveness, readiness and `status.json`.

use std::sync::atomic::Ordering;

use actix_web::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::State;
use super::gate;
use super::refusal::refuse_until;
use crate::chat::At;
use crate::ops::status::{active, drills};
use crate::ops::{history, uptime};
use crate::provider::backend::{Backend, Latency};
use crate::turn::desk::Phase;

pub(super) const SHOWN_INCIDENTS: usize = 50;

/// `GET /healthz`: the process is alive.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// `GET /readyz`: the service accepts new messages.
pub async fn ready(state: web::Data<State>) -> HttpResponse {
    let status = actix_web::http::StatusCode::SERVICE_UNAVAILABLE;
    if *state.lobby.desk.phase.borrow() != Phase::Open {
        return refuse_until(status, "shutting_down", "the service is going down", 5);
    }
    if !*state.steady.borrow() {
        return refuse_until(
            status,
            "unsteady",
            "a part of the service fails again and again",
            5,
        );
    }
    HttpResponse::Ok().json(json!({ "status": "ready" }))
}

/// `GET /status.json`. With the admin token it includes the cost of each provider.
pub async fn json(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .json(whole(
            &state,
            gate::operator(&request, &state.settings().server).is_ok(),
        ))
}

fn whole(state: &State, is_operator: bool) -> Value {
    let view = state.lobby.status.borrow().clone();
    let turns = &state.lobby.desk;
    let table = turns.table();
    let now = turns.clock.wall();
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    json!({
        "mode": view.mode,
        "since": view.since,
        "incident": view.incident,
        "message": view.message,
        // Computed from the providers below; `view` lags behind them by a moment.
        "active": active(&table, now),
        "version": env!("CARGO_PKG_VERSION"),
        "instance": &*state.instance,
        "uptime_s": state.started.elapsed().as_secs(),
        // The same for drills.
        "drill": drills(&table.backends).first(),
        "answers": {
            "total": count(&turns.counts.ended),
            "ai": count(&turns.counts.ai),
            "degraded": count(&turns.counts.degraded),
            "availability": turns.counts.availability(),
        },
        "availability": availability(state, now, is_operator),
        "providers": table
            .backends
            .iter()
            .map(|configured| provider(configured, now, is_operator))
            .collect::<Vec<_>>(),
        "incidents": state.reports.borrow().incidents.iter().take(SHOWN_INCIDENTS).collect::<Vec<_>>(),
        "problems": problems(state),
    })
}

/// The last day and the last month: the shares of messages that got any answer and an AI's, the
/// share of time in which an AI was available, and the underlying counts.
fn availability(state: &State, now: At, is_operator: bool) -> Value {
    let history = state.history.borrow();
    let report = state.reports.borrow();
    let period = |hours: u64| {
        let sum = history.last(hours, now);
        let mut json = json!({
            "answers": sum.answered(),
            "ai": sum.by_ai(),
            "ai_time": uptime::share(report.incidents.iter(), report.life, now, hours),
            "counts": { "total": sum.total(), "ai": sum.ai, "degraded": sum.degraded, "lost": sum.lost },
            "reasons": sum.reasons,
        });
        if let Some(fields) = json.as_object_mut().filter(|_| is_operator) {
            fields.insert("cost_usd".into(), sum.cost_usd.into());
        }
        json
    };
    json!({ "24h": period(history::DAY), "30d": period(history::MONTH) })
}

fn provider(provider: &Backend, now: At, is_operator: bool) -> Value {
    let status = provider.vitals.borrow().clone();
    let latency = |latency: Option<Latency>| {
        json!({
            "p50": latency.map(|percentiles| percentiles.p50),
            "p95": latency.map(|percentiles| percentiles.p95),
            "p99": latency.map(|percentiles| percentiles.p99),
        })
    };
    let used = status.used;
    let usage = is_operator.then(|| {
        json!({
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "cost_usd": used.cost_usd,
        })
    });
    let mut json = json!({
        "name": provider.name,
        "model": provider.model,
        "dialect": provider.dialect,
        "state": status.state,
        "healthy": status.healthy(now),
        "reason": status.why(now),
        // The status is published on changes, and the end of a wait is not one.
        "retry_at": status.waits_until().filter(|at| *at > now),
        "in_flight": status.in_flight,
        "latency_ms": { "first_token": latency(status.first_token), "total": latency(status.total) },
        "counts": {
            "success": status.successes,
            "failure": status.failures,
            "restarts": status.restarts,
        },
        "checked_at": status.checked_at,
        "drill": provider.drills.running().map(|drill| drill.view(&provider.name)),
    });
    if let (Some(usage), Some(fields)) = (usage, json.as_object_mut()) {
        fields.insert("usage".into(), usage);
    }
    json
}

/// Returns the problems that an operator should look at, as sentences without file paths.
pub(super) fn problems(state: &State) -> Vec<String> {
    let mut problems = state.problems.to_vec();
    problems.extend(state.lobby.desk.store.problem().map(str::to_owned));
    if !*state.lobby.desk.durable.borrow() {
        problems.push(
            "The store does not confirm writes in time; messages may not survive a crash.".into(),
        );
    }
    let now = state.lobby.desk.clock.wall();
    let is_over_budget =
        |provider: &&std::sync::Arc<Backend>| provider.vitals.borrow().is_over_budget(now);
    let table = state.lobby.desk.table();
    let over_budget = table.backends.iter().filter(is_over_budget);
    problems.extend(over_budget.map(|provider| {
        format!(
            "Provider {} has spent its budget for today; it is skipped until midnight UTC.",
            provider.name
        )
    }));
    problems.extend(state.degradation.sentences());
    problems.extend(state.alerts.problems());
    problems.extend(state.drills.problems());
    problems
}
