//! Reading a request's body, after it is known who sends it: bounded in bytes and in time, so that nobody holds a connection with a slow one.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use serde::de::DeserializeOwned;

use super::refusal::refuse;

/// The biggest body that is read.
pub const MOST: usize = 1024 * 1024;

/// How long a body may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// More than [`MOST`].
    TooLarge,
    /// Slower than the limit.
    Late,
    /// Cut short, or not framed as HTTP says.
    Broken,
}

impl Unread {
    /// The status and the sentence for it.
    pub const fn told(self) -> (u16, &'static str) {
        match self {
            Unread::TooLarge => (413, "the body is larger than 1 MiB"),
            Unread::Late => (408, "the body did not arrive whole in time"),
            Unread::Broken => (
                400,
                "the body is not framed as HTTP asks for, or was cut short",
            ),
        }
    }
}

/// Reads a body.
///
/// # Errors
/// See [`Unread`].
pub async fn read(payload: web::Payload) -> Result<web::Bytes, Unread> {
    match tokio::time::timeout(LIMIT, payload.to_bytes_limited(MOST)).await {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Err(_)) => Err(Unread::TooLarge),
        Ok(Ok(Err(_))) => Err(Unread::Broken),
        Err(_) => Err(Unread::Late),
    }
}

/// Reads a JSON body, whatever its content type says.
///
/// # Errors
/// The answer that says what is wrong with it.
pub async fn json<T: DeserializeOwned>(
    payload: web::Payload,
) -> Result<T, actix_web::HttpResponse> {
    let bytes = read(payload).await.map_err(|unread| {
        let (status, message) = unread.told();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        refuse(
            status,
            if unread == Unread::TooLarge {
                "too_large"
            } else {
                "bad_request"
            },
            message,
        )
    })?;
    let bad = |why: &str| {
        refuse(
            StatusCode::BAD_REQUEST,
            "bad_request",
            &format!("the body is not what is asked for: {why}"),
        )
    };
    // Else an array would be read as the fields in their order.
    if bytes
        .trim_ascii_start()
        .first()
        .is_some_and(|byte| *byte != b'{')
    {
        return Err(bad("a JSON object is needed"));
    }
    serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))
}
