//! `POST /demo/providers/{name}`: breaks and repairs the demo's simulated providers. 404 outside
//! demo mode.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::State;
use super::admin::providers;
use super::body;
use super::gate;
use super::refusal::{not_found, only, refuse};
use crate::provider::actor::Reset;
use crate::settings::{DrillSettings, parse_duration};
use crate::simulator::Fault;

#[derive(Deserialize)]
pub struct Command {
    fault: String,
    r#for: Option<String>,
}

pub async fn command(
    request: HttpRequest,
    name: web::Path<String>,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    if !state.settings().demo {
        return not_found().await;
    }
    if gate::own_page(&request, &state.settings().server).is_err() {
        return refuse(
            StatusCode::FORBIDDEN,
            "forbidden_origin",
            "only the demo's own page may control it",
        );
    }
    let command: Command = match body::json(body).await {
        Ok(command) => command,
        Err(response) => return response,
    };
    let Some(simulator) = state
        .simulators
        .iter()
        .find(|simulator| simulator.name() == name.as_str())
    else {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "no simulated provider has that name",
        );
    };
    let bad_request = |message: &str| refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    let duration = match command.r#for.as_deref().map(length) {
        None => None,
        Some(Ok(duration)) => Some(duration),
        Some(Err(message)) => return bad_request(&message),
    };
    let fault = match command.fault.as_str() {
        "none" => None,
        name => match name.parse::<Fault>() {
            Ok(fault) => Some(fault),
            Err(error) => return bad_request(&format!("{error}; or none, to repair it")),
        },
    };
    match fault {
        Some(fault) => simulator.break_with(fault, duration).await,
        None => {
            simulator.mend().await;
            lift(&state, simulator.name()).await;
        }
    }
    HttpResponse::Ok().json(json!({
        "provider": simulator.name(),
        "fault": simulator.fault().map(|fault| fault.to_string()),
    }))
}

pub async fn wrong_method(state: web::Data<State>) -> HttpResponse {
    if state.settings().demo {
        only("POST")
    } else {
        not_found().await
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| format!("for: {error}"))?;
    let max = DrillSettings::LONGEST;
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
async fn lift(state: &State, name: &str) {
    if let Some(provider) = state.lobby.desk.table().backend(name) {
        providers::tell(provider, Reset).await;
    }
}
