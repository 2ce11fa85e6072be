//! `/admin/drills`: starts, stops and lists outage drills.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::with_subject;
use crate::config::{DrillSettings, InjectedFault, parse_duration};
use crate::ops::drills::StartDrillError;
use crate::provider::fault_injection::DrillSpec;
use crate::web::error::{bad_request, error_response};
use crate::web::{AppState, extract};

#[derive(Deserialize)]
pub struct StartDrill {
    provider: String,
    fault: String,
    r#for: Option<String>,
    share: Option<f64>,
}

#[derive(Deserialize)]
pub struct DrillQuery {
    provider: Option<String>,
}

/// `GET`: the running drills, and the latest reports, newest first.
pub async fn list_drills(state: web::Data<AppState>) -> HttpResponse {
    let running = state.drills.running();
    let reports = state.drills.reports();
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "running": running, "reports": reports }))
}

pub async fn start_drill(body: web::Payload, state: web::Data<AppState>) -> HttpResponse {
    let request: StartDrill = match extract::read_json(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let spec = match parse_spec(&request) {
        Ok(spec) => spec,
        Err(message) => return bad_request(&message),
    };
    match state.drills.start(&request.provider, spec, false) {
        // Both the provider and the fault are known words here, not text from the caller.
        Ok(drill) => {
            let subject = format!("{}: {}", drill.provider, drill.fault);
            with_subject(HttpResponse::Ok().json(drill), subject)
        }
        Err(error) => drill_error(&error),
    }
}

/// `DELETE`: stops the drill of `?provider=`, or all. Responds when their effects are undone.
pub async fn stop_drills(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let Ok(query) = web::Query::<DrillQuery>::from_query(request.query_string()) else {
        return bad_request("provider: the name of one provider; without it all drills end");
    };
    match state.drills.stop(query.provider.as_deref()).await {
        Ok(ended) => {
            let names: Vec<_> = ended.iter().map(|drill| &*drill.provider).collect();
            let response = HttpResponse::Ok().json(json!({ "ended": ended }));
            with_subject(response, names.join(", "))
        }
        Err(error) => drill_error(&error),
    }
}

fn drill_error(error: &StartDrillError) -> HttpResponse {
    let (status, code) = match error {
        StartDrillError::UnknownProvider(_) => (StatusCode::NOT_FOUND, "not_found"),
        StartDrillError::AlreadyRunning(_) | StartDrillError::ProviderDisabled => {
            (StatusCode::CONFLICT, "conflict")
        }
    };
    error_response(status, code, &error.to_string())
}

fn parse_spec(request: &StartDrill) -> Result<DrillSpec, String> {
    let fault: InjectedFault = request
        .fault
        .parse()
        .map_err(|error| format!("fault: {error}"))?;
    let duration = request
        .r#for
        .as_deref()
        .map_or(Ok(DrillSettings::DEFAULT_DURATION), parse_drill_duration)?;
    let share = request.share.unwrap_or(1.0);
    // Written so that it also rejects NaN.
    if !(share > 0.0 && share <= 1.0) {
        return Err("share: a number above 0 and up to 1".to_owned());
    }
    Ok(DrillSpec {
        fault,
        share,
        duration,
    })
}

fn parse_drill_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| format!("for: {error}"))?;
    if duration.is_zero() || duration > DrillSettings::MAX_DURATION {
        return Err("for: a drill lasts longer than zero and at most 15m".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(body: serde_json::Value) -> Result<DrillSpec, String> {
        parse_spec(&serde_json::from_value(body).unwrap())
    }

    #[test]
    fn omitted_fields_have_defaults() {
        let spec = read(json!({ "provider": "a", "fault": "cut" })).unwrap();
        assert_eq!(
            spec,
            DrillSpec {
                fault: InjectedFault::Cut,
                share: 1.0,
                duration: Duration::from_secs(30)
            }
        );
        let spec =
            read(json!({ "provider": "a", "fault": "slow", "for": "15m", "share": 0.5 })).unwrap();
        assert_eq!(
            spec,
            DrillSpec {
                fault: InjectedFault::Slow,
                share: 0.5,
                duration: Duration::from_secs(900)
            }
        );
    }

    #[test]
    fn invalid_fields_are_named() {
        for (field, value, expected) in [
            (
                "fault",
                json!("fire"),
                "fault: \"fire\" is not a fault; use down, rate_limit",
            ),
            (
                "for",
                json!("0s"),
                "for: a drill lasts longer than zero and at most 15m",
            ),
            ("for", json!("15m1s"), "for: "),
            (
                "for",
                json!("901s"),
                "for: a drill lasts longer than zero and at most 15m",
            ),
            ("for", json!("soon"), "for: "),
            ("share", json!(0), "share: a number above 0 and up to 1"),
            ("share", json!(-0.5), "share: "),
            ("share", json!(1.01), "share: "),
        ] {
            let mut body = json!({ "provider": "a", "fault": "down" });
            body[field] = value;
            let message = read(body.clone()).unwrap_err();
            assert!(message.starts_with(expected), "{body}: {message}");
        }
    }
}
