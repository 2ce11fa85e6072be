//! `POST /demo/providers/{name}`: breaks and repairs the demo's simulated providers. 404 outside
//! demo mode.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::AppState;
use super::access;
use super::admin::providers;
use super::error::{bad_request, error_response, method_not_allowed, not_found};
use super::extract;
use crate::config::{DrillSettings, parse_duration};
use crate::provider::actor::ResetBreaker;
use crate::simulator::InjectedFault;

#[derive(Deserialize)]
pub struct DemoCommand {
    fault: String,
    r#for: Option<String>,
}

pub async fn handle_command(
    request: HttpRequest,
    name: web::Path<String>,
    body: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    if !state.settings().demo {
        return not_found().await;
    }
    if access::check_own_origin(&request, &state.settings().server).is_err() {
        let message = "only the demo's own page may control it";
        return error_response(StatusCode::FORBIDDEN, "forbidden_origin", message);
    }
    let command: DemoCommand = match extract::read_json(body).await {
        Ok(command) => command,
        Err(response) => return response,
    };
    let mut simulators = state.simulators.iter();
    let Some(simulator) = simulators.find(|simulator| simulator.name() == name.as_str()) else {
        let message = "no simulated provider has that name";
        return error_response(StatusCode::NOT_FOUND, "not_found", message);
    };
    let duration = match command.r#for.as_deref().map(parse_fault_duration) {
        None => None,
        Some(Ok(duration)) => Some(duration),
        Some(Err(message)) => return bad_request(&message),
    };
    let fault = match command.fault.as_str() {
        "none" => None,
        name => match name.parse::<InjectedFault>() {
            Ok(fault) => Some(fault),
            Err(error) => return bad_request(&format!("{error}; or none, to repair it")),
        },
    };
    match fault {
        Some(fault) => simulator.inject_fault(fault, duration).await,
        None => {
            simulator.clear_fault().await;
            reset_breaker(&state, simulator.name()).await;
        }
    }
    HttpResponse::Ok().json(json!({
        "provider": simulator.name(),
        "fault": simulator.current_fault().map(|fault| fault.to_string()),
    }))
}

pub async fn wrong_method(state: web::Data<AppState>) -> HttpResponse {
    if state.settings().demo {
        method_not_allowed("POST")
    } else {
        not_found().await
    }
}

fn parse_fault_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| format!("for: {error}"))?;
    let max = DrillSettings::MAX_DURATION;
    if duration.is_zero() || duration > max {
        return Err(format!(
            "for: a fault lasts longer than zero and at most {} minutes",
            max.as_secs() / 60
        ));
    }
    Ok(duration)
}

/// Closes the provider's breaker and clears its rate limit after a repair. A fault that ends by
/// itself leaves this to the recovery probe.
async fn reset_breaker(state: &AppState, name: &str) {
    if let Some(provider) = state.chat.turns.config().provider(name) {
        providers::send_command(provider, ResetBreaker).await;
    }
}
