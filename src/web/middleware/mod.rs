//! Middleware around every handler: panics, header size, request ids.

pub(crate) mod catch_panic;
pub(crate) mod headers;

use actix_web::HttpResponse;
use actix_web::http::{ConnectionType, StatusCode};

use super::{error, openai};

/// An error in the shape of the API at `path`. It closes the connection, because the request may
/// have been read only in part.
fn closing_error(path: &str, status: StatusCode, code: &'static str, text: &str) -> HttpResponse {
    let mut response = if path.starts_with("/v1/") {
        openai::error_response(status, code, text)
    } else {
        error::error_response(status, code, text)
    };
    let head = response.head_mut();
    head.set_connection_type(ConnectionType::Close);
    response
}
