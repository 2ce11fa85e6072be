//! `POST /admin/providers/{name}`: enables or disables a provider, or resets its breaker.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::with_subject;
use crate::domain::ProviderState;
use crate::provider::actor::{ProviderActor, ResetBreaker, SetEnabled};
use crate::provider::handle::Provider;
use crate::router::actor::SECOND_ROUND_TIMEOUT;
use crate::web::AppState;
use crate::web::error::{bad_request, busy, error_response};
use crate::web::extract;

#[derive(Deserialize)]
struct ProviderAction {
    action: String,
}

pub async fn update_provider(
    name: web::Path<String>,
    body: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    let update: ProviderAction = match extract::read_json(body).await {
        Ok(update) => update,
        Err(response) => return response,
    };
    let table = state.chat.turns.config();
    let Some(provider) = table.provider(&name) else {
        let providers = table.providers.iter();
        let names: Vec<_> = providers.map(|provider| &*provider.name).collect();
        let message = format!("no provider has that name; there are: {}", names.join(", "));
        return error_response(StatusCode::NOT_FOUND, "not_found", &message);
    };
    let new_state = match update.action.as_str() {
        "enable" => send_command(provider, SetEnabled(true)).await,
        "disable" => send_command(provider, SetEnabled(false)).await,
        "reset" => send_command(provider, ResetBreaker).await,
        _ => {
            let response = bad_request("action: one of enable, disable, reset");
            return with_subject(response, &*provider.name);
        }
    };
    let response = match new_state {
        Some(state) => {
            HttpResponse::Ok().json(json!({ "provider": provider.name, "state": state }))
        }
        None => busy(
            "the provider's actor does not answer; nothing may have changed, try again",
            1,
        ),
    };
    // Both the name and the action are known words here, not text from the caller.
    with_subject(response, format!("{}: {}", provider.name, update.action))
}

/// Sends a command to the provider's actor and returns the provider's state afterwards.
///
/// `None` if the actor does not answer, even after the time a restart takes.
pub async fn send_command<M>(provider: &Provider, command: M) -> Option<ProviderState>
where
    M: actix::Message<Result = ()> + Send + 'static,
    ProviderActor: actix::Handler<M>,
{
    let actor = provider.actor.borrow().clone()?;
    tokio::time::timeout(SECOND_ROUND_TIMEOUT, actor.send(command))
        .await
        .ok()?
        .ok()?;
    Some(provider.status.borrow().state)
}
