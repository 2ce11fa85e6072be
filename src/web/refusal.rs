//! JSON errors: short, with advice for the caller and no internals.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

pub fn refuse(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((WWW_AUTHENTICATE, "Bearer"));
    }
    response.json(json!({ "error": { "code": code, "message": message } }))
}

pub fn refuse_until(status: StatusCode, code: &str, message: &str, seconds: u64) -> HttpResponse {
    let mut response = refuse(status, code, message);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

pub fn only(allowed: &'static str) -> HttpResponse {
    let message = format!("use {allowed} for this address");
    let mut response = refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &message,
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

pub async fn not_found() -> HttpResponse {
    refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}
