//! Sets `X-Request-Id` on API responses, so that the logs of client and service can be matched. A
//! turn's response carries the id of the turn; all others get a random id here.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web;

use crate::web::AppState;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Adds a request id to responses without one, and logs it.
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
