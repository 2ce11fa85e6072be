//! `POST /api/chat`: one message and its complete answer over plain HTTP, with the same turns as
//! the WebSocket.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::body;
use super::gate::{self, Shut};
use super::refusal::{only, refuse, refuse_until};
use super::{PATIENCE, State};
use crate::chat::{ClientMsgId, ConversationId, Finish, TurnRecord};
use crate::session::ask::{self, Accepted, Caller};
use crate::session::frames::{ErrorCode, Options, Refusal, deserialize_options};
use crate::session::hello::{new_conversation, not_known};
use crate::session::lobby::NotIn;
use crate::turn::desk::Wishes;
use crate::turn::rooms::Question;

#[derive(Deserialize)]
pub struct Message {
    message: String,
    conversation: Option<ConversationId>,
    #[serde(default, deserialize_with = "deserialize_options")]
    options: Option<Options>,
}

pub async fn chat(
    request: HttpRequest,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    match gate::api(&request, server) {
        Ok(()) => {}
        Err(Shut::ForeignOrigin) => {
            return refuse(
                StatusCode::FORBIDDEN,
                "forbidden_origin",
                "pages of other sites may not use this API",
            );
        }
        Err(Shut::NoKey) => {
            let message = "send one of server.api_keys as Authorization: Bearer KEY; without keys only direct calls from \
                           this machine are allowed";
            return refuse(StatusCode::UNAUTHORIZED, "unauthorized", message);
        }
    }
    let Message {
        message,
        conversation,
        options,
    } = match body::json(body).await {
        Ok(message) => message,
        Err(response) => return response,
    };
    let exists = conversation.is_some();
    let Some(conversation) = conversation.or_else(|| new_conversation().ok()) else {
        return refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "no conversation can be started at the moment",
        );
    };
    let opened = if exists {
        state.lobby.enter(conversation, None).await
    } else {
        Ok(state.lobby.begin(conversation))
    };
    let room = match opened {
        Ok(room) => room,
        Err(NotIn::Theirs) => {
            let message = "this conversation belongs to a signed-in visitor";
            return refuse(StatusCode::FORBIDDEN, "unauthorized", message);
        }
        Err(NotIn::Unknown) => return refused(&not_known()),
    };
    let client_msg_id = ClientMsgId::of_call((state.lobby.desk.random)());
    let options = match ask::named(&state.lobby, options, &client_msg_id) {
        Ok(options) => Wishes {
            patience: PATIENCE,
            ..options
        },
        Err(error) => return refused(&error),
    };
    state.lobby.catch_up(&room).await;
    let address = gate::address(&request, &server.trusted_proxies);
    let new_message = Question {
        client_msg_id,
        text: message,
        retry_of: None,
    };
    let sender = Caller {
        address,
        subject: None,
    };
    let log = match ask::send(&state.lobby, &room, &sender, new_message, options).await {
        Ok(Accepted::Opened(log) | Accepted::Known(log)) => log,
        Ok(Accepted::Stored(record)) => return answered(conversation, &record),
        Err(error) => return refused(&error),
    };
    let mut follower = log.follow();
    while follower.next().await.is_some() {}
    let record = Arc::clone(follower.log()).record();
    answered(conversation, &record)
}

pub async fn wrong_method() -> HttpResponse {
    only("POST")
}

fn answered(conversation: ConversationId, record: &TurnRecord) -> HttpResponse {
    // Programs check the status before `finish`: an interrupted answer must not look complete.
    if record.finish == Some(Finish::Interrupted) {
        let message = "the answer was cut off because the service restarts; send the message again";
        return refused(&Refusal::new(ErrorCode::ShuttingDown, message).retry_after(2));
    }
    HttpResponse::Ok()
        .insert_header(("x-provider", record.provider.as_deref().unwrap_or("none")))
        .insert_header(("x-source", source(record)))
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

fn source(record: &TurnRecord) -> &'static str {
    record.source.map_or("ai", crate::chat::Source::name)
}

fn refused(error: &Refusal) -> HttpResponse {
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
        Some(seconds) => refuse_until(status, code, &error.message, seconds),
        None => refuse(status, code, &error.message),
    }
}
