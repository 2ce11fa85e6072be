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
use crate::config::{DrillSettings, InjectedFault, parse_duration};
use crate::provider::actor::ResetBreaker;
use crate::provider::fault_injection::DrillSpec;

/// The duration of a fault that is to last until it is repaired.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 3600);

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
    let config = state.chat.turns.config();
    let Some(provider) = config.provider(&name) else {
        let message = "no simulated provider has that name";
        return error_response(StatusCode::NOT_FOUND, "not_found", message);
    };
    let spec = match parse_spec(&command) {
        Ok(spec) => spec,
        Err(message) => return bad_request(&message),
    };
    let fault = spec.as_ref().map(|spec| spec.fault);
    provider
        .fault_switch
        .set_demo_fault(spec, state.chat.turns.clock.wall());
    if fault.is_none() {
        // Lift what the fault left: an open breaker, a rate limit. A fault that ends by itself
        // leaves this to the recovery probe.
        providers::send_command(provider, ResetBreaker).await;
    }
    HttpResponse::Ok().json(json!({
        "provider": provider.name,
        "fault": fault.map(|fault| fault.to_string()),
    }))
}

pub async fn wrong_method(state: web::Data<AppState>) -> HttpResponse {
    if state.settings().demo {
        method_not_allowed("POST")
    } else {
        not_found().await
    }
}

/// Returns the fault to inject, or `None` to repair the provider.
fn parse_spec(command: &DemoCommand) -> Result<Option<DrillSpec>, String> {
    let duration = match &command.r#for {
        Some(text) => parse_fault_duration(text)?,
        None => UNLIMITED,
    };
    if command.fault == "none" {
        return Ok(None);
    }
    let fault: InjectedFault = (command.fault.parse())
        .map_err(|error| format!("fault: {error}; or none, to repair it"))?;
    Ok(Some(DrillSpec {
        fault,
        share: 1.0,
        duration,
    }))
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
