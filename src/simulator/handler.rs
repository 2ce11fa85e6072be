//! Handling of one request to a simulator.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response};
use tokio::sync::watch;
use tokio::time::timeout;

use super::TypingSpeed;
use super::answers;
use super::chat_request::SimulatedRequest;
use super::fault::{FaultState, InjectedFault};
use super::reply_stream::{connection_reset, fault_changed, stream_reply};
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

type BoxedResponse = Response<BoxBody<Bytes, io::Error>>;

impl ServerState {
    /// # Errors
    /// If the connection must be reset instead, or the request ends early.
    pub(super) async fn handle_request(
        &self,
        request: Request<Incoming>,
        mut conditions: watch::Receiver<FaultState>,
    ) -> io::Result<BoxedResponse> {
        let call = self.call_count.fetch_add(1, Ordering::Relaxed);
        let is_chat =
            request.method() == Method::POST && request.uri().path() == self.dialect.chat_path();
        let is_model_list =
            request.method() == Method::GET && request.uri().path() == self.dialect.models_path();
        // Read the whole body even if the request is rejected: closing a socket with unread bytes
        // would reset the connection before the client sees the response.
        let body = match read_body(request.into_body()).await? {
            Ok(body) => body,
            Err(refusal) => return self.error_response(&refusal, call),
        };
        let began = *conditions.borrow_and_update();
        match began.fault {
            Some(InjectedFault::Down) => return Err(connection_reset()),
            Some(InjectedFault::RateLimit) => {
                return self.error_response(&SimulatedError::RateLimited, call);
            }
            Some(InjectedFault::Unauthorized) => {
                return self.error_response(&SimulatedError::Unauthorized, call);
            }
            Some(InjectedFault::Timeout) => {
                fault_changed(&mut conditions).await;
                return Err(connection_reset());
            }
            _ if is_model_list => {
                return self.json_response(
                    200,
                    call,
                    self.dialect.models_json(&self.model).to_string(),
                );
            }
            _ if !is_chat => return self.error_response(&SimulatedError::NotFound, call),
            _ => {}
        }
        let script = match self.dialect.parse_request(&body) {
            Ok(chat) => self.render_answer(&chat, call),
            Err(refusal) => return self.error_response(&refusal, call),
        };
        let head = self
            .response_builder(200, call)
            .header(CONTENT_TYPE, script.content_type);
        head.body(stream_reply(script, self.typing_speed, began, conditions).boxed())
            .map_err(io::Error::other)
    }

    fn render_answer(&self, chat: &SimulatedRequest, call: u64) -> ScriptedReply {
        let answer = answers::answer_request(chat, &self.name);
        let mut words = answers::split_words(&answer);
        let limit = chat.max_words.unwrap_or(usize::MAX);
        let shortened = words.len() > limit;
        words.truncate(limit);
        let saying = ReplySpec {
            call_number: call,
            model: &self.model,
            words: &words,
            is_truncated: shortened,
            prompt_words: chat.prompt_words,
        };
        self.dialect.render(chat, &saying)
    }

    fn error_response(&self, refusal: &SimulatedError, call: u64) -> io::Result<BoxedResponse> {
        let mut reply = self.json_response(
            refusal.status(),
            call,
            self.dialect.error_json(refusal, call).to_string(),
        )?;
        if *refusal == SimulatedError::RateLimited {
            reply
                .headers_mut()
                .insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("30"));
        }
        Ok(reply)
    }

    fn json_response(&self, status: u16, call: u64, json: String) -> io::Result<BoxedResponse> {
        let body = Full::from(json).map_err(|never| match never {}).boxed();
        self.response_builder(status, call)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(io::Error::other)
    }

    fn response_builder(&self, status: u16, call: u64) -> Builder {
        let head = Response::builder().status(status);
        match self.dialect.request_id_header() {
            Some(name) => head.header(name, request_id(call)),
            None => head,
        }
    }
}

/// Reads a body within the limits. The outer error means that the connection is unusable.
async fn read_body(body: Incoming) -> io::Result<Result<Bytes, SimulatedError>> {
    match timeout(
        BODY_READ_TIMEOUT,
        Limited::new(body, MAX_BODY_BYTES).collect(),
    )
    .await?
    {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(SimulatedError::TooLarge)),
        Err(error) => Err(io::Error::other(error)),
    }
}
