//! `/v1`: the service as an OpenAI-compatible API, on the same turns as the chat. Nothing of it is stored.

mod answer;
mod errors;
mod request;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde_json::json;

use super::State;
use super::body;
use super::gate::{self, Shut};
use crate::chat::{Class, Fault, Finish, TurnRecord};
use crate::settings::MidStream;
use crate::turn::desk::{Refused, Wishes};
use crate::turn::log::{Follower, TurnLog};

use answer::Shape;
use errors::{Problem, api_error};
use request::Request;
use stream::Chunks;

/// How long the head of a streamed answer waits for its first text: until then the provider that answers is not known.
const HEAD_LIMIT: Duration = Duration::from_secs(8);

/// Who left costs nothing after this long.
const PATIENCE: Duration = Duration::from_secs(2);

static ACCEL: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `POST /v1/chat/completions`.
pub async fn complete(http: HttpRequest, body: web::Payload, state: web::Data<State>) -> HttpResponse {
    if let Some(shut) = closed(&http, &state) {
        return shut;
    }
    let body = match body::read(body).await {
        Ok(body) => body,
        Err(unread) => {
            let (status, message) = unread.told();
            return api_error(status, "invalid_request_error", None, None, message);
        }
    };
    let request = match request::read(&body) {
        Ok(request) => request,
        Err(problem) => return problem.answer(),
    };
    let wishes = match wishes(&http, &state, &request) {
        Ok(wishes) => wishes,
        Err(problem) => return problem.answer(),
    };
    let desk = &state.lobby.desk;
    let log = match desk.open_unkept(request.ask.clone(), wishes) {
        Ok(log) => log,
        Err(Refused::Draining) => return errors::unavailable("the service is restarting; try again", 2),
        Err(Refused::Full | Refused::Room(_)) => {
            return errors::unavailable("the service is full; try again soon", 5);
        }
    };
    let shape = Shape::new(&log, state.created, request.include_usage);
    // Dropped with the answer: then nobody follows, and the turn is given up.
    let follower = log.follow();
    if request.stream { streamed(log, follower, shape).await } else { whole(&log, follower, &shape).await }
}

/// `GET /v1/models`.
pub async fn models(http: HttpRequest, state: web::Data<State>) -> HttpResponse {
    closed(&http, &state).unwrap_or_else(|| {
        let data: Vec<_> = names(&state).iter().map(|name| model(name, &state)).collect();
        HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
    })
}

/// `GET /v1/models/{id}`.
pub async fn one_model(http: HttpRequest, name: web::Path<String>, state: web::Data<State>) -> HttpResponse {
    closed(&http, &state).unwrap_or_else(|| {
        match names(&state).iter().find(|known| known.as_ref() == name.as_str()) {
            Some(name) => HttpResponse::Ok().json(model(name, &state)),
            None => Problem::unknown_model().answer(),
        }
    })
}

/// No such route below `/v1`, in the API's own shape.
pub async fn nothing() -> HttpResponse {
    api_error(404, "invalid_request_error", None, Some("unknown_url"), "there is nothing here")
}

fn model(name: &str, state: &State) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": state.created, "owned_by": "failsoft" })
}

/// What may stand as `model`: `auto`, the providers' names, their models.
fn names(state: &State) -> Vec<Arc<str>> {
    let backends = &state.lobby.desk.backends;
    let mut names: Vec<Arc<str>> = vec!["auto".into()];
    for name in backends.iter().map(|one| &one.name).chain(backends.iter().map(|one| &one.model)) {
        if !names.contains(name) {
            names.push(Arc::clone(name));
        }
    }
    names
}

fn closed(http: &HttpRequest, state: &State) -> Option<HttpResponse> {
    let (status, code, message) = match gate::api(http, &state.settings.server) {
        Ok(()) => return None,
        Err(Shut::ForeignOrigin) => (403, "forbidden_origin", "this API is not for other sites' pages"),
        Err(Shut::NoKey) => (
            401,
            "invalid_api_key",
            "send one of server.api_keys as Authorization: Bearer KEY; without keys only direct calls from this machine are \
             let in",
        ),
    };
    Some(api_error(status, "invalid_request_error", None, Some(code), message))
}

fn wishes(http: &HttpRequest, state: &State, request: &Request) -> Result<Wishes, Problem> {
    let off = |name: &str| {
        http.headers().get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"off"))
    };
    let backends = &state.lobby.desk.backends;
    let named = backends.iter().find(|one| *one.name == *request.model);
    let first = match named.or_else(|| backends.iter().find(|one| *one.model == *request.model)) {
        Some(backend) => Some(Arc::clone(&backend.name)),
        None if request.model == "auto" => None,
        None => return Err(Problem::unknown_model()),
    };
    let only_first = off("x-failover");
    let first = first.or_else(|| backends.first().filter(|_| only_first).map(|one| Arc::clone(&one.name)));
    Ok(Wishes {
        first,
        only_first,
        patience: PATIENCE,
        // Text that was sent cannot be taken back.
        mid_stream: if request.stream { MidStream::Continue } else { MidStream::Restart },
        rigid: request.stream,
        degraded: !off("x-degraded-answers"),
        pass_on: true,
    })
}

/// Waits for the end, then answers at once.
async fn whole(log: &TurnLog, _follower: Follower, shape: &Shape) -> HttpResponse {
    let mut changes = log.changes();
    while !log.ended() && changes.changed().await.is_ok() {}
    let record = log.record();
    match failed(log, &record) {
        Some(error) => error,
        None => headed(HttpResponse::Ok(), &record).json(shape.whole(&record)),
    }
}

/// Waits for the first text, so that the head can tell who answers; then streams.
async fn streamed(log: Arc<TurnLog>, follower: Follower, shape: Shape) -> HttpResponse {
    let mut changes = log.changes();
    let first = async {
        while log.text_after(0).text.is_empty() && !log.ended() && changes.changed().await.is_ok() {}
    };
    // After the limit the head goes out without knowing; the chunks are the authority.
    drop(tokio::time::timeout(HEAD_LIMIT, first).await);
    let record = log.record();
    let nothing = log.ended() && record.text.is_empty();
    if let Some(error) = failed(&log, &record).filter(|_| nothing) {
        return error;
    }
    let mut answer = headed(HttpResponse::Ok(), &record);
    answer.insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"));
    answer.insert_header((CACHE_CONTROL, "no-cache"));
    answer.insert_header((ACCEL.clone(), "no"));
    answer.streaming(Chunks::new(log, follower, shape).stream())
}

/// The error of a turn that ended without an answer.
fn failed(log: &TurnLog, record: &TurnRecord) -> Option<HttpResponse> {
    if record.finish != Some(Finish::Interrupted) {
        return None;
    }
    let failure = log.last_failure();
    let class = failure.as_ref().map(|failure| failure.fault.class());
    let detail = failure.as_ref().map(|failure| failure.detail.as_str()).filter(|detail| !detail.is_empty());
    let code = failure
        .as_ref()
        .and_then(|failure| (failure.fault == Fault::TooLong).then_some("context_length_exceeded"));
    Some(match class {
        Some(Class::Caller | Class::MoreRoom) => {
            let message = detail.unwrap_or("the provider refused the request");
            api_error(400, "invalid_request_error", None, code, message)
        }
        _ => errors::unavailable("no provider can answer now", errors::NOBODY_S),
    })
}

/// The headers that say who answered.
fn headed(mut answer: HttpResponseBuilder, record: &TurnRecord) -> HttpResponseBuilder {
    let source = record.source.map_or("ai", crate::chat::Source::name);
    answer
        .insert_header(("x-provider", record.provider.as_deref().unwrap_or("none")))
        .insert_header(("x-source", source))
        .insert_header(("x-degraded", if record.degraded { "true" } else { "false" }))
        .insert_header(("x-attempts", record.attempts.to_string()))
        .insert_header(("x-request-id", record.turn.to_string()));
    answer
}
