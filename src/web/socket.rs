//! `GET /ws`: the access check, then a session.

use actix_web::http::header::{HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use actix_web::http::{StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::WsResponseBuilder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::State;
use super::gate::{self, Shut};
use super::refusal::{refuse, refuse_until};
use crate::session::actor::SessionActor;
use crate::session::intake;

const VERSION: &str = "13";

/// Returns `true` for a valid `Sec-WebSocket-Key` (RFC 6455, section 4.2.1).
fn is_key(key: Option<&HeaderValue>) -> bool {
    let bytes = key.and_then(|key| STANDARD.decode(key).ok());
    bytes.is_some_and(|bytes| bytes.len() == 16)
}

pub async fn open(
    request: HttpRequest,
    body: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    match gate::visitor(&request, server) {
        Ok(()) => {}
        Err(Shut::ForeignOrigin) => {
            let message =
                "this site may not open the chat; its owner can add it to server.allowed_origins";
            return refuse(StatusCode::FORBIDDEN, "forbidden_origin", message);
        }
        Err(Shut::NoKey) => {
            let message =
                "a client other than a browser needs an API key: Authorization: Bearer KEY";
            return refuse(StatusCode::UNAUTHORIZED, "unauthorized", message);
        }
    }
    // RFC 6455, section 4.4: 13 is the only version. The library also accepts drafts.
    let version = request.headers().get(SEC_WEBSOCKET_VERSION);
    if version.is_some_and(|version| version.as_bytes() != VERSION.as_bytes()) {
        let message = "this WebSocket version is not supported; use 13";
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "bad_request", message);
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        response
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    if !is_key(request.headers().get(SEC_WEBSOCKET_KEY)) || request.version() < Version::HTTP_11 {
        let message = "not a WebSocket handshake: it needs HTTP/1.1 and a Sec-WebSocket-Key of 16 bytes in Base64";
        return refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    }
    let address = gate::address(&request, &server.trusted_proxies);
    let Some(permit) = state.connections.enter(address) else {
        return refuse_until(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many connections; try again soon",
            5,
        );
    };
    let frame_bytes = settings.limits.frame_bytes;
    let session = SessionActor::new(state.lobby.clone(), address, frame_bytes, permit);
    let body = intake::bounded(body, frame_bytes);
    match WsResponseBuilder::new(session, &request, body)
        .frame_size(frame_bytes)
        .start()
    {
        Ok(response) => response,
        Err(error) => refuse(
            StatusCode::BAD_REQUEST,
            "bad_request",
            &format!("not a WebSocket handshake: {error}"),
        ),
    }
}
