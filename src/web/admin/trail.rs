//! `GET /admin/audit`: the latest actions of operators, and denied requests.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::web::State;

pub async fn read(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "entries": state.audit.newest_first() }))
}
