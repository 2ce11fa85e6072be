//! A name for each answer of the programs' API, by which a client's log and ours speak of the same: a turn's own id, else one of this request alone.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web;

use super::State;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names what is no turn's answer, and logs the name for who looks for it.
pub async fn named<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let state = request.app_data::<web::Data<State>>().cloned();
    let mut answer = next.call(request).await?;
    if let Some(state) = state.filter(|_| !answer.headers().contains_key(&REQUEST_ID)) {
        let name = format!("req-{:016x}", (state.lobby.desk.random)());
        tracing::debug!(
            request = name,
            status = answer.status().as_u16(),
            "answered without a turn"
        );
        if let Ok(value) = HeaderValue::from_str(&name) {
            answer.headers_mut().insert(REQUEST_ID.clone(), value);
        }
    }
    Ok(answer)
}
