//! `GET /embed/origin`: tells the widget why its session did not open, since a browser hides from a
//! page why its WebSocket was refused.

use actix_web::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::AppState;
use super::access;

/// Responds whether the asking page's site may open sessions. Pages of any site may read the
/// response: it reveals only what an attempt would.
pub async fn embed_origin(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let allowed = access::check_own_origin(&request, &state.settings().server).is_ok()
        || access::check_visitor(&request, &state.settings().server).is_ok();
    HttpResponse::Ok()
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "allowed": allowed }))
}
