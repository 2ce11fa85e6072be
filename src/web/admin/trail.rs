//! `GET /admin/audit`: the last of what operators did, and of what was refused to who is none.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::web::State;

/// Those that are kept, the newest first.
pub async fn read(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "entries": state.audit.newest_first() }))
}
