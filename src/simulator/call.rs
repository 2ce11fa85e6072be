//! One request to a simulator: which route, refused or answered.

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

/// The largest request body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The longest that a request body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What every connection of a simulator knows.
#[derive(Debug)]
pub(super) struct Desk {
    pub name: String,
    pub model: String,
    pub dialect: Speaks,
    pub pace: Pace,
    /// Counts the calls, for their ids.
    pub calls: AtomicU64,
}

type Reply = Response<BoxBody<Bytes, io::Error>>;

impl Desk {
    /// Answers one request.
    ///
    /// # Errors
    /// When the connection is to be reset instead, or the request breaks off.
    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
        mut now: watch::Receiver<Condition>,
    ) -> io::Result<Reply> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let chat =
            request.method() == Method::POST && request.uri().path() == self.dialect.chat_path();
        let list =
            request.method() == Method::GET && request.uri().path() == self.dialect.list_path();
        // Read whole even when it is refused: closing on unread bytes would reset the connection under the refusal.
        let body = match read(request.into_body()).await? {
            Ok(body) => body,
            Err(refusal) => return self.refuse(&refusal, call),
        };
        let began = *now.borrow_and_update();
        match began.fault {
            Some(Fault::Down) => return Err(reset()),
            Some(Fault::RateLimit) => return self.refuse(&Refusal::RateLimited, call),
            Some(Fault::Unauthorized) => return self.refuse(&Refusal::Unauthorized, call),
            Some(Fault::Timeout) => {
                changed(&mut now).await;
                return Err(reset());
            }
            _ if list => return self.reply(200, call, self.dialect.list(&self.model).to_string()),
            _ if !chat => return self.refuse(&Refusal::NotFound, call),
            _ => {}
        }
        let script = match self.dialect.hear(&body) {
            Ok(heard) => self.script(&heard, call),
            Err(refusal) => return self.refuse(&refusal, call),
        };
        let head = self
            .head(200, call)
            .header(CONTENT_TYPE, script.content_type);
        head.body(tell(script, self.pace, began, now).boxed())
            .map_err(io::Error::other)
    }

    fn script(&self, heard: &Heard, call: u64) -> Script {
        let answer = answers::reply(heard, &self.name);
        let mut words = answers::words(&answer);
        let limit = heard.limit.unwrap_or(usize::MAX);
        let shortened = words.len() > limit;
        words.truncate(limit);
        let saying = Saying {
            call,
            model: &self.model,
            words: &words,
            shortened,
            prompt_words: heard.prompt_words,
        };
        self.dialect.script(heard, &saying)
    }

    fn refuse(&self, refusal: &Refusal, call: u64) -> io::Result<Reply> {
        let mut reply = self.reply(
            refusal.status(),
            call,
            self.dialect.error(refusal, call).to_string(),
        )?;
        if *refusal == Refusal::RateLimited {
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

/// Reads a body whole within its bounds. The outer error is a connection that is no good any more.
async fn read(body: Incoming) -> io::Result<Result<Bytes, Refusal>> {
    match timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await? {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(Refusal::TooLarge)),
        Err(error) => Err(io::Error::other(error)),
    }
}
