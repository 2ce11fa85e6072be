//! `/v1`: the service as an OpenAI-compatible API, on the same turns as the chat. Nothing is
//! stored.

mod answer;
mod errors;
pub(crate) mod request;
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

use super::body;
use super::gate::{self, Shut};
use super::{PATIENCE, State};
use crate::chat::{Finish, Source, TurnRecord};
use crate::degradation::cache::CacheUse;
use crate::settings::MidStream;
use crate::turn::desk::{Refused, Wishes};
use crate::turn::log::{Follower, TurnLog};

use answer::Shape;
use errors::Problem;
use request::Request;
use stream::Chunks;

/// The time that a streamed response delays its headers for the first text. They name the provider
/// that answers, which is not known before.
const HEAD_LIMIT: Duration = Duration::from_secs(8);

static ACCEL: HeaderName = HeaderName::from_static("x-accel-buffering");

pub async fn complete(
    http: HttpRequest,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    match asked(&http, body, &state).await {
        Ok((log, request)) => {
            let shape = Shape::new(&log, state.created, request.include_usage);
            // Dropped with the response. Without a follower the turn is cancelled.
            let follower = log.follow();
            if request.stream {
                let response = streamed(log, follower, shape, || soonest(&state)).await;
                if http.version() < Version::HTTP_11 {
                    to_the_end(response)
                } else {
                    response
                }
            } else {
                whole(&log, follower, &shape, || soonest(&state)).await
            }
        }
        Err(error) => error.answer(),
    }
}

/// Starts the turn of a request. The body is read only after the access check.
async fn asked(
    http: &HttpRequest,
    body: web::Payload,
    state: &State,
) -> Result<(Arc<TurnLog>, Request), Problem> {
    let_in(http, state)?;
    in_time(http, state)?;
    let body = body::read(body).await.map_err(|error| {
        let (status, message) = error.told();
        Problem::new(status, None, message)
    })?;
    let request = request::read(&body)?;
    let options = wishes(http, state, &request)?;
    match state.lobby.desk.open_unkept(request.ask.clone(), options) {
        Ok(log) => Ok((log, request)),
        Err(Refused::Draining) => Err(Problem::restarting()),
        Err(Refused::Full | Refused::Room(_)) => Err(Problem::unavailable(
            "the service is full; try again soon",
            5,
        )),
    }
}

pub async fn models(http: HttpRequest, state: web::Data<State>) -> HttpResponse {
    if let Err(error) = let_in(&http, &state) {
        return error.answer();
    }
    let data: Vec<_> = names(&state)
        .iter()
        .map(|name| model(name, &state))
        .collect();
    HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
}

pub async fn one_model(
    http: HttpRequest,
    name: web::Path<String>,
    state: web::Data<State>,
) -> HttpResponse {
    if let Err(error) = let_in(&http, &state) {
        return error.answer();
    }
    match names(&state)
        .iter()
        .find(|known| known.as_ref() == name.as_str())
    {
        Some(name) => HttpResponse::Ok().json(model(name, &state)),
        None => Problem::unknown_model().answer(),
    }
}

pub async fn nothing() -> HttpResponse {
    Problem::new(404, Some("unknown_url"), "there is nothing here").answer()
}

/// An error in OpenAI's shape, for checks that run before the routes.
pub fn refuse(status: StatusCode, code: &'static str, message: &str) -> HttpResponse {
    Problem::new(status.as_u16(), Some(code), message).answer()
}

pub async fn wrong_method(http: HttpRequest) -> HttpResponse {
    let allowed = if http.path().ends_with("/completions") {
        "POST"
    } else {
        "GET, HEAD"
    };
    let error = Problem::new(
        405,
        Some("method_not_allowed"),
        format!("use {allowed} for this address"),
    );
    let mut response = error.answer();
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn model(name: &str, state: &State) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": state.created, "owned_by": "failsoft" })
}

/// Returns the valid values of `model`: `auto`, the providers' names and their models.
fn names(state: &State) -> Vec<Arc<str>> {
    let table = state.lobby.desk.table();
    let providers = &table.backends;
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

fn let_in(http: &HttpRequest, state: &State) -> Result<(), Problem> {
    gate::api(http, &state.settings().server).map_err(|denied| match denied {
        Shut::ForeignOrigin => {
            Problem::new(403, Some("forbidden_origin"), "pages of other sites may not use this API")
        }
        Shut::NoKey => Problem::new(
            401,
            Some("invalid_api_key"),
            "send one of server.api_keys as Authorization: Bearer KEY; without keys only direct calls from this machine are allowed",
        ),
    })
}

/// Checks the rate limit of the address. Local programs are exempt, since they all share one
/// address.
fn in_time(http: &HttpRequest, state: &State) -> Result<(), Problem> {
    if gate::is_here(http) {
        return Ok(());
    }
    let address = gate::address(http, &state.settings().server.trusted_proxies);
    state
        .lobby
        .rates
        .take_alone(address)
        .map_err(Problem::too_many)
}

fn wishes(http: &HttpRequest, state: &State, request: &Request) -> Result<Wishes, Problem> {
    let is_off = |name: &str| {
        http.headers()
            .get(name)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"off"))
    };
    let table = state.lobby.desk.table();
    let providers = &table.backends;
    let by_name = providers
        .iter()
        .find(|provider| *provider.name == *request.model);
    let by_model = || {
        providers
            .iter()
            .find(|provider| *provider.model == *request.model)
    };
    let named = match by_name.or_else(by_model) {
        Some(provider) => Some(Arc::clone(&provider.name)),
        None if request.model == "auto" => None,
        None => return Err(Problem::unknown_model()),
    };
    let only_first = is_off("x-failover");
    // Without failover and without a named provider, the first configured one is meant.
    let first = named.or_else(|| {
        providers
            .first()
            .filter(|_| only_first)
            .map(|provider| Arc::clone(&provider.name))
    });
    Ok(Wishes {
        first,
        only_first,
        patience: PATIENCE,
        // Text that was sent cannot be retracted.
        mid_stream: if request.stream {
            MidStream::Continue
        } else {
            MidStream::Restart
        },
        rigid: request.stream,
        degraded: !is_off("x-degraded-answers"),
        pass_on: true,
        cache: CacheUse::Off,
        anonymous: true,
        late: false,
    })
}

/// Returns the shortest time until an unavailable provider may be asked again, if any provider says
/// so.
fn soonest(state: &State) -> Option<Duration> {
    let turns = &state.lobby.desk;
    let now = turns.clock.wall();
    let table = turns.table();
    let retry_times = table
        .backends
        .iter()
        .filter_map(|provider| provider.vitals.borrow().waits_until());
    retry_times
        .filter(|at| *at > now)
        .min()
        .map(|at| at.since(now))
}

/// Waits for the end of the turn and responds with the complete answer.
async fn whole(
    log: &TurnLog,
    _follower: Follower,
    shape: &Shape,
    soonest: impl FnOnce() -> Option<Duration>,
) -> HttpResponse {
    let mut changes = log.changes();
    while !log.ended() && changes.changed().await.is_ok() {}
    let record = log.record();
    match failed(log, &record, soonest) {
        Some(error) => told(error.answer(), &record, record.provider.as_deref(), None),
        None => {
            let response = HttpResponse::Ok().json(shape.whole(&record));
            told(response, &record, record.provider.as_deref(), record.source)
        }
    }
}

/// Waits for the first text, so that the headers can name the provider, then streams.
async fn streamed(
    log: Arc<TurnLog>,
    follower: Follower,
    shape: Shape,
    soonest: impl FnOnce() -> Option<Duration>,
) -> HttpResponse {
    let mut changes = log.changes();
    let first = async {
        while log.text_after(0).text.is_empty() && !log.ended() && changes.changed().await.is_ok() {
        }
    };
    // After the timeout the headers go out without the provider. Each chunk names it anyway.
    drop(tokio::time::timeout(HEAD_LIMIT, first).await);
    let part = log.text_after(0);
    let record = log.record();
    if let Some(error) = failed(&log, &record, soonest).filter(|_| part.text.is_empty()) {
        return told(error.answer(), &record, record.provider.as_deref(), None);
    }
    let response = HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ACCEL.clone(), "no"))
        .streaming(Chunks::new(log, follower, shape).stream());
    let provider = if part.text.is_empty() {
        &record.provider
    } else {
        &part.provider
    };
    told(response, &record, provider.as_deref(), Some(part.source))
}

/// Ends the response by closing the connection instead of using chunks, which HTTP/1.0 does not
/// have.
fn to_the_end(mut response: HttpResponse) -> HttpResponse {
    response.head_mut().no_chunking(true);
    response
        .head_mut()
        .set_connection_type(ConnectionType::Close);
    response
}

fn failed(
    log: &TurnLog,
    record: &TurnRecord,
    soonest: impl FnOnce() -> Option<Duration>,
) -> Option<Problem> {
    let failed = record.finish == Some(Finish::Interrupted);
    failed.then(|| Problem::of(log, soonest()))
}

/// Adds the headers that say who answered, and how. An error has no source.
fn told(
    mut response: HttpResponse,
    record: &TurnRecord,
    provider: Option<&str>,
    source: Option<Source>,
) -> HttpResponse {
    let degraded = source.is_some_and(Source::degraded);
    for (name, value) in [
        ("x-provider", provider.unwrap_or("none")),
        ("x-source", source.map_or("none", Source::name)),
        ("x-degraded", if degraded { "true" } else { "false" }),
        ("x-attempts", &record.attempts.to_string()),
        ("x-request-id", &record.turn.to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}
