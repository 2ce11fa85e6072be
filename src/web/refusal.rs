//! Errors over HTTP: short JSON that says what to do, and nothing of the inside.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

/// An error answer in words.
pub fn refuse(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    if status == StatusCode::UNAUTHORIZED {
        answer.insert_header((WWW_AUTHENTICATE, "Bearer"));
    }
    answer.json(json!({ "error": { "code": code, "message": message } }))
}

/// The same, to be tried again after so many seconds.
pub fn refuse_until(status: StatusCode, code: &str, message: &str, seconds: u64) -> HttpResponse {
    let mut answer = refuse(status, code, message);
    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    answer
}

/// A route that takes another method alone.
pub fn only(allowed: &'static str) -> HttpResponse {
    let message = format!("this address takes {allowed} alone");
    let mut answer = refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &message,
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// No such route.
pub async fn not_found() -> HttpResponse {
    refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}
