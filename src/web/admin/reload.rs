//! `POST /admin/reload`: reads the configuration again.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::ops::reload::NotReloaded;
use crate::web::State;
use crate::web::refusal::refuse_until;

/// Tells what has changed, or why nothing has: then each problem with its file, line and key. The operator's log says the same.
pub async fn order(state: web::Data<State>) -> HttpResponse {
    match state.reloads.reload().await {
        Ok(reloaded) => HttpResponse::Ok().json(reloaded),
        Err(NotReloaded::Wrong(problems)) => {
            let message = "the configuration has problems; nothing was changed";
            let error = json!({ "code": "invalid_configuration", "message": message, "problems": problems });
            HttpResponse::build(StatusCode::UNPROCESSABLE_ENTITY).json(json!({ "error": error }))
        }
        Err(NotReloaded::Failed(why)) => {
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", why, 5)
        }
    }
}
