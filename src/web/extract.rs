//! Reads request bodies, after the access check and within limits on size and time, so that no slow
//! client can hold a connection.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use serde::de::DeserializeOwned;

use super::error::{bad_request, error_response};

pub const MAX_BODY_BYTES: usize = 1024 * 1024;

const BODY_READ_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More than [`MAX_BODY_BYTES`].
    TooLarge,
    Timeout,
    /// Cut short, or framed incorrectly.
    Malformed,
}

impl BodyError {
    pub const fn status_and_message(self) -> (u16, &'static str) {
        match self {
            BodyError::TooLarge => (413, "the body is larger than 1 MiB"),
            BodyError::Timeout => (408, "the body did not arrive completely in time"),
            BodyError::Malformed => (
                400,
                "the body is not framed as HTTP requires, or was cut short",
            ),
        }
    }
}

pub async fn read_body(payload: web::Payload) -> Result<web::Bytes, BodyError> {
    match tokio::time::timeout(BODY_READ_TIMEOUT, payload.to_bytes_limited(MAX_BODY_BYTES)).await {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Err(_)) => Err(BodyError::TooLarge),
        Ok(Ok(Err(_))) => Err(BodyError::Malformed),
        Err(_) => Err(BodyError::Timeout),
    }
}

/// Reads a JSON object, whatever the content type says. Fails with the error response to send.
pub async fn read_json<T: DeserializeOwned>(
    payload: web::Payload,
) -> Result<T, actix_web::HttpResponse> {
    let bytes = read_body(payload).await.map_err(|error| {
        let (status, message) = error.status_and_message();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let code = match error {
            BodyError::TooLarge => "too_large",
            BodyError::Timeout | BodyError::Malformed => "bad_request",
        };
        error_response(status, code, message)
    })?;
    let invalid = |problem: &str| bad_request(&format!("the body is not valid here: {problem}"));
    // By itself serde would also take an array of the fields.
    let first = bytes.trim_ascii_start().first();
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(invalid("a JSON object is needed"));
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))
}
