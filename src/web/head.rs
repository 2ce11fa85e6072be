//! How big a request's head may be.

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::middleware::Next;

use super::openai;
use super::refusal::refuse;

/// The most that the request line and all headers may take, in bytes. The HTTP library takes in up to 128 KiB before it gives up by itself.
const MOST: usize = 16 * 1024;

/// What a header line takes beside its name and value: a colon, a space, the line's end.
const BESIDE: usize = 4;

fn size(request: &ServiceRequest) -> usize {
    let line =
        request.method().as_str().len() + request.path().len() + request.query_string().len();
    let headers = request.headers().iter();
    headers
        .map(|(name, value)| name.as_str().len() + value.len() + BESIDE)
        .fold(line, usize::saturating_add)
}

/// Refuses a head that is too big with 431 (RFC 6585, section 5), before anything of it is looked at, and closes.
pub async fn bounded<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, actix_web::Error> {
    if size(&request) <= MOST {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let (status, code) = (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "headers_too_large",
    );
    let message = "the request's headers are too big: at most 16 KiB in all";
    let mut answer = if request.path().starts_with("/v1/") {
        openai::refuse(status, code, message)
    } else {
        refuse(status, code, message)
    };
    answer.head_mut().set_connection_type(ConnectionType::Close);
    Ok(request.into_response(answer).map_into_right_body())
}
