//! `POST /admin/providers/{name}`: enables or disables a provider, or resets its breaker.

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

#[derive(Deserialize)]
struct Order {
    action: String,
}

pub async fn order(
    name: web::Path<String>,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let update: Order = match body::json(body).await {
        Ok(update) => update,
        Err(response) => return response,
    };
    let table = state.lobby.desk.table();
    let Some(provider) = table.backend(&name) else {
        let names: Vec<_> = table
            .backends
            .iter()
            .map(|provider| &*provider.name)
            .collect();
        let message = format!("no provider has that name; there are: {}", names.join(", "));
        return refuse(StatusCode::NOT_FOUND, "not_found", &message);
    };
    let new_state = match update.action.as_str() {
        "enable" => tell(provider, Enable(true)).await,
        "disable" => tell(provider, Enable(false)).await,
        "reset" => tell(provider, Reset).await,
        _ => {
            let message = "action: one of enable, disable, reset";
            return about(
                refuse(StatusCode::BAD_REQUEST, "bad_request", message),
                &*provider.name,
            );
        }
    };
    let response = match new_state {
        Some(state) => {
            HttpResponse::Ok().json(json!({ "provider": provider.name, "state": state }))
        }
        None => {
            let message =
                "the provider's actor does not answer; nothing may have changed, try again";
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 1)
        }
    };
    // Both the name and the action are known words here, not text from the caller.
    about(response, format!("{}: {}", provider.name, update.action))
}

/// Sends a command to the provider's actor and returns the provider's state afterwards.
///
/// `None` if the actor does not answer, even after the time a restart takes.
pub async fn tell<M>(provider: &Backend, command: M) -> Option<ProviderState>
where
    M: actix::Message<Result = ()> + Send + 'static,
    crate::provider::actor::ProviderActor: actix::Handler<M>,
{
    let actor = provider.actor.borrow().clone()?;
    tokio::time::timeout(LAST_LIMIT, actor.send(command))
        .await
        .ok()?
        .ok()?;
    Some(provider.vitals.borrow().state)
}
