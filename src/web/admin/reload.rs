//! `POST /admin/reload`: reloads the configuration.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::ops::reload::NotReloaded;
use crate::web::State;
use crate::web::refusal::refuse_until;

/// Responds with what changed, or with every problem and its file, line and key. The log has the
/// same.
pub async fn order(state: web::Data<State>) -> HttpResponse {
    match state.reloads.reload().await {
        Ok(reloaded) => HttpResponse::Ok().json(reloaded),
        Err(NotReloaded::Wrong(problems)) => {
            let message = "the configuration has problems; nothing was changed";
            let error = json!({ "code": "invalid_configuration", "message": message, "problems": problems });
            HttpResponse::build(StatusCode::UNPROCESSABLE_ENTITY).json(json!({ "error": error }))
        }
        Err(NotReloaded::Failed(reason)) => {
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", reason, 5)
        }
    }
}
