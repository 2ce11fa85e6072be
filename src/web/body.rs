//! Reads request bodies, after the access check and within limits on size and time, so that no slow
//! client can hold a connection.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use serde::de::DeserializeOwned;

use super::refusal::refuse;

pub const MOST: usize = 1024 * 1024;

const LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// More than [`MAX_BODY_BYTES`](MOST).
    TooLarge,
    Late,
    /// Cut short, or framed incorrectly.
    Broken,
}

impl Unread {
    pub const fn told(self) -> (u16, &'static str) {
        match self {
            Unread::TooLarge => (413, "the body is larger than 1 MiB"),
            Unread::Late => (408, "the body did not arrive completely in time"),
            Unread::Broken => (
                400,
                "the body is not framed as HTTP requires, or was cut short",
            ),
        }
    }
}

pub async fn read(payload: web::Payload) -> Result<web::Bytes, Unread> {
    match tokio::time::timeout(LIMIT, payload.to_bytes_limited(MOST)).await {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Err(_)) => Err(Unread::TooLarge),
        Ok(Ok(Err(_))) => Err(Unread::Broken),
        Err(_) => Err(Unread::Late),
    }
}

/// Reads a JSON object, whatever the content type says. Fails with the error response to send.
pub async fn json<T: DeserializeOwned>(
    payload: web::Payload,
) -> Result<T, actix_web::HttpResponse> {
    let bytes = read(payload).await.map_err(|error| {
        let (status, message) = error.told();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        refuse(
            status,
            if error == Unread::TooLarge {
                "too_large"
            } else {
                "bad_request"
            },
            message,
        )
    })?;
    let bad_request = |problem: &str| {
        refuse(
            StatusCode::BAD_REQUEST,
            "bad_request",
            &format!("the body is not valid here: {problem}"),
        )
    };
    // By itself serde would also take an array of the fields.
    if bytes
        .trim_ascii_start()
        .first()
        .is_some_and(|byte| *byte != b'{')
    {
        return Err(bad_request("a JSON object is needed"));
    }
    serde_json::from_slice(&bytes).map_err(|error| bad_request(&error.to_string()))
}
