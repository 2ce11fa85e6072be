//! Errors in OpenAI's shape.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use serde_json::{Value, json};

/// When to come back where no provider can answer.
pub const NOBODY_S: u64 = 10;

/// What is wrong with a request.
#[derive(Debug, PartialEq)]
pub struct Problem {
    status: u16,
    param: Option<String>,
    code: Option<&'static str>,
    message: String,
}

impl Problem {
    /// A field that is wrong, and what would be right.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 400, param: Some(param.into()), code: None, message: message.into() }
    }

    /// A field that is right, for what is not offered.
    pub fn unsupported(param: &str, message: &str) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::field(param, message) }
    }

    /// A body that cannot be read at all.
    pub fn body(message: impl Into<String>) -> Self {
        Self { status: 400, param: None, code: None, message: message.into() }
    }

    /// A model that is none of ours.
    pub fn unknown_model() -> Self {
        let message =
            "no provider has that name or model; GET /v1/models lists them, and auto takes the best";
        Self { status: 404, code: Some("model_not_found"), ..Self::field("model", message) }
    }

    /// The answer that says so.
    pub fn answer(&self) -> HttpResponse {
        api_error(self.status, "invalid_request_error", self.param.as_deref(), self.code, &self.message)
    }
}

/// The error object.
pub fn object(kind: &str, param: Option<&str>, code: Option<&str>, message: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
}

/// An error answer.
pub fn api_error(
    status: u16,
    kind: &str,
    param: Option<&str>,
    code: Option<&str>,
    message: &str,
) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(object(kind, param, code, message))
}

/// Nobody can answer now. Told not to retry at once: a client's own retries would only multiply the load.
pub fn unavailable(message: &str, seconds: u64) -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header((RETRY_AFTER, seconds.to_string()))
        .insert_header(("x-should-retry", "false"))
        .json(object("server_error", None, Some("unavailable"), message))
}
