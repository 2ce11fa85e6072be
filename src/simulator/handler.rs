//! Handling of one request to a simulator.

use std::convert::Infallible;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use tokio::time::{sleep, timeout};

use super::TypingSpeed;
use super::answers;
use super::chat_request::SimulatedRequest;
use super::wire::{ReplySpec, ScriptedReply, SimulatedError, WireFormat, request_id};

const MAX_BODY_BYTES: usize = 1 << 20;

const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct ServerState {
    pub name: String,
    pub model: String,
    pub dialect: WireFormat,
    pub typing_speed: TypingSpeed,
    pub call_count: AtomicU64,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl ServerState {
    /// # Errors
    /// If the connection is unusable.
    pub(super) async fn handle_request(
        &self,
        request: Request<Incoming>,
    ) -> io::Result<Response<Body>> {
        let call = self.call_count.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        // Read the whole body even if the request is rejected: closing a socket with unread bytes
        // would reset the connection before the client sees the response.
        let body = read_body(body).await?;
        let answer = body.and_then(|body| match (head.method, head.uri.path()) {
            (Method::POST, path) if path == self.dialect.chat_path() => {
                let chat = self.dialect.parse_request(&body)?;
                Ok(self.render_answer(&chat, call))
            }
            (Method::GET, path) if path == self.dialect.models_path() => {
                let models = self.dialect.models_json(&self.model);
                Ok(ScriptedReply::single_piece(&models, 0))
            }
            _ => Err(SimulatedError::NotFound),
        });
        let mut head = Response::builder();
        if let Some(name) = self.dialect.request_id_header() {
            head = head.header(name, request_id(call));
        }
        let (status, reply) = match answer {
            Ok(reply) => (200, reply),
            Err(error) => {
                let json = self.dialect.error_json(&error, call);
                (error.status(), ScriptedReply::single_piece(&json, 0))
            }
        };
        head.status(status)
            .header(CONTENT_TYPE, reply.content_type)
            .body(stream_reply(reply, self.typing_speed))
            .map_err(io::Error::other)
    }

    fn render_answer(&self, chat: &SimulatedRequest, call: u64) -> ScriptedReply {
        let answer = answers::answer_request(chat, &self.name);
        let mut words = answers::split_words(&answer);
        let limit = chat.max_words.unwrap_or(usize::MAX);
        let is_truncated = words.len() > limit;
        words.truncate(limit);
        let reply = ReplySpec {
            call_number: call,
            model: &self.model,
            words: &words,
            is_truncated,
            prompt_words: chat.prompt_words,
        };
        self.dialect.render(chat, &reply)
    }
}

/// Sends an answer word by word.
fn stream_reply(mut reply: ScriptedReply, speed: TypingSpeed) -> Body {
    if let Some(first) = reply.words.first_mut() {
        first.insert_str(0, &reply.opening);
    }
    let waits = iter::once(speed.first_token).chain(iter::repeat(speed.word_interval));
    let words = waits.zip(reply.words);
    let pieces = stream::iter(words.chain([(Duration::ZERO, reply.closing)]));
    let frames = pieces.filter_map(|(wait, piece)| async move {
        sleep(wait).await;
        (!piece.is_empty()).then(|| Ok(Frame::data(Bytes::from(piece))))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Reads a body within the limits. The outer error means that the connection is unusable.
async fn read_body(body: Incoming) -> io::Result<Result<Bytes, SimulatedError>> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    match timeout(BODY_READ_TIMEOUT, body).await? {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(SimulatedError::TooLarge)),
        Err(error) => Err(io::Error::other(error)),
    }
}
