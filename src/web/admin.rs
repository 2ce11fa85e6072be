//! `/admin`: what an operator does to a running service. Without a configured admin token there is nothing here.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::State;
use super::body;
use super::gate;
use super::refusal::{not_found, refuse, refuse_until};
use crate::chat::ProviderState;
use crate::provider::actor::{Enable, Reset};
use crate::provider::backend::Backend;
use crate::router::actor::LAST_LIMIT;

/// What to do to a provider.
#[derive(Deserialize)]
pub struct Order {
    action: String,
}

/// `POST /admin/providers/{name}`: `enable`, `disable`, `reset`.
pub async fn provider(
    request: HttpRequest,
    name: web::Path<String>,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    if let Some(refusal) = shut(&request, &state).await {
        return refusal;
    }
    let order: Order = match body::json(body).await {
        Ok(order) => order,
        Err(refusal) => return refusal,
    };
    let backends = &state.lobby.desk.backends;
    let Some(backend) = backends.iter().find(|one| &*one.name == name.as_str()) else {
        let known: Vec<_> = backends.iter().map(|one| &*one.name).collect();
        let message = format!("no provider has that name; there are: {}", known.join(", "));
        return refuse(StatusCode::NOT_FOUND, "not_found", &message);
    };
    let done = match order.action.as_str() {
        "enable" => tell(backend, Enable(true)).await,
        "disable" => tell(backend, Enable(false)).await,
        "reset" => tell(backend, Reset).await,
        _ => {
            let message = "action: one of enable, disable, reset";
            return refuse(StatusCode::BAD_REQUEST, "bad_request", message);
        }
    };
    // The name and the action are known words by now.
    tracing::info!(provider = %backend.name, action = order.action, done = done.is_some(), "an operator's order");
    match done {
        Some(state) => HttpResponse::Ok().json(json!({ "provider": backend.name, "state": state })),
        None => {
            let message = "the provider's actor does not answer; nothing may have changed, try again";
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 1)
        }
    }
}

/// What who may give no orders is told; none for the operator.
pub(super) async fn shut(request: &HttpRequest, state: &State) -> Option<HttpResponse> {
    let server = &state.settings.server;
    if server.admin_token.is_none() {
        return Some(not_found().await);
    }
    if gate::own_page(request, server).is_err() {
        let message = "other sites' pages give no orders here";
        return Some(refuse(StatusCode::FORBIDDEN, "forbidden_origin", message));
    }
    if gate::operator(request, server).is_err() {
        tracing::warn!("an order without the admin token was refused");
        let message = "send server.admin_token as Authorization: Bearer TOKEN";
        return Some(refuse(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    None
}

/// Has the provider's actor do it, waiting no longer than a rebuilt one takes; gives the state that it is in then, none where the actor did not answer in time.
pub(super) async fn tell<M>(backend: &Backend, order: M) -> Option<ProviderState>
where
    M: actix::Message<Result = ()> + Send + 'static,
    crate::provider::actor::ProviderActor: actix::Handler<M>,
{
    let actor = backend.actor.borrow().clone()?;
    tokio::time::timeout(LAST_LIMIT, actor.send(order)).await.ok()?.ok()?;
    Some(backend.vitals.borrow().state)
}
