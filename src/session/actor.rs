//! The actor that carries frames between one WebSocket and the session task, and knows nothing of
//! turns.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext as _, AsyncContext as _, StreamHandler};
use actix_http::ws::Item;
use actix_web_actors::ws::{CloseCode, CloseReason, Message, ProtocolError, WebsocketContext};
use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::frame_guard::is_frame_too_large;
use super::outgoing::Outgoing;
use super::protocol::{self, ClientError, ErrorCode, HEARTBEAT_S};
use super::run::run_session;
use super::service::ChatService;

/// The client frames that may wait for the session task. Frames beyond it are rejected.
const INBOX_CAPACITY: usize = 64;

/// The batches of frames that may wait for the socket. It is small because a follower stops reading
/// its turn's log while the outbox is full.
const OUTBOX_CAPACITY: usize = 2;

const TOO_LARGE: &str = "the message is too large";

const NOT_TEXT: &str = "frames are JSON text, not binary";

const NOT_UTF_8: &str = "the message is not UTF-8";

pub struct SessionActor {
    service: Arc<ChatService>,
    peer: IpAddr,
    frame_bytes: usize,
    /// Counts the connection until the session ends.
    _connection_permit: Box<dyn Send>,
    inbox: Option<mpsc::Sender<ByteString>>,
    fragments: Option<Vec<u8>>,
    /// The time of the last WebSocket frame of any kind.
    last_seen: Instant,
}

type Context = WebsocketContext<SessionActor>;

impl SessionActor {
    /// Creates a session for `peer`.
    ///
    /// A message, in one frame or in fragments, has at most `frame_bytes`. `connection_permit` is
    /// dropped when the session ends.
    pub fn new(
        service: Arc<ChatService>,
        peer: IpAddr,
        frame_bytes: usize,
        connection_permit: impl Send + 'static,
    ) -> Self {
        Self {
            service,
            peer,
            frame_bytes,
            _connection_permit: Box::new(connection_permit),
            inbox: None,
            fragments: None,
            last_seen: Instant::now(),
        }
    }

    fn on_text(&mut self, text: ByteString, ctx: &mut Context) {
        let Some(inbox) = &self.inbox else { return };
        if let Err(mpsc::error::TrySendError::Full(text)) = inbox.try_send(text) {
            let message = "too many frames at once; send this one again later";
            let mut error = ClientError::new(ErrorCode::RateLimited, message).retry_after(1);
            error.client_msg_id = protocol::client_msg_id(&text).map(|id| id.to_string());
            ctx.text(ByteString::from(&error));
        }
    }

    /// Joins fragments into a message, up to the same size limit as an unfragmented message.
    fn on_fragment(&mut self, bytes: &[u8], last: bool, ctx: &mut Context) {
        let mut message = self.fragments.take().unwrap_or_default();
        if message.len() + bytes.len() > self.frame_bytes {
            return close(ctx, CloseCode::Size, TOO_LARGE);
        }
        message.extend_from_slice(bytes);
        if !last {
            self.fragments = Some(message);
            return;
        }
        match String::from_utf8(message) {
            Ok(text) => self.on_text(text.into(), ctx),
            Err(_) => close(ctx, CloseCode::Invalid, NOT_UTF_8),
        }
    }

    /// Closes an idle connection, and pings the others: a live client answers even if it is silent.
    fn heartbeat(&mut self, ctx: &mut Context) {
        if self.last_seen.elapsed() > self.service.settings().limits.idle {
            return close(ctx, CloseCode::Away, "idle for too long");
        }
        ctx.ping(b"");
    }
}

fn close(ctx: &mut Context, code: CloseCode, reason: &str) {
    ctx.close(Some(CloseReason {
        code,
        description: Some(reason.to_owned()),
    }));
    ctx.stop();
}

impl Actor for SessionActor {
    type Context = Context;

    fn started(&mut self, ctx: &mut Context) {
        let (inbox, client_frames) = mpsc::channel(INBOX_CAPACITY);
        let (outgoing, outbox) = mpsc::channel(OUTBOX_CAPACITY);
        self.inbox = Some(inbox);
        ctx.add_stream(ReceiverStream::new(outbox));
        ctx.run_interval(Duration::from_secs(HEARTBEAT_S), Self::heartbeat);
        actix::spawn(run_session(
            Arc::clone(&self.service),
            self.peer,
            client_frames,
            outgoing,
        ));
    }
}

impl StreamHandler<Outgoing> for SessionActor {
    fn handle(&mut self, outgoing: Outgoing, ctx: &mut Context) {
        match outgoing {
            Outgoing::Frames(frames) => frames.into_iter().for_each(|frame| ctx.text(frame)),
            Outgoing::Close(code, reason) => close(ctx, CloseCode::from(code), reason),
        }
    }

    /// The session task ended without a close frame, for example after a panic. The client
    /// reconnects.
    fn finished(&mut self, ctx: &mut Context) {
        close(ctx, CloseCode::Error, "the session ended");
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for SessionActor {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Context) {
        use Message as M;
        self.last_seen = Instant::now();
        match message {
            Ok(M::Text(text)) => self.on_text(text, ctx),
            Ok(M::Binary(_)) => {
                let error = ClientError::new(ErrorCode::BadRequest, NOT_TEXT);
                ctx.text(ByteString::from(&error));
            }
            Ok(M::Continuation(Item::FirstText(bytes) | Item::Continue(bytes))) => {
                self.on_fragment(&bytes, false, ctx);
            }
            Ok(M::Continuation(Item::Last(bytes))) => self.on_fragment(&bytes, true, ctx),
            Ok(M::Continuation(Item::FirstBinary(_))) => {
                close(ctx, CloseCode::Unsupported, NOT_TEXT);
            }
            Ok(M::Ping(bytes)) => ctx.pong(&bytes),
            Ok(M::Pong(_) | M::Nop) => {}
            Ok(M::Close(reason)) => {
                ctx.close(reason.map(|reason| CloseReason {
                    code: reason.code,
                    description: None,
                }));
                ctx.stop();
            }
            Err(ProtocolError::Overflow) => close(ctx, CloseCode::Size, TOO_LARGE),
            Err(ProtocolError::Io(error)) if is_frame_too_large(&error) => {
                close(ctx, CloseCode::Size, TOO_LARGE);
            }
            // The decoder reports text that is not UTF-8 as an I/O error of its own making.
            Err(ProtocolError::Io(error)) if error.to_string().contains("utf-8") => {
                close(ctx, CloseCode::Invalid, NOT_UTF_8);
            }
            Err(_) => close(ctx, CloseCode::Protocol, "not the WebSocket protocol"),
        }
    }

    fn finished(&mut self, ctx: &mut Context) {
        ctx.stop();
    }
}
