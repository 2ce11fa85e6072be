//! `POST /demo/providers/{name}`: breaks and mends the demo's simulated providers. There is nothing here outside demo mode.

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

/// What to do to a provider.
#[derive(Deserialize)]
pub struct Command {
    fault: String,
    r#for: Option<String>,
}

/// Carries out a command of the demo panel.
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
            "the demo is commanded from its own page",
        );
    }
    let command: Command = match body::json(body).await {
        Ok(command) => command,
        Err(refusal) => return refusal,
    };
    let Some(simulator) = state
        .simulators
        .iter()
        .find(|one| one.name() == name.as_str())
    else {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "no simulated provider has that name",
        );
    };
    let bad = |message: &str| refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    let length = match command.r#for.as_deref().map(length) {
        None => None,
        Some(Ok(length)) => Some(length),
        Some(Err(message)) => return bad(&message),
    };
    let fault = match command.fault.as_str() {
        "none" => None,
        name => match name.parse::<Fault>() {
            Ok(fault) => Some(fault),
            Err(error) => return bad(&format!("{error}; or none, to mend it")),
        },
    };
    match fault {
        Some(fault) => simulator.break_with(fault, length).await,
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

/// Another method than POST.
pub async fn wrong_method(state: web::Data<State>) -> HttpResponse {
    if state.settings().demo {
        only("POST")
    } else {
        not_found().await
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text).map_err(|error| format!("for: {error}"))?;
    let longest = DrillSettings::LONGEST;
    if length.is_zero() || length > longest {
        return Err(format!(
            "for: a fault lasts from a moment to {} minutes",
            longest.as_secs() / 60
        ));
    }
    Ok(length)
}

/// Mending also lifts what the fault left: an open or blocked breaker, a rate limit being waited out. A fault that ends by itself leaves that
/// to the recovery probe.
async fn lift(state: &State, name: &str) {
    if let Some(backend) = state.lobby.desk.table().backend(name) {
        providers::tell(backend, Reset).await;
    }
}
