//! `/admin/drills`: begins and ends outage drills, and tells what came of them.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::about;
use crate::ops::drills::NotBegun;
use crate::provider::drill::Terms;
use crate::settings::{DrillSettings, Fault, parse_duration};
use crate::web::refusal::refuse;
use crate::web::{State, body};

/// The drill that is wanted.
#[derive(Deserialize)]
pub struct Wanted {
    provider: String,
    fault: String,
    r#for: Option<String>,
    share: Option<f64>,
}

/// Whose drill is to end.
#[derive(Deserialize)]
pub struct Whose {
    provider: Option<String>,
}

/// `GET`: the drills that run, and the reports of the last ones, newest first.
pub async fn list(state: web::Data<State>) -> HttpResponse {
    let (running, reports) = (state.drills.running(), state.drills.reports());
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "running": running, "reports": reports }))
}

/// `POST`: begins one.
pub async fn begin(body: web::Payload, state: web::Data<State>) -> HttpResponse {
    let wanted: Wanted = match body::json(body).await {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    let terms = match terms(&wanted) {
        Ok(terms) => terms,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, "bad_request", &message),
    };
    match state.drills.begin(&wanted.provider, terms, false) {
        // The name and the fault are known words by now.
        Ok(drill) => {
            let subject = format!("{}: {}", drill.provider, drill.fault);
            about(HttpResponse::Ok().json(drill), subject)
        }
        Err(error) => refused(&error),
    }
}

/// `DELETE`: ends the drill of `?provider=`, or all; answers when what they left is lifted.
pub async fn end(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let whose = match web::Query::<Whose>::from_query(request.query_string()) {
        Ok(whose) => whose.into_inner(),
        Err(_) => {
            let message = "provider: the name of one provider; without it all drills end";
            return refuse(StatusCode::BAD_REQUEST, "bad_request", message);
        }
    };
    match state.drills.end(whose.provider.as_deref()).await {
        Ok(ended) => {
            let names: Vec<_> = ended.iter().map(|drill| &*drill.provider).collect();
            about(
                HttpResponse::Ok().json(json!({ "ended": ended })),
                names.join(", "),
            )
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &NotBegun) -> HttpResponse {
    let (status, code) = match error {
        NotBegun::NoProvider(_) => (StatusCode::NOT_FOUND, "not_found"),
        NotBegun::Runs(_) | NotBegun::Disabled => (StatusCode::CONFLICT, "conflict"),
    };
    refuse(status, code, &error.to_string())
}

fn terms(wanted: &Wanted) -> Result<Terms, String> {
    let fault: Fault = wanted
        .fault
        .parse()
        .map_err(|error| format!("fault: {error}"))?;
    let lasts = wanted
        .r#for
        .as_deref()
        .map_or(Ok(DrillSettings::USUAL), lasts)?;
    let share = wanted.share.unwrap_or(1.0);
    // What is not a number is not above 0 either.
    if !(share > 0.0 && share <= 1.0) {
        return Err("share: a number above 0 and up to 1".to_owned());
    }
    Ok(Terms {
        fault,
        share,
        lasts,
    })
}

fn lasts(text: &str) -> Result<Duration, String> {
    let lasts = parse_duration(text).map_err(|error| format!("for: {error}"))?;
    if lasts.is_zero() || lasts > DrillSettings::LONGEST {
        return Err("for: a drill lasts longer than zero and at most 15m".to_owned());
    }
    Ok(lasts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(body: serde_json::Value) -> Result<Terms, String> {
        terms(&serde_json::from_value(body).unwrap())
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
        let terms = read(json!({ "provider": "a", "fault": "cut" })).unwrap();
        assert_eq!(
            terms,
            Terms {
                fault: Fault::Cut,
                share: 1.0,
                lasts: Duration::from_secs(30)
            }
        );
        let terms =
            read(json!({ "provider": "a", "fault": "slow", "for": "15m", "share": 0.5 })).unwrap();
        assert_eq!(
            terms,
            Terms {
                fault: Fault::Slow,
                share: 0.5,
                lasts: Duration::from_secs(900)
            }
        );
    }

    #[test]
    fn what_is_impossible_is_said_by_its_name() {
        for (part, value, told) in [
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
            body[part] = value;
            let message = read(body.clone()).unwrap_err();
            assert!(message.starts_with(told), "{body}: {message}");
        }
    }
}
