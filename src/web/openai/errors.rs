//! Errors in OpenAI's shape.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::domain::FaultKind;
use crate::turn::log::{Cancel, TurnLog};

/// `Retry-After` if no provider is available and none says when it will be.
const DEFAULT_RETRY_AFTER_S: u64 = 10;

/// The maximum `Retry-After`: a provider may recover, or be enabled, before the announced time.
const MAX_RETRY_AFTER_S: u64 = 60;

#[derive(Debug, PartialEq)]
pub struct ApiError {
    status: u16,
    param: Option<String>,
    code: Option<&'static str>,
    message: String,
    retry_after_s: Option<u64>,
    /// Tells OpenAI's client libraries whether to retry by themselves.
    should_retry: bool,
}

impl ApiError {
    pub fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            param: None,
            code,
            message: message.into(),
            retry_after_s: None,
            should_retry: false,
        }
    }

    /// A field with an invalid value.
    pub fn invalid_field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(400, None, message)
        }
    }

    /// A valid field that asks for a feature that does not exist here.
    pub fn unsupported_field(param: &str, message: &str) -> Self {
        Self {
            code: Some("unsupported_parameter"),
            ..Self::invalid_field(param, message)
        }
    }

    pub fn unknown_model() -> Self {
        let message = "no provider has that name or model; GET /v1/models lists them, and auto selects the best";
        Self {
            status: 404,
            code: Some("model_not_found"),
            ..Self::invalid_field("model", message)
        }
    }

    /// No provider is available. Automatic retries are discouraged: they would only multiply the
    /// load.
    pub fn unavailable(message: &str, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..Self::new(503, Some("unavailable"), message)
        }
    }

    /// The address exceeds its rate limit. Automatic retries after that time are welcome.
    pub fn rate_limited(wait: Duration) -> Self {
        let message = "too many requests from this address; wait a little and ask again";
        let seconds = wait.as_secs().saturating_add(1);
        Self {
            retry_after_s: Some(seconds),
            should_retry: true,
            ..Self::new(429, Some("rate_limit_exceeded"), message)
        }
    }

    /// The error of a turn that ended without an answer. A rejected request gets the provider's
    /// reason.
    ///
    /// `soonest` is the time until a provider may be asked again, if it is known.
    pub fn from_turn(log: &TurnLog, soonest: Option<Duration>) -> Self {
        if log.cancel_reason() == Some(Cancel::Interrupted) {
            return Self::shutting_down();
        }
        let failure = log.last_failure();
        let rejected = failure.filter(|failure| failure.fault.recovery().is_caller_fault());
        let Some(failure) = rejected else {
            let seconds = soonest.map_or(DEFAULT_RETRY_AFTER_S, |wait| {
                wait.as_secs().saturating_add(1).min(MAX_RETRY_AFTER_S)
            });
            return Self::unavailable("no provider can answer at the moment", seconds);
        };
        let message = match &*failure.detail {
            "" => "the provider rejected the request",
            detail => detail,
        };
        match (failure.fault, failure.status) {
            (FaultKind::TooLong, _) => Self::new(400, Some("context_length_exceeded"), message),
            (_, Some(422)) => Self::new(422, None, message),
            _ => Self::new(400, None, message),
        }
    }

    /// The instance shuts down. Automatic retries are welcome: another instance, or the next
    /// process, will answer.
    pub fn shutting_down() -> Self {
        Self {
            should_retry: true,
            ..Self::unavailable("the service is restarting; try again", 2)
        }
    }

    /// The text broke off and could not be continued. What was sent is incomplete.
    pub fn stream_interrupted() -> Self {
        let message = "the answer broke off, and no provider could continue it; the text sent so far is incomplete";
        Self::new(502, Some("stream_interrupted"), message)
    }

    pub fn to_json(&self) -> Value {
        let kind = if self.status < 500 {
            "invalid_request_error"
        } else {
            "server_error"
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }

    pub fn to_response(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response
                .insert_header((RETRY_AFTER, seconds.to_string()))
                .insert_header(("x-should-retry", self.should_retry.to_string()));
        }
        response.json(self.to_json())
    }
}
