//! `/admin`: what an operator can do to a running service. 404 without a configured admin token.
//!
//! [`audit_middleware`] checks access to all of it, including unknown routes, and writes
//! the audit log. To add a route, add its handler, a line in [`routes`] and one in
//! [`action_name`].

mod actions;
mod drills;
pub(super) mod providers;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpRequest, HttpResponse, Resource, web};

use super::AppState;
use super::access;
use super::client_address::client_address;
use super::error::{error_response, method_not_allowed, not_found};
use crate::ops::audit::{AuditEntry, AuditOutcome, PeerKind};

pub fn routes() -> impl HttpServiceFactory {
    web::scope("/admin")
        .wrap(from_fn(audit_middleware))
        .service(admin_route("/providers/{name}").route(web::post().to(providers::update_provider)))
        .service(
            admin_route("/drills")
                .route(web::get().to(drills::list_drills))
                .route(web::post().to(drills::start_drill))
                .route(web::delete().to(drills::stop_drills)),
        )
        .service(admin_route("/reload").route(web::post().to(actions::reload_config)))
        .service(admin_route("/cache").route(web::delete().to(actions::clear_cache)))
        .service(admin_route("/cache/warm").route(web::post().to(actions::warm_cache)))
        .service(
            admin_route("/conversations/{id}")
                .route(web::delete().to(actions::delete_conversation)),
        )
        .service(admin_route("/audit").route(web::get().to(actions::list_audit)))
        .default_service(web::to(unknown_route))
}

fn action_name(method: &Method, route: &str) -> &'static str {
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

/// The subject of an action, for the audit log. Handlers attach it to their response. It is a
/// configured name or a word of the protocol, never text from the caller.
struct AuditSubject(String);

fn with_subject(mut response: HttpResponse, subject: impl Into<String>) -> HttpResponse {
    response
        .extensions_mut()
        .insert(AuditSubject(subject.into()));
    response
}

/// A route whose default response is 405.
fn admin_route(path: &str) -> Resource {
    web::resource(path).default_service(web::to(wrong_method))
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let allowed = match request.match_pattern().as_deref() {
        Some("/admin/audit") => "GET",
        Some("/admin/drills") => "GET, POST, DELETE",
        Some("/admin/cache" | "/admin/conversations/{id}") => "DELETE",
        _ => "POST",
    };
    method_not_allowed(allowed)
}

/// 404 for an unknown route. Only operators see it.
async fn unknown_route() -> HttpResponse {
    let message = "no such route; there are: POST /admin/providers/{name}, POST /admin/reload, GET, POST and DELETE \
                   /admin/drills, DELETE /admin/cache, POST /admin/cache/warm, DELETE /admin/conversations/{id}, GET /admin/audit";
    error_response(StatusCode::NOT_FOUND, "not_found", message)
}

/// Admits the operator, and records actions and denied requests. Successful reads are not recorded.
async fn audit_middleware<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, actix_web::Error> {
    let state = request.app_data::<web::Data<AppState>>().cloned();
    let Some(state) = state.filter(|state| state.settings().server.admin_token.is_some()) else {
        let response = request.into_response(not_found().await);
        return Ok(response.map_into_right_body());
    };
    let is_read = request.method() == Method::GET;
    let action = action_name(
        request.method(),
        request.match_pattern().as_deref().unwrap_or_default(),
    );
    let proxies = &state.settings().server.trusted_proxies;
    let peer = PeerKind::from_address(client_address(request.request(), proxies));
    let response = match deny(request.request(), &state) {
        Some(denied) => request.into_response(denied).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    };
    let outcome = AuditOutcome::from_status(response.status().as_u16());
    if !is_read || outcome == AuditOutcome::Refused {
        let subject = response
            .response()
            .extensions()
            .get::<AuditSubject>()
            .map(|subject| subject.0.clone());
        state.audit_log.record(AuditEntry {
            at: state.chat.turns.clock.wall(),
            action,
            subject,
            outcome,
            peer,
        });
    }
    Ok(response)
}

fn deny(request: &HttpRequest, state: &AppState) -> Option<HttpResponse> {
    let settings = state.settings();
    if access::check_own_origin(request, &settings.server).is_err() {
        let message = "pages of other sites may not use this API";
        let status = StatusCode::FORBIDDEN;
        return Some(error_response(status, "forbidden_origin", message));
    }
    if access::check_admin(request, &settings.server).is_err() {
        let message = "send server.admin_token as Authorization: Bearer TOKEN";
        let status = StatusCode::UNAUTHORIZED;
        return Some(error_response(status, "unauthorized", message));
    }
    None
}
