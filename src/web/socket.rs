//! `GET /ws`: the gate, then a session.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::WsResponseBuilder;

use super::State;
use super::gate::{self, Shut};
use super::refusal::{refuse, refuse_until};
use crate::session::actor::SessionActor;
use crate::session::intake;

/// Opens a session.
pub async fn open(request: HttpRequest, body: web::Payload, state: web::Data<State>) -> HttpResponse {
    let settings = state.settings();
    let server = &settings.server;
    match gate::visitor(&request, server) {
        Ok(()) => {}
        Err(Shut::ForeignOrigin) => {
            let message = "this site may not open the chat; its owner can add it to server.allowed_origins";
            return refuse(StatusCode::FORBIDDEN, "forbidden_origin", message);
        }
        Err(Shut::NoKey) => {
            let message = "a client that is no browser needs an API key: Authorization: Bearer KEY";
            return refuse(StatusCode::UNAUTHORIZED, "unauthorized", message);
        }
    }
    let address = gate::address(&request, &server.trusted_proxies);
    let Some(place) = state.connections.enter(address) else {
        return refuse_until(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many connections; try again soon",
            5,
        );
    };
    let frame_bytes = settings.limits.frame_bytes;
    let session = SessionActor::new(state.lobby.clone(), address, frame_bytes, place);
    let body = intake::bounded(body, frame_bytes);
    match WsResponseBuilder::new(session, &request, body).frame_size(frame_bytes).start() {
        Ok(answer) => answer,
        Err(error) => {
            refuse(StatusCode::BAD_REQUEST, "bad_request", &format!("no WebSocket handshake: {error}"))
        }
    }
}
