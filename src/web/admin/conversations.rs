//! `DELETE /admin/conversations/{id}`: deletes a conversation.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::with_subject;
use crate::domain::ConversationId;
use crate::turn::retention::{self, DeleteError};
use crate::web::AppState;
use crate::web::error::{error_response, error_with_retry_after};

/// Deletes a conversation, whether or not it exists. The audit log gets a part of the id's hash:
/// whoever has the id can recognise it, and the hash gives no access.
pub async fn delete_conversation(
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> HttpResponse {
    let Ok(id) = id.parse::<ConversationId>() else {
        let message = "not a conversation id, which has 22 characters of base64url";
        return error_response(StatusCode::BAD_REQUEST, "bad_request", message);
    };
    let response = match retention::delete_conversation(&state.chat.turns, id).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "forgotten": true })),
        Err(error) => {
            let message = match error {
                DeleteError::StillRunning => "one of its answers does not end; try again",
                DeleteError::Store => {
                    "the store does not answer; the conversation may not be deleted yet, try again"
                }
            };
            error_with_retry_after(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 5)
        }
    };
    with_subject(response, id_fingerprint(id))
}

/// Returns the first 32 bits of the id's hash.
fn id_fingerprint(id: ConversationId) -> String {
    let hash = Sha256::digest(id.to_string());
    let prefix: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256 {prefix}")
}
