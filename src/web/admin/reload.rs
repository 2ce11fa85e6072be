//! `POST /admin/reload`: reloads the configuration.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::ops::reload::ReloadError;
use crate::web::AppState;
use crate::web::error::error_with_retry_after;

/// Responds with what changed, or with every problem and its file, line and key. The log has the
/// same.
pub async fn reload_config(state: web::Data<AppState>) -> HttpResponse {
    match state.reloads.reload().await {
        Ok(reloaded) => HttpResponse::Ok().json(reloaded),
        Err(ReloadError::InvalidConfig(problems)) => {
            let message = "the configuration has problems; nothing was changed";
            let error = json!({ "code": "invalid_configuration", "message": message, "problems": problems });
            HttpResponse::build(StatusCode::UNPROCESSABLE_ENTITY).json(json!({ "error": error }))
        }
        Err(ReloadError::Failed(reason)) => {
            error_with_retry_after(StatusCode::SERVICE_UNAVAILABLE, "busy", reason, 5)
        }
    }
}
