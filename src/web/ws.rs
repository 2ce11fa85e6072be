//! `GET /ws`: the access check, then a session.

use actix_web::http::header::{HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use actix_web::http::{StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::WsResponseBuilder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::AppState;
use super::access::{self, AccessDenied};
use super::client_address::client_address;
use super::error::{bad_request, busy, error_response};
use crate::session::actor::SessionActor;
use crate::session::frame_guard;

const WEBSOCKET_VERSION: &str = "13";

/// Returns `true` for a valid `Sec-WebSocket-Key` (RFC 6455, section 4.2.1).
fn is_handshake_key(key: Option<&HeaderValue>) -> bool {
    let bytes = key.and_then(|key| STANDARD.decode(key).ok());
    bytes.is_some_and(|bytes| bytes.len() == 16)
}

pub async fn open_session(
    request: HttpRequest,
    body: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    match access::check_visitor(&request, server) {
        Ok(()) => {}
        Err(AccessDenied::ForeignOrigin) => {
            let message =
                "this site may not open the chat; its owner can add it to server.allowed_origins";
            return error_response(StatusCode::FORBIDDEN, "forbidden_origin", message);
        }
        Err(AccessDenied::MissingKey) => {
            let message =
                "a client other than a browser needs an API key: Authorization: Bearer KEY";
            return error_response(StatusCode::UNAUTHORIZED, "unauthorized", message);
        }
    }
    // RFC 6455, section 4.4: 13 is the only version. The library also accepts drafts.
    let version = request.headers().get(SEC_WEBSOCKET_VERSION);
    if version.is_some_and(|version| version.as_bytes() != WEBSOCKET_VERSION.as_bytes()) {
        let message = "this WebSocket version is not supported; use 13";
        let mut response = error_response(StatusCode::UPGRADE_REQUIRED, "bad_request", message);
        for (name, value) in [
            (SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION),
            (UPGRADE, "websocket"),
        ] {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        return response;
    }
    if !is_handshake_key(request.headers().get(SEC_WEBSOCKET_KEY))
        || request.version() < Version::HTTP_11
    {
        let message = "not a WebSocket handshake: it needs HTTP/1.1 and a Sec-WebSocket-Key of 16 bytes in Base64";
        return bad_request(message);
    }
    let address = client_address(&request, &server.trusted_proxies);
    let Some(permit) = state.connections.try_acquire(address) else {
        return busy("too many connections; try again soon", 5);
    };
    let frame_bytes = settings.limits.frame_bytes;
    let session = SessionActor::new(state.chat.clone(), address, frame_bytes, permit);
    let body = frame_guard::limit_frames(body, frame_bytes);
    match WsResponseBuilder::new(session, &request, body)
        .frame_size(frame_bytes)
        .start()
    {
        Ok(response) => response,
        Err(error) => bad_request(&format!("not a WebSocket handshake: {error}")),
    }
}
