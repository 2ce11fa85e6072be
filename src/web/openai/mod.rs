//! `/v1`: the service as an OpenAI-compatible API, on the same turns as the chat. Nothing of it is stored.

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

/// How long the head of a streamed answer waits for its first text: until then the provider that answers is not known.
const HEAD_LIMIT: Duration = Duration::from_secs(8);

static ACCEL: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `POST /v1/chat/completions`. Who may not come in has nothing of its body read.
pub async fn complete(
    http: HttpRequest,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    match asked(&http, body, &state).await {
        Ok((log, request)) => {
            let shape = Shape::new(&log, state.created, request.include_usage);
            // Dropped with the answer: then nobody follows, and the turn is given up.
            let follower = log.follow();
            if request.stream {
                let answer = streamed(log, follower, shape, || soonest(&state)).await;
                if http.version() < Version::HTTP_11 {
                    to_the_end(answer)
                } else {
                    answer
                }
            } else {
                whole(&log, follower, &shape, || soonest(&state)).await
            }
        }
        Err(problem) => problem.answer(),
    }
}

/// Opens the turn of a request.
async fn asked(
    http: &HttpRequest,
    body: web::Payload,
    state: &State,
) -> Result<(Arc<TurnLog>, Request), Problem> {
    let_in(http, state)?;
    in_time(http, state)?;
    let body = body::read(body).await.map_err(|unread| {
        let (status, message) = unread.told();
        Problem::new(status, None, message)
    })?;
    let request = request::read(&body)?;
    let wishes = wishes(http, state, &request)?;
    match state.lobby.desk.open_unkept(request.ask.clone(), wishes) {
        Ok(log) => Ok((log, request)),
        Err(Refused::Draining) => Err(Problem::restarting()),
        Err(Refused::Full | Refused::Room(_)) => Err(Problem::unavailable(
            "the service is full; try again soon",
            5,
        )),
    }
}

/// `GET /v1/models`.
pub async fn models(http: HttpRequest, state: web::Data<State>) -> HttpResponse {
    if let Err(problem) = let_in(&http, &state) {
        return problem.answer();
    }
    let data: Vec<_> = names(&state)
        .iter()
        .map(|name| model(name, &state))
        .collect();
    HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`.
pub async fn one_model(
    http: HttpRequest,
    name: web::Path<String>,
    state: web::Data<State>,
) -> HttpResponse {
    if let Err(problem) = let_in(&http, &state) {
        return problem.answer();
    }
    match names(&state)
        .iter()
        .find(|known| known.as_ref() == name.as_str())
    {
        Some(name) => HttpResponse::Ok().json(model(name, &state)),
        None => Problem::unknown_model().answer(),
    }
}

/// No such route below `/v1`, in the API's own shape.
pub async fn nothing() -> HttpResponse {
    Problem::new(404, Some("unknown_url"), "there is nothing here").answer()
}

/// What is wrong with a request before any route is asked, in the API's own shape.
pub fn refuse(status: StatusCode, code: &'static str, message: &str) -> HttpResponse {
    Problem::new(status.as_u16(), Some(code), message).answer()
}

/// A route that takes another method.
pub async fn wrong_method(http: HttpRequest) -> HttpResponse {
    let allowed = if http.path().ends_with("/completions") {
        "POST"
    } else {
        "GET, HEAD"
    };
    let problem = Problem::new(
        405,
        Some("method_not_allowed"),
        format!("this address takes {allowed} alone"),
    );
    let mut answer = problem.answer();
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn model(name: &str, state: &State) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": state.created, "owned_by": "failsoft" })
}

/// What may stand as `model`: `auto`, the providers' names, their models.
fn names(state: &State) -> Vec<Arc<str>> {
    let table = state.lobby.desk.table();
    let backends = &table.backends;
    let mut names: Vec<Arc<str>> = vec!["auto".into()];
    for name in backends
        .iter()
        .map(|one| &one.name)
        .chain(backends.iter().map(|one| &one.model))
    {
        if !names.contains(name) {
            names.push(Arc::clone(name));
        }
    }
    names
}

fn let_in(http: &HttpRequest, state: &State) -> Result<(), Problem> {
    gate::api(http, &state.settings().server).map_err(|shut| match shut {
        Shut::ForeignOrigin => {
            Problem::new(403, Some("forbidden_origin"), "this API is not for other sites' pages")
        }
        Shut::NoKey => Problem::new(
            401,
            Some("invalid_api_key"),
            "send one of server.api_keys as Authorization: Bearer KEY; without keys only direct calls from this machine are let in",
        ),
    })
}

/// Whether this address may ask once more. Programs on this very machine share its address, and are not counted by it.
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
    let off = |name: &str| {
        http.headers()
            .get(name)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"off"))
    };
    let table = state.lobby.desk.table();
    let backends = &table.backends;
    let named = backends.iter().find(|one| *one.name == *request.model);
    let first = match named.or_else(|| backends.iter().find(|one| *one.model == *request.model)) {
        Some(backend) => Some(Arc::clone(&backend.name)),
        None if request.model == "auto" => None,
        None => return Err(Problem::unknown_model()),
    };
    let only_first = off("x-failover");
    let first = first.or_else(|| {
        backends
            .first()
            .filter(|_| only_first)
            .map(|one| Arc::clone(&one.name))
    });
    Ok(Wishes {
        first,
        only_first,
        patience: PATIENCE,
        // Text that was sent cannot be taken back.
        mid_stream: if request.stream {
            MidStream::Continue
        } else {
            MidStream::Restart
        },
        rigid: request.stream,
        degraded: !off("x-degraded-answers"),
        pass_on: true,
        cache: CacheUse::Off,
        anonymous: true,
        late: false,
    })
}

/// When the first of the providers that are left alone may be asked again; none where none says when.
fn soonest(state: &State) -> Option<Duration> {
    let desk = &state.lobby.desk;
    let now = desk.clock.wall();
    let table = desk.table();
    let waits = table
        .backends
        .iter()
        .filter_map(|one| one.vitals.borrow().waits_until());
    waits.filter(|at| *at > now).min().map(|at| at.since(now))
}

/// Waits for the end, then answers at once. `soonest`: when a provider may be asked again.
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
        Some(problem) => told(problem.answer(), &record, record.provider.as_deref(), None),
        None => {
            let answer = HttpResponse::Ok().json(shape.whole(&record));
            told(answer, &record, record.provider.as_deref(), record.source)
        }
    }
}

/// Waits for the first text, so that the head can tell who answers; then streams.
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
    // After the limit the head goes out without knowing; the chunks are the authority.
    drop(tokio::time::timeout(HEAD_LIMIT, first).await);
    let (part, record) = (log.text_after(0), log.record());
    if let Some(problem) = failed(&log, &record, soonest).filter(|_| part.text.is_empty()) {
        return told(problem.answer(), &record, record.provider.as_deref(), None);
    }
    let answer = HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ACCEL.clone(), "no"))
        .streaming(Chunks::new(log, follower, shape).stream());
    let provider = if part.text.is_empty() {
        &record.provider
    } else {
        &part.provider
    };
    told(answer, &record, provider.as_deref(), Some(part.source))
}

/// An answer without chunks, that the connection's end ends: before HTTP/1.1, which some proxies still speak, nobody knows of chunks.
fn to_the_end(mut answer: HttpResponse) -> HttpResponse {
    answer.head_mut().no_chunking(true);
    answer.head_mut().set_connection_type(ConnectionType::Close);
    answer
}

/// The problem of a turn that ended without an answer.
fn failed(
    log: &TurnLog,
    record: &TurnRecord,
    soonest: impl FnOnce() -> Option<Duration>,
) -> Option<Problem> {
    let failed = record.finish == Some(Finish::Interrupted);
    failed.then(|| Problem::of(log, soonest()))
}

/// The answer with the headers that say who answered, and how; an error has no source.
fn told(
    mut answer: HttpResponse,
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
            answer
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    answer
}
