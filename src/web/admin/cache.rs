//! `DELETE /admin/cache` removes all cached answers; `POST /admin/cache/warm` asks the configured
//! warm questions now.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::web::AppState;
use crate::web::error::{error_response, error_with_retry_after};

pub async fn clear_cache(state: web::Data<AppState>) -> HttpResponse {
    match state.chat.turns.answer_cache.clear().await {
        Ok(removed) => HttpResponse::Ok().json(json!({ "removed": removed })),
        Err(_) => {
            let message = "the store does not answer; some cached answers may remain, try again";
            error_with_retry_after(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 5)
        }
    }
}

/// Starts asking the warm questions one after the other, at any hour and however fresh their cached
/// answers are. Responds at once with their number.
pub async fn warm_cache(state: web::Data<AppState>) -> HttpResponse {
    let settings = state.settings();
    let bad_request =
        |message| error_response(StatusCode::BAD_REQUEST, "bad_request_request", message);
    if !settings.cache.enabled {
        return bad_request("the answer cache is off; set cache.enabled");
    }
    if settings.cache.warm.is_empty() {
        return bad_request("there are no warm questions; add some to cache.warm");
    }
    state.chat.turns.warm_now.notify_one();
    HttpResponse::Accepted().json(json!({ "questions": settings.cache.warm.len() }))
}
