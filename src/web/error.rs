//! JSON errors: short, with advice for the caller and no internals.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

pub fn error_response(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((WWW_AUTHENTICATE, "Bearer"));
    }
    response.json(json!({ "error": { "code": code, "message": message } }))
}

pub fn bad_request(message: &str) -> HttpResponse {
    error_response(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// 503: the caller may repeat the request after some seconds.
pub fn busy(message: &str, seconds: u64) -> HttpResponse {
    error_with_retry_after(StatusCode::SERVICE_UNAVAILABLE, "busy", message, seconds)
}

pub fn error_with_retry_after(
    status: StatusCode,
    code: &str,
    message: &str,
    seconds: u64,
) -> HttpResponse {
    let mut response = error_response(status, code, message);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

pub fn method_not_allowed(allowed: &'static str) -> HttpResponse {
    let message = format!("use {allowed} for this address");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = error_response(status, "method_not_allowed", &message);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

pub async fn not_found() -> HttpResponse {
    error_response(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}
