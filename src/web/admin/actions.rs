//! What an operator can do besides drills and providers: reload the configuration, empty or warm the
//! answer cache, delete a conversation, read the audit log.

use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::with_subject;
use crate::domain::ConversationId;
use crate::ops::reload::ReloadError;
use crate::turn::retention::{self, DeleteError};
use crate::web::AppState;
use crate::web::error::{bad_request, busy};

/// `GET /admin/audit`: the latest actions of operators, and denied requests.
pub async fn list_audit(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "entries": state.audit_log.recent() }))
}

/// `DELETE /admin/cache`: removes all cached answers.
pub async fn clear_cache(state: web::Data<AppState>) -> HttpResponse {
    match state.chat.turns.answer_cache.clear().await {
        Ok(removed) => HttpResponse::Ok().json(json!({ "removed": removed })),
        Err(_) => busy(
            "the store does not answer; some cached answers may remain, try again",
            5,
        ),
    }
}

/// `POST /admin/cache/warm`: starts asking the warm questions one after the other, at any hour and
/// however fresh their cached answers are. Responds at once with their number.
pub async fn warm_cache(state: web::Data<AppState>) -> HttpResponse {
    let cache = &state.settings().cache;
    if !cache.enabled {
        return bad_request("the answer cache is off; set cache.enabled");
    }
    if cache.warm.is_empty() {
        return bad_request("there are no warm questions; add some to cache.warm");
    }
    state.chat.turns.warm_now.notify_one();
    HttpResponse::Accepted().json(json!({ "questions": cache.warm.len() }))
}

/// `DELETE /admin/conversations/{id}`: deletes a conversation, whether or not it exists.
///
/// The audit log gets a part of the id's hash: whoever has the id can recognise it, and the hash
/// gives no access.
pub async fn delete_conversation(
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> HttpResponse {
    let Ok(id) = id.parse::<ConversationId>() else {
        return bad_request("not a conversation id, which has 22 characters of base64url");
    };
    let response = match retention::delete_conversation(&state.chat.turns, id).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "forgotten": true })),
        Err(DeleteError::StillRunning) => busy("one of its answers does not end; try again", 5),
        Err(DeleteError::Store) => busy(
            "the store does not answer; the conversation may not be deleted yet, try again",
            5,
        ),
    };
    with_subject(response, id_fingerprint(id))
}

/// `POST /admin/reload`: reloads the configuration.
///
/// Responds with what changed, or with every problem and its file, line and key. The log has the
/// same.
pub async fn reload_config(state: web::Data<AppState>) -> HttpResponse {
    match state.reloads.reload().await {
        Ok(reloaded) => HttpResponse::Ok().json(reloaded),
        Err(ReloadError::InvalidConfig(problems)) => {
            let message = "the configuration has problems; nothing was changed";
            let error = json!({ "code": "invalid_configuration", "message": message, "problems": problems });
            HttpResponse::build(StatusCode::UNPROCESSABLE_ENTITY).json(json!({ "error": error }))
        }
        Err(ReloadError::Failed(reason)) => busy(reason, 5),
    }
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
