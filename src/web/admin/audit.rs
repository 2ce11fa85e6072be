//! `GET /admin/audit`: the latest actions of operators, and denied requests.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::web::AppState;

pub async fn list_audit(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "entries": state.audit_log.recent() }))
}
