//! `/v1`: the service as an OpenAI-compatible API, on the same turns as the chat. Nothing is
//! stored.

mod errors;
pub(crate) mod request;
mod response;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::float_cmp)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::access::{self, AccessDenied};
use super::client_address::client_address;
use super::extract;
use super::{API_ORPHAN_GRACE, AppState};
use crate::answer_cache::policy::CacheMode;
use crate::config::MidStream;
use crate::domain::{AnswerSource, FinishReason, TurnRecord};
use crate::turn::deps::TurnOptions;
use crate::turn::log::{Follower, TurnLog};
use crate::turn::service::OpenTurnError;

use errors::ApiError;
use request::CompletionRequest;
use response::ResponseBuilder;
use stream::ChunkStream;

/// The time that a streamed response delays its headers for the first text. They name the provider
/// that answers, which is not known before.
const FIRST_TEXT_TIMEOUT: Duration = Duration::from_secs(8);

static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub async fn chat_completions(
    http: HttpRequest,
    body: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    match parse_and_start(&http, body, &state).await {
        Ok((log, request)) => {
            let shape = ResponseBuilder::new(&log, state.started_at_s, request.include_usage);
            // Dropped with the response. Without a follower the turn is cancelled.
            let follower = log.follow();
            if request.stream {
                let response = respond_stream(log, follower, shape, || retry_after(&state)).await;
                if http.version() < Version::HTTP_11 {
                    close_delimited(response)
                } else {
                    response
                }
            } else {
                respond_complete(&log, follower, &shape, || retry_after(&state)).await
            }
        }
        Err(error) => error.to_response(),
    }
}

/// Starts the turn of a request. The body is read only after the access check.
async fn parse_and_start(
    http: &HttpRequest,
    body: web::Payload,
    state: &AppState,
) -> Result<(Arc<TurnLog>, CompletionRequest), ApiError> {
    authorize(http, state)?;
    check_rate(http, state)?;
    let body = extract::read_body(body).await.map_err(|error| {
        let (status, message) = error.status_and_message();
        ApiError::new(status, None, message)
    })?;
    let request = request::parse(&body)?;
    let options = turn_options(http, state, &request)?;
    let turns = &state.chat.turns;
    match turns.start_ephemeral_turn(request.chat_request.clone(), options) {
        Ok(log) => Ok((log, request)),
        Err(OpenTurnError::Draining) => Err(ApiError::shutting_down()),
        Err(OpenTurnError::AtCapacity | OpenTurnError::Conflict(_)) => {
            let message = "the service is full; try again soon";
            Err(ApiError::unavailable(message, 5))
        }
    }
}

pub async fn list_models(http: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    if let Err(error) = authorize(&http, &state) {
        return error.to_response();
    }
    let names = model_names(&state);
    let data: Vec<_> = names.iter().map(|name| model_json(name, &state)).collect();
    HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
}

pub async fn get_model(
    http: HttpRequest,
    name: web::Path<String>,
    state: web::Data<AppState>,
) -> HttpResponse {
    if let Err(error) = authorize(&http, &state) {
        return error.to_response();
    }
    if model_names(&state).iter().any(|known| **known == **name) {
        HttpResponse::Ok().json(model_json(&name, &state))
    } else {
        ApiError::unknown_model().to_response()
    }
}

pub async fn unknown_route() -> HttpResponse {
    ApiError::new(404, Some("unknown_url"), "there is nothing here").to_response()
}

/// An error in OpenAI's shape, for checks that run before the routes.
pub fn error_response(status: StatusCode, code: &'static str, message: &str) -> HttpResponse {
    ApiError::new(status.as_u16(), Some(code), message).to_response()
}

pub async fn wrong_method(http: HttpRequest) -> HttpResponse {
    let allowed = if http.path().ends_with("/completions") {
        "POST"
    } else {
        "GET, HEAD"
    };
    let message = format!("use {allowed} for this address");
    let mut response = ApiError::new(405, Some("method_not_allowed"), message).to_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn model_json(name: &str, state: &AppState) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": state.started_at_s, "owned_by": "failsoft" })
}

/// Returns the valid values of `model`: `auto`, the providers' names and their models.
fn model_names(state: &AppState) -> Vec<Arc<str>> {
    let table = state.chat.turns.config();
    let providers = &table.providers;
    let mut names: Vec<Arc<str>> = vec!["auto".into()];
    let provider_names = providers.iter().map(|provider| &provider.name);
    let models = providers.iter().map(|provider| &provider.model);
    for name in provider_names.chain(models) {
        if !names.contains(name) {
            names.push(Arc::clone(name));
        }
    }
    names
}

fn authorize(http: &HttpRequest, state: &AppState) -> Result<(), ApiError> {
    access::check_api(http, &state.settings().server).map_err(|denied| match denied {
        AccessDenied::ForeignOrigin => {
            ApiError::new(403, Some("forbidden_origin"), "pages of other sites may not use this API")
        }
        AccessDenied::MissingKey => ApiError::new(
            401,
            Some("invalid_api_key"),
            "send one of server.api_keys as Authorization: Bearer KEY; without keys only direct calls from this machine are allowed",
        ),
    })
}

/// Checks the rate limit of the address. Local programs are exempt, since they all share one
/// address.
fn check_rate(http: &HttpRequest, state: &AppState) -> Result<(), ApiError> {
    if access::is_loopback_by_name(http) {
        return Ok(());
    }
    let address = client_address(http, &state.settings().server.trusted_proxies);
    let limiter = &state.chat.rate_limiter;
    limiter
        .check_address(address)
        .map_err(ApiError::rate_limited)
}

fn turn_options(
    http: &HttpRequest,
    state: &AppState,
    request: &CompletionRequest,
) -> Result<TurnOptions, ApiError> {
    let is_off = |name: &str| {
        let value = http.headers().get(name);
        value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"off"))
    };
    let model = &*request.model;
    let table = state.chat.turns.config();
    let providers = &table.providers;
    let by_name = providers.iter().find(|provider| *provider.name == *model);
    let mut by_model = providers
        .iter()
        .filter(|provider| *provider.model == *model);
    let named = match by_name.or_else(|| by_model.next()) {
        Some(provider) => Some(Arc::clone(&provider.name)),
        None if model == "auto" => None,
        None => return Err(ApiError::unknown_model()),
    };
    let no_failover = is_off("x-failover");
    // Without failover and without a named provider, the first configured one is meant.
    let first = providers.first().filter(|_| no_failover);
    Ok(TurnOptions {
        preferred_provider: named.or_else(|| first.map(|provider| Arc::clone(&provider.name))),
        no_failover,
        orphan_grace: API_ORPHAN_GRACE,
        // Text that was sent cannot be retracted.
        mid_stream: if request.stream {
            MidStream::Continue
        } else {
            MidStream::Restart
        },
        append_only: request.stream,
        allow_fallback: !is_off("x-degraded-answers"),
        surface_caller_errors: true,
        cache_mode: CacheMode::Off,
        is_anonymous: true,
        is_background: false,
    })
}

/// Returns the shortest time until an unavailable provider may be asked again, if any provider says
/// so.
fn retry_after(state: &AppState) -> Option<Duration> {
    let turns = &state.chat.turns;
    let now = turns.clock.wall();
    let table = turns.config();
    let providers = table.providers.iter();
    let times = providers.filter_map(|provider| provider.status.borrow().unavailable_until());
    let next = times.filter(|at| *at > now).min()?;
    Some(next.since(now))
}

/// Waits for the end of the turn and responds with the complete answer.
async fn respond_complete(
    log: &TurnLog,
    _follower: Follower,
    shape: &ResponseBuilder,
    soonest: impl FnOnce() -> Option<Duration>,
) -> HttpResponse {
    let mut changes = log.changes();
    while !log.is_finished() && changes.changed().await.is_ok() {}
    let record = log.record();
    let provider = record.provider.as_deref();
    if let Some(error) = turn_error(log, &record, soonest) {
        return add_headers(error.to_response(), &record, provider, None);
    }
    let response = HttpResponse::Ok().json(shape.completion(&record));
    add_headers(response, &record, provider, record.source)
}

/// Waits for the first text, so that the headers can name the provider, then streams.
async fn respond_stream(
    log: Arc<TurnLog>,
    follower: Follower,
    shape: ResponseBuilder,
    soonest: impl FnOnce() -> Option<Duration>,
) -> HttpResponse {
    let mut changes = log.changes();
    let first = async {
        while log.text_from(0).text.is_empty()
            && !log.is_finished()
            && changes.changed().await.is_ok()
        {}
    };
    // After the timeout the headers go out without the provider. Each chunk names it anyway.
    drop(tokio::time::timeout(FIRST_TEXT_TIMEOUT, first).await);
    let part = log.text_from(0);
    let record = log.record();
    if let Some(error) = turn_error(&log, &record, soonest).filter(|_| part.text.is_empty()) {
        let provider = record.provider.as_deref();
        return add_headers(error.to_response(), &record, provider, None);
    }
    let response = HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((X_ACCEL_BUFFERING.clone(), "no"))
        .streaming(ChunkStream::new(log, follower, shape).into_stream());
    let provider = if part.text.is_empty() {
        &record.provider
    } else {
        &part.provider
    };
    add_headers(response, &record, provider.as_deref(), Some(part.source))
}

/// Ends the response by closing the connection instead of using chunks, which HTTP/1.0 does not
/// have.
fn close_delimited(mut response: HttpResponse) -> HttpResponse {
    let head = response.head_mut();
    head.no_chunking(true);
    head.set_connection_type(ConnectionType::Close);
    response
}

fn turn_error(
    log: &TurnLog,
    record: &TurnRecord,
    soonest: impl FnOnce() -> Option<Duration>,
) -> Option<ApiError> {
    let failed = record.finish == Some(FinishReason::Interrupted);
    failed.then(|| ApiError::from_turn(log, soonest()))
}

/// Adds the headers that say who answered, and how. An error has no source.
fn add_headers(
    mut response: HttpResponse,
    record: &TurnRecord,
    provider: Option<&str>,
    source: Option<AnswerSource>,
) -> HttpResponse {
    let degraded = source.is_some_and(AnswerSource::is_degraded);
    for (name, value) in [
        ("x-provider", provider.unwrap_or("none")),
        ("x-source", source.map_or("none", AnswerSource::as_str)),
        ("x-degraded", if degraded { "true" } else { "false" }),
        ("x-attempts", &record.attempts.to_string()),
        ("x-request-id", &record.turn.to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            let headers = response.headers_mut();
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
