//! `DELETE /admin/cache` removes all saved answers; `POST /admin/cache/warm` asks the warm questions now.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::web::State;
use crate::web::refusal::{refuse, refuse_until};

/// Removes all of them.
pub async fn clear(state: web::Data<State>) -> HttpResponse {
    match state.lobby.desk.shelf.clear().await {
        Ok(removed) => HttpResponse::Ok().json(json!({ "removed": removed })),
        Err(_) => {
            let message = "the store does not answer; some saved answers may be left, try again";
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 5)
        }
    }
}

/// Has them asked, one after the other, whatever the hour and however young the saved answers are. Says how many there are; the answers come when they come.
pub async fn warm(state: web::Data<State>) -> HttpResponse {
    let settings = state.settings();
    let bad = |message| refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    if !settings.cache.enabled {
        return bad("answers are not saved here; set cache.enabled");
    }
    if settings.cache.warm.is_empty() {
        return bad("there are no questions to be asked ahead of time; write some into cache.warm");
    }
    state.lobby.desk.warming.notify_one();
    HttpResponse::Accepted().json(json!({ "questions": settings.cache.warm.len() }))
}
