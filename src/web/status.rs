//! The service's state for programs: alive, ready, and all of it as JSON.

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

/// The incidents that are told, the newest first.
pub(super) const SHOWN_INCIDENTS: usize = 50;

/// `GET /healthz`: the process lives.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// `GET /readyz`: it takes new work.
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

/// `GET /status.json`; with the admin token also what each provider cost.
pub async fn json(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .json(whole(
            &state,
            gate::operator(&request, &state.settings().server).is_ok(),
        ))
}

fn whole(state: &State, operator: bool) -> Value {
    let view = state.lobby.status.borrow().clone();
    let desk = &state.lobby.desk;
    let (table, now) = (desk.table(), desk.clock.wall());
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    json!({
        "mode": view.mode,
        "since": view.since,
        "incident": view.incident,
        "message": view.message,
        // As the providers below stand now; the page hears of it a moment later.
        "active": active(&table, now),
        "version": env!("CARGO_PKG_VERSION"),
        "instance": &*state.instance,
        "uptime_s": state.started.elapsed().as_secs(),
        // As the providers below say, who are looked at now.
        "drill": drills(&table.backends).first(),
        "answers": {
            "total": count(&desk.counts.ended),
            "ai": count(&desk.counts.ai),
            "degraded": count(&desk.counts.degraded),
            "availability": desk.counts.availability(),
        },
        "availability": availability(state, now, operator),
        "providers": table.backends.iter().map(|backend| provider(backend, now, operator)).collect::<Vec<_>>(),
        "incidents": state.reports.borrow().incidents.iter().take(SHOWN_INCIDENTS).collect::<Vec<_>>(),
        "problems": problems(state),
    })
}

/// What the last day and the last month were like: the shares of messages that got any answer and an AI's, the share of the time in which an AI
/// could be asked, and the counts that these are of.
fn availability(state: &State, now: At, operator: bool) -> Value {
    let (history, report) = (state.history.borrow(), state.reports.borrow());
    let stretch = |hours: u64| {
        let sum = history.last(hours, now);
        let mut told = json!({
            "answers": sum.answered(),
            "ai": sum.by_ai(),
            "ai_time": uptime::share(report.incidents.iter(), report.life, now, hours),
            "counts": { "total": sum.total(), "ai": sum.ai, "degraded": sum.degraded, "lost": sum.lost },
            "reasons": sum.reasons,
        });
        if let Some(told) = told.as_object_mut().filter(|_| operator) {
            told.insert("cost_usd".into(), sum.cost_usd.into());
        }
        told
    };
    json!({ "24h": stretch(history::DAY), "30d": stretch(history::MONTH) })
}

fn provider(backend: &Backend, now: At, operator: bool) -> Value {
    let vitals = backend.vitals.borrow().clone();
    let latency = |latency: Option<Latency>| {
        json!({
            "p50": latency.map(|one| one.p50),
            "p95": latency.map(|one| one.p95),
            "p99": latency.map(|one| one.p99),
        })
    };
    let used = vitals.used;
    let usage = operator.then(|| {
        json!({
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "cost_usd": used.cost_usd,
        })
    });
    let mut told = json!({
        "name": backend.name,
        "model": backend.model,
        "dialect": backend.dialect,
        "state": vitals.state,
        "healthy": vitals.healthy(now),
        "reason": vitals.why(now),
        // Vitals are published on a change, and that a wait is over is none.
        "retry_at": vitals.waits_until().filter(|at| *at > now),
        "in_flight": vitals.in_flight,
        "latency_ms": { "first_token": latency(vitals.first_token), "total": latency(vitals.total) },
        "counts": {
            "success": vitals.successes,
            "failure": vitals.failures,
            "restarts": vitals.restarts,
        },
        "checked_at": vitals.checked_at,
        "drill": backend.drills.running().map(|drill| drill.view(&backend.name)),
    });
    if let (Some(usage), Some(told)) = (usage, told.as_object_mut()) {
        told.insert("usage".into(), usage);
    }
    told
}

/// What an operator should look at, in sentences without paths.
pub(super) fn problems(state: &State) -> Vec<String> {
    let mut problems = state.problems.to_vec();
    problems.extend(state.lobby.desk.store.problem().map(str::to_owned));
    if !*state.lobby.desk.durable.borrow() {
        problems.push(
            "The store does not confirm writes in time; messages may not survive a crash.".into(),
        );
    }
    let now = state.lobby.desk.clock.wall();
    let spent = |one: &&std::sync::Arc<Backend>| one.vitals.borrow().is_over_budget(now);
    let table = state.lobby.desk.table();
    problems.extend(table.backends.iter().filter(spent).map(|one| {
        format!(
            "Provider {} has spent its budget for today; it is passed over until midnight UTC.",
            one.name
        )
    }));
    problems.extend(state.degradation.sentences());
    problems.extend(state.alerts.problems());
    problems.extend(state.drills.problems());
    problems
}
