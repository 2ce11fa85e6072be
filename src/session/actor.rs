//! The SessionActor: a thin shell that carries frames between one WebSocket and [`drive`](super::drive). It knows sockets, not turns.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext as _, AsyncContext as _, StreamHandler};
use actix_web_actors::ws::{CloseCode, CloseReason, Message, ProtocolError, WebsocketContext};
use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::drive::{Out, drive};
use super::frames::{ErrorCode, HEARTBEAT_S, Refusal};
use super::intake::is_too_big;
use super::lobby::Lobby;

/// Frames of the client that wait to be read; more at once are refused, not kept.
const INBOX: usize = 64;

/// Batches for the client that wait for the socket. Few: a follower reads on only when there is room.
const OUTBOX: usize = 2;

/// One WebSocket.
pub struct SessionActor {
    lobby: Arc<Lobby>,
    peer: IpAddr,
    frame_bytes: usize,
    /// What is to be freed when the session ends: its place among the connections.
    _place: Box<dyn Send>,
    inbox: Option<mpsc::Sender<ByteString>>,
    /// The beginning of a message that comes in fragments.
    fragments: Option<Vec<u8>>,
    heard: Instant,
}

type Context = WebsocketContext<SessionActor>;

impl SessionActor {
    /// A session for the socket of `peer`. Whole messages, also those in fragments, have at most `frame_bytes`.
    /// `place` is dropped when it ends.
    pub fn new(
        lobby: Arc<Lobby>,
        peer: IpAddr,
        frame_bytes: usize,
        place: impl Send + 'static,
    ) -> Self {
        Self {
            lobby,
            peer,
            frame_bytes,
            _place: Box::new(place),
            inbox: None,
            fragments: None,
            heard: Instant::now(),
        }
    }

    fn hear(&mut self, text: ByteString, ctx: &mut Context) {
        let Some(inbox) = &self.inbox else { return };
        if let Err(mpsc::error::TrySendError::Full(text)) = inbox.try_send(text) {
            let refusal = Refusal::new(
                ErrorCode::RateLimited,
                "too many frames at once; send this one again later",
            );
            let refusal = match super::frames::message_of(&text) {
                Some(id) => refusal.about(&id),
                None => refusal,
            };
            ctx.text(ByteString::from(&refusal.retry_after(1)));
        }
    }

    /// A message in fragments is put together up to the same bound as a whole one.
    fn fragment(&mut self, bytes: &[u8], last: bool, ctx: &mut Context) {
        let mut whole = self.fragments.take().unwrap_or_default();
        if whole.len() + bytes.len() > self.frame_bytes {
            return close(ctx, CloseCode::Size, "the message is too big");
        }
        whole.extend_from_slice(bytes);
        if !last {
            self.fragments = Some(whole);
            return;
        }
        match String::from_utf8(whole) {
            Ok(text) => self.hear(text.into(), ctx),
            Err(_) => close(ctx, CloseCode::Invalid, "the message is not UTF-8"),
        }
    }

    /// Every heartbeat: a Ping, so that a silent but living client is known from a dead one.
    fn beat(&mut self, ctx: &mut Context) {
        if self.heard.elapsed() > self.lobby.settings().limits.idle {
            return close(ctx, CloseCode::Away, "idle for too long");
        }
        ctx.ping(b"");
    }
}

fn close(ctx: &mut Context, code: CloseCode, why: &str) {
    ctx.close(Some(CloseReason {
        code,
        description: Some(why.to_owned()),
    }));
    ctx.stop();
}

impl Actor for SessionActor {
    type Context = Context;

    fn started(&mut self, ctx: &mut Context) {
        let (inbox, from) = mpsc::channel(INBOX);
        let (to, outbox) = mpsc::channel(OUTBOX);
        self.inbox = Some(inbox);
        ctx.add_stream(ReceiverStream::new(outbox));
        ctx.run_interval(Duration::from_secs(HEARTBEAT_S), Self::beat);
        actix::spawn(drive(Arc::clone(&self.lobby), self.peer, from, to));
    }
}

impl StreamHandler<Out> for SessionActor {
    fn handle(&mut self, out: Out, ctx: &mut Context) {
        match out {
            Out::Frames(frames) => frames.into_iter().for_each(|frame| ctx.text(frame)),
            Out::Close(code, why) => close(ctx, CloseCode::from(code), why),
        }
    }

    /// The session's task ended without a close: it is over, or it panicked. The client connects again.
    fn finished(&mut self, ctx: &mut Context) {
        close(ctx, CloseCode::Error, "the session ended");
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for SessionActor {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Context) {
        use actix_web_actors::ws::Message as M;
        self.heard = Instant::now();
        match message {
            Ok(M::Text(text)) => self.hear(text, ctx),
            Ok(M::Binary(_)) => {
                let refusal =
                    Refusal::new(ErrorCode::BadRequest, "frames are JSON text, not binary");
                ctx.text(ByteString::from(&refusal));
            }
            Ok(M::Continuation(item)) => {
                use actix_http::ws::Item;
                match item {
                    Item::FirstText(bytes) => self.fragment(&bytes, false, ctx),
                    Item::Continue(bytes) => self.fragment(&bytes, false, ctx),
                    Item::Last(bytes) => self.fragment(&bytes, true, ctx),
                    Item::FirstBinary(_) => close(
                        ctx,
                        CloseCode::Unsupported,
                        "frames are JSON text, not binary",
                    ),
                }
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
            Err(ProtocolError::Overflow) => close(ctx, CloseCode::Size, "the message is too big"),
            Err(ProtocolError::Io(error)) if is_too_big(&error) => {
                close(ctx, CloseCode::Size, "the message is too big");
            }
            // The decoder reports text that is not UTF-8 as an I/O error of its own making.
            Err(ProtocolError::Io(error)) if error.to_string().contains("utf-8") => {
                close(ctx, CloseCode::Invalid, "the message is not UTF-8");
            }
            Err(_) => close(ctx, CloseCode::Protocol, "not the WebSocket protocol"),
        }
    }

    /// The client is gone.
    fn finished(&mut self, ctx: &mut Context) {
        ctx.stop();
    }
}
