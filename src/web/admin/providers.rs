//! `POST /admin/providers/{name}`: switches a provider on and off, or closes its breaker.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::about;
use crate::chat::ProviderState;
use crate::provider::actor::{Enable, Reset};
use crate::provider::backend::Backend;
use crate::router::actor::LAST_LIMIT;
use crate::web::State;
use crate::web::body;
use crate::web::refusal::{refuse, refuse_until};

/// What to do to a provider.
#[derive(Deserialize)]
struct Order {
    action: String,
}

/// Carries out `enable`, `disable` or `reset`.
pub async fn order(
    name: web::Path<String>,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let order: Order = match body::json(body).await {
        Ok(order) => order,
        Err(refusal) => return refusal,
    };
    let table = state.lobby.desk.table();
    let Some(backend) = table.backend(&name) else {
        let known: Vec<_> = table.backends.iter().map(|one| &*one.name).collect();
        let message = format!("no provider has that name; there are: {}", known.join(", "));
        return refuse(StatusCode::NOT_FOUND, "not_found", &message);
    };
    let done = match order.action.as_str() {
        "enable" => tell(backend, Enable(true)).await,
        "disable" => tell(backend, Enable(false)).await,
        "reset" => tell(backend, Reset).await,
        _ => {
            let message = "action: one of enable, disable, reset";
            return about(
                refuse(StatusCode::BAD_REQUEST, "bad_request", message),
                &*backend.name,
            );
        }
    };
    let answer = match done {
        Some(state) => HttpResponse::Ok().json(json!({ "provider": backend.name, "state": state })),
        None => {
            let message =
                "the provider's actor does not answer; nothing may have changed, try again";
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 1)
        }
    };
    // The name and the action are known words by now.
    about(answer, format!("{}: {}", backend.name, order.action))
}

/// Has the provider's actor do it, waiting no longer than a rebuilt one takes; gives the state that it is in then, none where the actor did not answer in time.
pub async fn tell<M>(backend: &Backend, order: M) -> Option<ProviderState>
where
    M: actix::Message<Result = ()> + Send + 'static,
    crate::provider::actor::ProviderActor: actix::Handler<M>,
{
    let actor = backend.actor.borrow().clone()?;
    tokio::time::timeout(LAST_LIMIT, actor.send(order))
        .await
        .ok()?
        .ok()?;
    Some(backend.vitals.borrow().state)
}
