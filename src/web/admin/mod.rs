//! `/admin`: what an operator does to a running service. Without a configured admin token there is nothing here.
//!
//! One gate stands before all of it, the routes that do not exist included ([`watched`]); it also takes everything down in the audit log. A file a subject: to
//! add a route, add its file, a line in [`routes`] and one in [`action`].

mod cache;
mod conversations;
mod drills;
pub(super) mod providers;
mod reload;
mod trail;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpRequest, HttpResponse, Resource, web};

use super::State;
use super::gate;
use super::refusal::{not_found, only, refuse};
use crate::ops::audit::{Entry, Outcome, Peer};

/// All routes below `/admin`, behind their gate.
pub fn routes() -> impl HttpServiceFactory {
    web::scope("/admin")
        .wrap(from_fn(watched))
        .service(at("/providers/{name}").route(web::post().to(providers::order)))
        .service(
            at("/drills")
                .route(web::get().to(drills::list))
                .route(web::post().to(drills::begin))
                .route(web::delete().to(drills::end)),
        )
        .service(at("/reload").route(web::post().to(reload::order)))
        .service(at("/cache").route(web::delete().to(cache::clear)))
        .service(at("/cache/warm").route(web::post().to(cache::warm)))
        .service(at("/conversations/{id}").route(web::delete().to(conversations::remove)))
        .service(at("/audit").route(web::get().to(trail::read)))
        .default_service(web::to(nothing))
}

/// What is asked for, in the words of the audit log.
fn action(method: &Method, route: &str) -> &'static str {
    match (method.as_str(), route) {
        ("POST", "/admin/providers/{name}") => "provider",
        ("GET", "/admin/drills") => "drills",
        ("POST", "/admin/drills") => "drill",
        ("DELETE", "/admin/drills") => "end_drill",
        ("POST", "/admin/reload") => "reload",
        ("DELETE", "/admin/cache") => "cache.clear",
        ("POST", "/admin/cache/warm") => "cache.warm",
        ("DELETE", "/admin/conversations/{id}") => "conversation.forget",
        ("GET", "/admin/audit") => "audit",
        _ => "unknown",
    }
}

/// Of what an order is, for the audit log: put into an answer's extensions by who carries it out. A configured name or a word of the protocol, never what a
/// caller wrote.
struct Subject(String);

/// The same answer, with what the order was about.
fn about(mut answer: HttpResponse, subject: impl Into<String>) -> HttpResponse {
    answer.extensions_mut().insert(Subject(subject.into()));
    answer
}

/// A route; a wrong method is told which ones are right.
fn at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(wrong_method))
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let allowed = match request.match_pattern().as_deref() {
        Some("/admin/audit") => "GET",
        Some("/admin/drills") => "GET, POST, DELETE",
        Some("/admin/cache" | "/admin/conversations/{id}") => "DELETE",
        _ => "POST",
    };
    only(allowed)
}

/// An order that does not exist; seen by operators alone.
async fn nothing() -> HttpResponse {
    let message = "no such order; there are: POST /admin/providers/{name}, POST /admin/reload, GET, POST and DELETE \
                   /admin/drills, DELETE /admin/cache, POST /admin/cache/warm, DELETE /admin/conversations/{id}, GET /admin/audit";
    refuse(StatusCode::NOT_FOUND, "not_found", message)
}

/// Lets in the operator, who is no page of another site, and takes down what was asked and what came of it. What was only looked at is not taken down.
async fn watched<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, actix_web::Error> {
    let Some(state) = request.app_data::<web::Data<State>>().cloned() else {
        return Ok(request
            .into_response(not_found().await)
            .map_into_right_body());
    };
    let settings = state.settings();
    if settings.server.admin_token.is_none() {
        return Ok(request
            .into_response(not_found().await)
            .map_into_right_body());
    }
    let looks = request.method() == Method::GET;
    let action = action(
        request.method(),
        request.match_pattern().as_deref().unwrap_or_default(),
    );
    let peer = Peer::of(gate::address(
        request.request(),
        &settings.server.trusted_proxies,
    ));
    let answer = match keep_out(request.request(), &state) {
        Some(refusal) => request.into_response(refusal).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    };
    let outcome = Outcome::of_status(answer.status().as_u16());
    if !looks || outcome == Outcome::Refused {
        let subject = answer
            .response()
            .extensions()
            .get::<Subject>()
            .map(|subject| subject.0.clone());
        let at = state.lobby.desk.clock.wall();
        state.audit.note(Entry {
            at,
            action,
            subject,
            outcome,
            peer,
        });
    }
    Ok(answer)
}

/// The refusal for who may give no orders.
fn keep_out(request: &HttpRequest, state: &State) -> Option<HttpResponse> {
    let settings = state.settings();
    if gate::own_page(request, &settings.server).is_err() {
        let message = "other sites' pages give no orders here";
        return Some(refuse(StatusCode::FORBIDDEN, "forbidden_origin", message));
    }
    if gate::operator(request, &settings.server).is_err() {
        let message = "send server.admin_token as Authorization: Bearer TOKEN";
        return Some(refuse(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    None
}
