//! Errors in OpenAI's shape.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::chat::{Failure, Fault};
use crate::turn::log::{Cancel, TurnLog};

/// When to come back where no provider can answer, and none says when.
const NOBODY_S: u64 = 10;

/// The longest that anybody is told to stay away: a provider may be switched on, or found well, before its time.
const LONGEST_S: u64 = 60;

/// When to come back to a service that restarts.
const RESTART_S: u64 = 2;

/// What the caller did wrong, or why there is no answer.
#[derive(Debug, PartialEq)]
pub struct Problem {
    status: u16,
    param: Option<String>,
    code: Option<&'static str>,
    message: String,
    /// When to come back, in seconds, where that may help.
    later: Option<u64>,
    /// Whether a client's own retry helps.
    again: bool,
}

impl Problem {
    /// What is wrong with a request as a whole.
    pub fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            param: None,
            code,
            message: message.into(),
            later: None,
            again: false,
        }
    }

    /// A field that is wrong, and what would be right.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(400, None, message)
        }
    }

    /// A field that is right, for what is not offered.
    pub fn unsupported(param: &str, message: &str) -> Self {
        Self {
            code: Some("unsupported_parameter"),
            ..Self::field(param, message)
        }
    }

    /// A body that cannot be read at all.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(400, None, message)
    }

    /// A model that is none of ours.
    pub fn unknown_model() -> Self {
        let message = "no provider has that name or model; GET /v1/models lists them, and auto takes the best";
        Self {
            status: 404,
            code: Some("model_not_found"),
            ..Self::field("model", message)
        }
    }

    /// Nobody can answer now. Told not to retry at once: a client's own retries would only multiply the load.
    pub fn unavailable(message: &str, seconds: u64) -> Self {
        Self {
            later: Some(seconds),
            ..Self::new(503, Some("unavailable"), message)
        }
    }

    /// Too many requests of this address. A client's own retry after that time is right.
    pub fn too_many(wait: Duration) -> Self {
        let message = "too many requests from this address; wait a little and ask again";
        let seconds = wait.as_secs().saturating_add(1);
        let problem = Self::new(429, Some("rate_limit_exceeded"), message);
        Self {
            later: Some(seconds),
            again: true,
            ..problem
        }
    }

    /// A turn that ended without an answer: because the service goes down, or by how its last attempt failed. A refused request is passed on
    /// with the provider's reason. `soonest`: when a provider may be asked again, where that is known.
    pub fn of(log: &TurnLog, soonest: Option<Duration>) -> Self {
        if log.told_to_end() == Some(Cancel::Interrupted) {
            return Self::restarting();
        }
        let failure = log.last_failure();
        let refused = failure.filter(|one| one.fault.class().is_the_requests());
        let Some(Failure {
            fault,
            detail,
            status,
            ..
        }) = refused
        else {
            let seconds = soonest.map_or(NOBODY_S, |wait| {
                wait.as_secs().saturating_add(1).min(LONGEST_S)
            });
            return Self::unavailable("no provider can answer now", seconds);
        };
        let message = if detail.is_empty() {
            "the provider refused the request"
        } else {
            &*detail
        };
        match (fault, status) {
            (Fault::TooLong, _) => Self::new(400, Some("context_length_exceeded"), message),
            (_, Some(422)) => Self::new(422, None, message),
            _ => Self::new(400, None, message),
        }
    }

    /// The service goes down, and takes no more. Another instance, or the next process, will: a client's own retry is right.
    pub fn restarting() -> Self {
        Self {
            again: true,
            ..Self::unavailable("the service is restarting; try again", RESTART_S)
        }
    }

    /// The text of an answer broke off. What was sent stands, and is not whole.
    pub fn interrupted() -> Self {
        let message = "the answer broke off, and no provider could go on from there; what was sent is not whole";
        Self::new(502, Some("stream_interrupted"), message)
    }

    /// The error object.
    pub fn object(&self) -> Value {
        let kind = if self.status < 500 {
            "invalid_request_error"
        } else {
            "server_error"
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }

    /// The answer that says so.
    pub fn answer(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = HttpResponse::build(status);
        if status == StatusCode::UNAUTHORIZED {
            answer.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(seconds) = self.later {
            let again = if self.again { "true" } else { "false" };
            answer
                .insert_header((RETRY_AFTER, seconds.to_string()))
                .insert_header(("x-should-retry", again));
        }
        answer.json(self.object())
    }
}
