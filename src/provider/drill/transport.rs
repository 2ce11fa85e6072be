//! A transport whose calls a drill can befall. Its faults are told as the real transport tells them, so that nothing above knows the difference.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use tokio::time::Instant;

use super::effect::{Met, Next, SLOW};
use super::events::{self, Events};
use super::switch::{Call, Switch};
use crate::chat::{Failure, Fault};
use crate::provider::dialect::{Dialect, Reader};
use crate::provider::upstream::Step;

/// What `rate_limit` asks for, in seconds.
const WAIT_S: &str = "30";

/// Broken JSON, as an event of its own.
const GARBAGE: &[u8] = b"\n\ndata: {\"outage\": {\"drill\n\n";

/// A transport under a provider's switch.
#[derive(Clone)]
pub struct Drilled<T> {
    transport: T,
    switch: Arc<Switch>,
    /// Tells what of an answer is a token. None: its body is not looked at.
    dialect: Option<Arc<dyn Dialect>>,
}

impl<T> Drilled<T> {
    /// Puts a transport under this switch. Good answers must come guarded, as whole lines; where they are in this dialect, its tokens count.
    pub fn new(transport: T, switch: Arc<Switch>, dialect: Option<Arc<dyn Dialect>>) -> Self {
        Self {
            transport,
            switch,
            dialect,
        }
    }
}

impl<T: HttpTransport> HttpTransport for Drilled<T> {
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let Self {
            transport,
            switch,
            dialect,
        } = self.clone();
        Box::pin(async move {
            let mut call = switch.call();
            // The connections of this provider are as they were when the drill ends: what was held back until then is sent.
            while let Some(met) = call.met() {
                match met {
                    Met::Refused => return Err(failed(Fault::Unreachable)),
                    Met::Status(status) => return refusal(status),
                    Met::Silence => call.changed().await,
                    Met::Answered => break,
                }
            }
            let mut answer = pin!(transport.request(request));
            let answer = loop {
                // What is born under a fault has ten tokens before it; the head is none.
                match call.next(false) {
                    Next::GoOn | Next::Slowly => tokio::select! {
                        biased;
                        () = call.changed() => {}
                        answer = &mut answer => break answer?,
                    },
                    Next::Silence => call.changed().await,
                    Next::Reset => return Err(failed(Fault::Reset)),
                    Next::Garbage => return Ok(http::Response::new(body_of(GARBAGE))),
                }
            };
            match dialect {
                Some(dialect) if answer.status().is_success() => {
                    Ok(answer.map(|body| Body::new(body, call, dialect.reader()).stream()))
                }
                _ => Ok(answer),
            }
        })
    }
}

fn failed(fault: Fault) -> TransportError {
    TransportError::new(Failure::with(fault, "an outage drill"))
}

fn body_of(bytes: &'static [u8]) -> ByteStream {
    Box::pin(stream::iter([Ok(Bytes::from_static(bytes))]))
}

fn refusal(status: u16) -> Result<http::Response<ByteStream>, TransportError> {
    let mut answer = http::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    if status == 429 {
        answer = answer.header(RETRY_AFTER, WAIT_S);
    }
    let body = body_of(br#"{"error":{"message":"An outage drill."}}"#);
    answer.body(body).map_err(|_| failed(Fault::Reset))
}

/// The body of a good answer.
struct Body {
    /// None once the connection is let go.
    inner: Option<ByteStream>,
    call: Call,
    /// What came while the call was befallen, and was not handed on yet.
    events: Events,
    reader: Box<dyn Reader + Send>,
    /// When the last token was handed on under `slow`.
    last: Option<Instant>,
}

/// What came next.
enum Came {
    Event(Bytes),
    /// The end, or an error.
    End(Option<TransportError>),
    /// A drill began or ended.
    Change,
}

impl Body {
    fn new(inner: ByteStream, call: Call, reader: Box<dyn Reader + Send>) -> Self {
        Self {
            inner: Some(inner),
            call,
            events: Events::default(),
            reader,
            last: None,
        }
    }

    fn stream(self) -> ByteStream {
        let parts = stream::unfold(self, |mut body| async move {
            let part = body.part().await?;
            Some((part, body))
        });
        // Never locked: the type of such streams asks for what can be shared between threads.
        let mut parts = Mutex::new(parts.boxed());
        Box::pin(stream::poll_fn(move |cx| {
            parts
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .poll_next_unpin(cx)
        }))
    }

    /// The next part of the body; none at its end.
    async fn part(&mut self) -> Option<Result<Bytes, TransportError>> {
        loop {
            match self.call.next(false) {
                _ if self.inner.is_none() => return self.events.rest().map(Ok),
                Next::Silence => self.call.changed().await,
                Next::Reset => return Some(Err(self.broken())),
                Next::Garbage => return Some(Ok(self.garbled())),
                Next::GoOn if !self.call.is_befallen() => {
                    if let Some(rest) = self.events.rest() {
                        return Some(Ok(rest));
                    }
                    match self.chunk().await {
                        Came::Event(chunk) => return Some(Ok(chunk)),
                        Came::End(error) => return error.map(Err),
                        Came::Change => {}
                    }
                }
                Next::GoOn | Next::Slowly => match self.event().await {
                    Came::Event(event) => return Some(self.befallen(event).await),
                    Came::End(Some(error)) => return Some(Err(error)),
                    Came::End(None) => return self.last_words().await,
                    Came::Change => {}
                },
            }
        }
    }

    /// An event under a fault that lets it through, at its pace; but for the last one, before which the fault acts: the answer would be whole.
    async fn befallen(&mut self, event: Bytes) -> Result<Bytes, TransportError> {
        let (name, data) = events::read(&event);
        let mut steps = Vec::new();
        // A reader that begins in mid-answer may understand nothing: then every event is a token.
        let read = self.reader.event(&name, &data, &mut steps);
        let tokens = steps
            .iter()
            .filter(|step| matches!(step, Step::Text(_) | Step::Thinking))
            .count();
        let tokens = if read.is_err() {
            1
        } else {
            u32::try_from(tokens).unwrap_or(u32::MAX)
        };
        while read.is_ok() && self.reader.ended() {
            match self.call.next(true) {
                Next::GoOn | Next::Slowly => break,
                Next::Silence => self.call.changed().await,
                Next::Reset => return Err(self.broken()),
                Next::Garbage => return Ok(self.garbled()),
            }
        }
        while tokens > 0 && self.call.next(false) == Next::Slowly {
            let due = *self.last.get_or_insert_with(Instant::now) + SLOW;
            if tokio::time::timeout_at(due, self.call.changed())
                .await
                .is_err()
            {
                self.last = Some(Instant::now());
                break;
            }
        }
        self.call.tell(tokens);
        Ok(event)
    }

    /// The end of a body whose call is befallen: what is to break it does so now, or the answer would be whole.
    async fn last_words(&mut self) -> Option<Result<Bytes, TransportError>> {
        self.inner = None;
        loop {
            match self.call.next(true) {
                Next::GoOn | Next::Slowly => return self.events.rest().map(Ok),
                Next::Silence => self.call.changed().await,
                Next::Reset => return Some(Err(self.broken())),
                Next::Garbage => return Some(Ok(self.garbled())),
            }
        }
    }

    fn broken(&mut self) -> TransportError {
        self.let_go();
        failed(Fault::Reset)
    }

    fn garbled(&mut self) -> Bytes {
        self.let_go();
        Bytes::from_static(GARBAGE)
    }

    /// Closes the provider's connection; nothing follows.
    fn let_go(&mut self) {
        self.inner = None;
        self.events = Events::default();
    }

    /// The next whole event.
    async fn event(&mut self) -> Came {
        loop {
            if let Some(event) = self.events.whole() {
                return Came::Event(event);
            }
            match self.chunk().await {
                Came::Event(chunk) => self.events.push(&chunk),
                other => return other,
            }
        }
    }

    /// The next bytes.
    async fn chunk(&mut self) -> Came {
        let Some(inner) = &mut self.inner else {
            return Came::End(None);
        };
        if self.call.is_out_of_date() {
            self.call.changed().await;
            return Came::Change;
        }
        // The bytes first: mostly they are there, and no drill is to be waited for.
        tokio::select! {
            biased;
            chunk = inner.next() => match chunk {
                Some(Ok(chunk)) => Came::Event(chunk),
                Some(Err(error)) => {
                    self.inner = None;
                    Came::End(Some(error))
                }
                None => Came::End(None),
            },
            () = self.call.changed() => Came::Change,
        }
    }
}
