//! Errors over HTTP: short JSON that says what to do, and nothing of the inside.

use actix_web::error::{Error, InternalError, JsonPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse};
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

/// A body that is not the JSON that was asked for.
pub fn bad_json(error: JsonPayloadError, _: &HttpRequest) -> Error {
    let (status, code) = match &error {
        JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
        }
        JsonPayloadError::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request"),
        _ => (StatusCode::BAD_REQUEST, "bad_request"),
    };
    let message = match &error {
        JsonPayloadError::ContentType => "send the body as application/json".to_owned(),
        JsonPayloadError::Deserialize(error) => format!("the body is not what is asked for: {error}"),
        other => other.to_string(),
    };
    InternalError::from_response(error, refuse(status, code, &message)).into()
}

/// No such route.
pub async fn not_found() -> HttpResponse {
    refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}
