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

use super::Pace;
use super::answers;
use super::fault::{Condition, Fault};
use super::heard::Heard;
use super::speak::{Refusal, Saying, Script, Speaks, request_id};
use super::tell::{changed, reset, tell};

const MAX_BODY: usize = 1 << 20;

const BODY_TIME: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Desk {
    pub name: String,
    pub model: String,
    pub dialect: Speaks,
    pub pace: Pace,
    pub calls: AtomicU64,
}

type Reply = Response<BoxBody<Bytes, io::Error>>;

impl Desk {
    /// # Errors
    /// If the connection must be reset instead, or the request ends early.
    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
        mut fault_states: watch::Receiver<Condition>,
    ) -> io::Result<Reply> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let is_chat =
            request.method() == Method::POST && request.uri().path() == self.dialect.chat_path();
        let is_model_list =
            request.method() == Method::GET && request.uri().path() == self.dialect.list_path();
        // Read the whole body even if the request is rejected: closing a socket with unread bytes
        // would reset the connection before the client sees the response.
        let body = match read(request.into_body()).await? {
            Ok(body) => body,
            Err(error) => return self.refuse(&error, call),
        };
        let started_under = *fault_states.borrow_and_update();
        match started_under.fault {
            Some(Fault::Down) => return Err(reset()),
            Some(Fault::RateLimit) => return self.refuse(&Refusal::RateLimited, call),
            Some(Fault::Unauthorized) => return self.refuse(&Refusal::Unauthorized, call),
            Some(Fault::Timeout) => {
                changed(&mut fault_states).await;
                return Err(reset());
            }
            _ if is_model_list => {
                return self.reply(200, call, self.dialect.list(&self.model).to_string());
            }
            _ if !is_chat => return self.refuse(&Refusal::NotFound, call),
            _ => {}
        }
        let reply = match self.dialect.hear(&body) {
            Ok(chat) => self.script(&chat, call),
            Err(error) => return self.refuse(&error, call),
        };
        let head = self
            .head(200, call)
            .header(CONTENT_TYPE, reply.content_type);
        head.body(tell(reply, self.pace, started_under, fault_states).boxed())
            .map_err(io::Error::other)
    }

    fn script(&self, chat: &Heard, call: u64) -> Script {
        let answer = answers::reply(chat, &self.name);
        let mut words = answers::words(&answer);
        let limit = chat.limit.unwrap_or(usize::MAX);
        let shortened = words.len() > limit;
        words.truncate(limit);
        let saying = Saying {
            call,
            model: &self.model,
            words: &words,
            shortened,
            prompt_words: chat.prompt_words,
        };
        self.dialect.script(chat, &saying)
    }

    fn refuse(&self, error: &Refusal, call: u64) -> io::Result<Reply> {
        let mut reply = self.reply(
            error.status(),
            call,
            self.dialect.error(error, call).to_string(),
        )?;
        if *error == Refusal::RateLimited {
            reply
                .headers_mut()
                .insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("30"));
        }
        Ok(reply)
    }

    fn reply(&self, status: u16, call: u64, json: String) -> io::Result<Reply> {
        let body = Full::from(json).map_err(|never| match never {}).boxed();
        self.head(status, call)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(io::Error::other)
    }

    fn head(&self, status: u16, call: u64) -> Builder {
        let head = Response::builder().status(status);
        match self.dialect.id_header() {
            Some(name) => head.header(name, request_id(call)),
            None => head,
        }
    }
}

/// Reads a body within the limits. The outer error means that the connection is unusable.
async fn read(body: Incoming) -> io::Result<Result<Bytes, Refusal>> {
    match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await? {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(Refusal::TooLarge)),
        Err(error) => Err(io::Error::other(error)),
    }
}
