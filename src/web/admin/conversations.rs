//! `DELETE /admin/conversations/{id}`: deletes a conversation.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::about;
use crate::chat::ConversationId;
use crate::turn::forget::{NotForgotten, forget};
use crate::web::State;
use crate::web::refusal::{refuse, refuse_until};

/// Deletes a conversation, whether or not it exists. The audit log gets a part of the id's hash:
/// whoever has the id can recognise it, and the hash gives no access.
pub async fn remove(id: web::Path<String>, state: web::Data<State>) -> HttpResponse {
    let Ok(id) = id.parse::<ConversationId>() else {
        let message = "not a conversation id, which has 22 characters of base64url";
        return refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    };
    let response = match forget(&state.lobby.desk, id).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "forgotten": true })),
        Err(error) => {
            let message = match error {
                NotForgotten::Runs => "one of its answers does not end; try again",
                NotForgotten::Store => {
                    "the store does not answer; the conversation may not be deleted yet, try again"
                }
            };
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 5)
        }
    };
    about(response, mark(id))
}

/// Returns the first 32 bits of the id's hash.
fn mark(id: ConversationId) -> String {
    let hash = Sha256::digest(id.to_string());
    let prefix: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256 {prefix}")
}
