//! Middleware for headers: a limit on their size, and request ids.

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web;

use crate::web::AppState;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum size of the request line and all headers, in bytes. The HTTP library itself allows
/// 128 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The bytes of a header line besides its name and value: a colon, a space and the line break.
const HEADER_LINE_OVERHEAD: usize = 4;

fn header_bytes(request: &ServiceRequest) -> usize {
    let line =
        request.method().as_str().len() + request.path().len() + request.query_string().len();
    let headers = request.headers().iter();
    headers
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_LINE_OVERHEAD)
        .fold(line, usize::saturating_add)
}

/// Rejects larger headers with 431 (RFC 6585, section 5) before any other check, and closes the
/// connection.
pub async fn limit_headers<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, actix_web::Error> {
    if header_bytes(&request) <= MAX_HEAD_BYTES {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let message = "the request's headers are too large: at most 16 KiB in all";
    let response = super::closing_error(request.path(), status, "headers_too_large", message);
    Ok(request.into_response(response).map_into_right_body())
}

/// Adds a random `X-Request-Id` to responses without one, so that the logs of client and service can
/// be matched. The response of a turn has the id of the turn.
pub async fn assign_request_id<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let state = request.app_data::<web::Data<AppState>>().cloned();
    let mut response = next.call(request).await?;
    if let Some(state) = state.filter(|_| !response.headers().contains_key(&REQUEST_ID)) {
        let id = format!("req-{:016x}", (state.chat.turns.random_u64)());
        tracing::debug!(
            request = id,
            status = response.status().as_u16(),
            "answered without a turn"
        );
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID.clone(), value);
        }
    }
    Ok(response)
}
