//! The service's state for programs: liveness, readiness and `status.json`.

use actix_web::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::domain::Timestamp;
use crate::ops::status::{active_drills, next_provider};
use crate::ops::{hourly_history, uptime};
use crate::provider::handle::Provider;
use crate::provider::latency::LatencyPercentiles;
use crate::turn::deps::ShutdownPhase;
use crate::web::AppState;
use crate::web::access;
use crate::web::error::error_with_retry_after;

pub(crate) const MAX_SHOWN_INCIDENTS: usize = 50;

/// `GET /healthz`: the process is alive.
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// `GET /readyz`: the service accepts new messages.
pub async fn readyz(state: web::Data<AppState>) -> HttpResponse {
    let status = actix_web::http::StatusCode::SERVICE_UNAVAILABLE;
    if *state.chat.turns.phase.borrow() != ShutdownPhase::Running {
        return error_with_retry_after(status, "shutting_down", "the service is going down", 5);
    }
    if !*state.is_stable.borrow() {
        return error_with_retry_after(
            status,
            "unsteady",
            "a part of the service fails again and again",
            5,
        );
    }
    HttpResponse::Ok().json(json!({ "status": "ready" }))
}

/// `GET /status.json`. With the admin token it includes the cost of each provider.
pub async fn status_json(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .json(to_json(
            &state,
            access::check_admin(&request, &state.settings().server).is_ok(),
        ))
}

fn to_json(state: &AppState, is_operator: bool) -> Value {
    let view = state.chat.status.borrow().clone();
    let turns = &state.chat.turns;
    let table = turns.config();
    let now = turns.clock.wall();
    let answers = turns.observer.answers();
    json!({
        "mode": view.mode,
        "since": view.since,
        "incident": view.incident,
        "message": view.message,
        // Computed from the providers below; `view` lags behind them by a moment.
        "active": next_provider(&table, now),
        "version": env!("CARGO_PKG_VERSION"),
        "instance": &*state.instance_id,
        "uptime_s": state.started_at.elapsed().as_secs(),
        // The same for drills.
        "drill": active_drills(&table.providers).first(),
        "answers": {
            "total": answers.ended,
            "ai": answers.ai,
            "degraded": answers.degraded,
            "availability": answers.availability(),
        },
        "availability": availability_json(state, now, is_operator),
        "providers": table
            .providers
            .iter()
            .map(|configured| provider_json(configured, now, is_operator))
            .collect::<Vec<_>>(),
        "incidents": state.status_history.borrow().incidents.iter().take(MAX_SHOWN_INCIDENTS).collect::<Vec<_>>(),
        "problems": problems(state),
    })
}

/// The last day and the last month: the shares of messages that got any answer and an AI's, the
/// share of time in which an AI was available, and the underlying counts.
fn availability_json(state: &AppState, now: Timestamp, is_operator: bool) -> Value {
    let history = state.hourly_history.borrow();
    let report = state.status_history.borrow();
    let period = |hours: u64| {
        let sum = history.totals_for_last(hours, now);
        let mut json = json!({
            "answers": sum.answered_ratio(),
            "ai": sum.ai_ratio(),
            "ai_time": uptime::uptime_ratio(report.incidents.iter(), report.lifetime, now, hours),
            "counts": { "total": sum.total(), "ai": sum.ai, "degraded": sum.degraded, "lost": sum.lost },
            "reasons": sum.reasons,
        });
        if let Some(fields) = json.as_object_mut().filter(|_| is_operator) {
            fields.insert("cost_usd".into(), sum.cost_usd.into());
        }
        json
    };
    json!({ "24h": period(hourly_history::HOURS_PER_DAY), "30d": period(hourly_history::HOURS_PER_MONTH) })
}

fn provider_json(provider: &Provider, now: Timestamp, is_operator: bool) -> Value {
    let status = provider.status.borrow().clone();
    let latency = |latency: Option<LatencyPercentiles>| {
        json!({
            "p50": latency.map(|percentiles| percentiles.p50),
            "p95": latency.map(|percentiles| percentiles.p95),
            "p99": latency.map(|percentiles| percentiles.p99),
        })
    };
    let used = status.usage_totals;
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
        "healthy": status.is_healthy(now),
        "reason": status.reason(now),
        // The status is published on changes, and the end of a wait is not one.
        "retry_at": status.unavailable_until().filter(|at| *at > now),
        "in_flight": status.in_flight,
        "latency_ms": { "first_token": latency(status.first_token_latency), "total": latency(status.total_latency) },
        "counts": {
            "success": status.successes,
            "failure": status.failures,
            "restarts": status.broken_streams,
        },
        "checked_at": status.last_heard_at,
        "drill": provider.fault_switch.active().map(|drill| drill.view(&provider.name)),
    });
    if let (Some(usage), Some(fields)) = (usage, json.as_object_mut()) {
        fields.insert("usage".into(), usage);
    }
    json
}

/// Returns the problems that an operator should look at, as sentences without file paths.
pub(crate) fn problems(state: &AppState) -> Vec<String> {
    let mut problems = state.startup_problems.to_vec();
    problems.extend(state.chat.turns.store.problem().map(str::to_owned));
    if !*state.chat.turns.store_healthy.borrow() {
        problems.push(
            "The store does not confirm writes in time; messages may not survive a crash.".into(),
        );
    }
    let now = state.chat.turns.clock.wall();
    let is_over_budget =
        |provider: &&std::sync::Arc<Provider>| provider.status.borrow().is_over_budget(now);
    let table = state.chat.turns.config();
    let over_budget = table.providers.iter().filter(is_over_budget);
    problems.extend(over_budget.map(|provider| {
        format!(
            "Provider {} has spent its budget for today; it is skipped until midnight UTC.",
            provider.name
        )
    }));
    problems.extend(state.fallback_health.problem_messages());
    problems.extend(state.alerts.problems());
    problems.extend(state.drills.problems());
    problems
}
