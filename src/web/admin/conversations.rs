//! `DELETE /admin/conversations/{id}`: forgets a conversation.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::about;
use crate::chat::ConversationId;
use crate::turn::forget::{NotForgotten, forget};
use crate::web::State;
use crate::web::refusal::{refuse, refuse_until};

/// Forgets it, whether it was known or not. In the audit log stands a part of the hash of its id: whoever has the id knows it again, and it opens nothing.
pub async fn remove(id: web::Path<String>, state: web::Data<State>) -> HttpResponse {
    let Ok(id) = id.parse::<ConversationId>() else {
        let message = "no conversation's id: 22 characters of base64url";
        return refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    };
    let answer = match forget(&state.lobby.desk, id).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "forgotten": true })),
        Err(why) => {
            let message = match why {
                NotForgotten::Runs => "an answer of it does not end; try again",
                NotForgotten::Store => {
                    "the store does not answer; the conversation may be left, try again"
                }
            };
            refuse_until(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 5)
        }
    };
    about(answer, mark(id))
}

/// The first 32 bits of the id's hash.
fn mark(id: ConversationId) -> String {
    let hash = Sha256::digest(id.to_string());
    let first: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256 {first}")
}
