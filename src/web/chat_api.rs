//! `POST /api/chat`: one message and its complete answer over plain HTTP, with the same turns as
//! the WebSocket.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::access::{self, AccessDenied};
use super::client_address::client_address;
use super::error::{error_response, error_with_retry_after, method_not_allowed};
use super::extract;
use super::{API_ORPHAN_GRACE, AppState};
use crate::domain::{AnswerSource, ClientMsgId, ConversationId, FinishReason, TurnRecord};
use crate::session::messages::{self, AcceptedMessage, MessageSender};
use crate::session::protocol::{ClientError, ErrorCode, MessageOptions, deserialize_options};
use crate::session::service::random_conversation_id;
use crate::turn::conversations::NewMessage;
use crate::turn::deps::TurnOptions;

#[derive(Deserialize)]
pub struct ChatApiRequest {
    message: String,
    conversation: Option<ConversationId>,
    #[serde(default, deserialize_with = "deserialize_options")]
    options: Option<MessageOptions>,
}

pub async fn chat(
    request: HttpRequest,
    body: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    match access::check_api(&request, server) {
        Ok(()) => {}
        Err(AccessDenied::ForeignOrigin) => {
            let message = "pages of other sites may not use this API";
            return error_response(StatusCode::FORBIDDEN, "forbidden_origin", message);
        }
        Err(AccessDenied::MissingKey) => {
            let message = "send one of server.api_keys as Authorization: Bearer KEY; without keys only direct calls from \
                           this machine are allowed";
            return error_response(StatusCode::UNAUTHORIZED, "unauthorized", message);
        }
    }
    let ChatApiRequest {
        message: text,
        conversation,
        options,
    } = match extract::read_json(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let is_new = conversation.is_none();
    let Some(id) = conversation.or_else(random_conversation_id) else {
        let message = "no conversation can be started at the moment";
        return error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal", message);
    };
    let opened = if is_new {
        Ok(state.chat.create_conversation(id))
    } else {
        state.chat.open_conversation(id, None).await
    };
    let conversation = match opened {
        Ok(conversation) => conversation,
        Err(error) if error.code == ErrorCode::Unauthorized => {
            let message = "this conversation belongs to a signed-in visitor";
            return error_response(StatusCode::FORBIDDEN, "unauthorized", message);
        }
        Err(error) => return client_error_response(&error),
    };
    let client_msg_id = ClientMsgId::for_http_call((state.chat.turns.random_u64)());
    let options = match messages::resolve_options(&state.chat, options, &client_msg_id) {
        Ok(options) => TurnOptions {
            orphan_grace: API_ORPHAN_GRACE,
            ..options
        },
        Err(error) => return client_error_response(&error),
    };
    state.chat.sync_last_turn(&conversation).await;
    let message = NewMessage {
        client_msg_id,
        text,
        retry_of: None,
    };
    let sender = MessageSender {
        address: client_address(&request, &server.trusted_proxies),
        subject: None,
    };
    let accepted =
        messages::submit_message(&state.chat, &conversation, &sender, message, options).await;
    match accepted {
        Ok(AcceptedMessage::Started(log) | AcceptedMessage::Duplicate(log)) => {
            let mut follower = log.follow();
            while follower.next().await.is_some() {}
            answer_response(id, &log.record())
        }
        Ok(AcceptedMessage::AlreadyStored(record)) => answer_response(id, &record),
        Err(error) => client_error_response(&error),
    }
}

pub async fn wrong_method() -> HttpResponse {
    method_not_allowed("POST")
}

fn answer_response(conversation: ConversationId, record: &TurnRecord) -> HttpResponse {
    // Programs check the status before `finish`: an interrupted answer must not look complete.
    if record.finish == Some(FinishReason::Interrupted) {
        let message = "the answer was cut off because the service restarts; send the message again";
        let error = ClientError::new(ErrorCode::ShuttingDown, message).retry_after(2);
        return client_error_response(&error);
    }
    HttpResponse::Ok()
        .insert_header(("x-provider", record.provider.as_deref().unwrap_or("none")))
        .insert_header(("x-source", record.source.map_or("ai", AnswerSource::as_str)))
        .insert_header(("x-degraded", if record.degraded { "true" } else { "false" }))
        .insert_header(("x-attempts", record.attempts.to_string()))
        .insert_header(("x-request-id", record.turn.to_string()))
        .json(json!({
            "message": record.text,
            "source": record.source,
            "degraded": record.degraded,
            "provider": record.provider,
            "model": record.model,
            "conversation": conversation,
            "turn": record.turn,
            "attempts": record.attempts,
            "finish": record.finish,
        }))
}

fn client_error_response(error: &ClientError) -> HttpResponse {
    let (status, code) = match error.code {
        ErrorCode::BadRequest => (StatusCode::BAD_REQUEST, "bad_request"),
        ErrorCode::MessageTooLong => (StatusCode::PAYLOAD_TOO_LARGE, "message_too_long"),
        ErrorCode::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        ErrorCode::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        ErrorCode::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ErrorCode::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        ErrorCode::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        ErrorCode::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    match error.retry_after_s {
        Some(seconds) => error_with_retry_after(status, code, &error.message, seconds),
        None => error_response(status, code, &error.message),
    }
}
