//! A transport that injects the faults of a drill. They look like failures of the real transport,
//! so that nothing above can tell the difference.

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

/// The `Retry-After` of `rate_limit`, in seconds.
const WAIT_S: &str = "30";

/// Broken JSON, as a separate event.
const GARBAGE: &[u8] = b"\n\ndata: {\"outage\": {\"drill\n\n";

#[derive(Clone)]
pub struct Drilled<T> {
    transport: T,
    switch: Arc<Switch>,
    /// Recognises tokens in an answer. `None` passes bodies through unchanged.
    dialect: Option<Arc<dyn Dialect>>,
}

impl<T> Drilled<T> {
    /// Wraps a transport. Successful bodies must be guarded, that is consist of complete lines.
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
            // Hold the request back while the fault lasts: if the drill ends, it is sent as usual.
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
                // The head of an answer is no token, so `stall`, `cut` and `garbage` let it pass.
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

struct Body {
    /// `None` once the connection is closed.
    inner: Option<ByteStream>,
    call: Call,
    /// Bytes that arrived while the call was affected and were not passed on yet.
    events: Events,
    reader: Box<dyn Reader + Send>,
    /// The time of the last token passed on under `slow`.
    last: Option<Instant>,
}

enum Came {
    Event(Bytes),
    /// The end, or an error.
    End(Option<TransportError>),
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
        // Never contended: `ByteStream` requires `Sync`, which the inner stream is not.
        let mut parts = Mutex::new(parts.boxed());
        Box::pin(stream::poll_fn(move |cx| {
            parts
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .poll_next_unpin(cx)
        }))
    }

    /// Returns the next part of the body, or `None` at its end.
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

    /// Passes on an event at the pace of the fault. Before the last event the fault takes effect
    /// first, because the answer would be complete with it.
    async fn befallen(&mut self, event: Bytes) -> Result<Bytes, TransportError> {
        let (name, data) = events::read(&event);
        let mut steps = Vec::new();
        // A decoder that starts in mid-answer may fail: then every event counts as a token.
        let read = self.reader.event(&name, &data, &mut steps);
        let tokens = if read.is_err() {
            1
        } else {
            let tokens = steps
                .iter()
                .filter(|step| matches!(step, Step::Text(_) | Step::Thinking))
                .count();
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

    /// Handles the end of an affected body: a fault still to come takes effect now, because the
    /// answer would be complete otherwise.
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

    fn let_go(&mut self) {
        self.inner = None;
        self.events = Events::default();
    }

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

    async fn chunk(&mut self) -> Came {
        let Some(inner) = &mut self.inner else {
            return Came::End(None);
        };
        if self.call.is_out_of_date() {
            self.call.changed().await;
            return Came::Change;
        }
        // Bytes first: usually they are ready, and no drill is running.
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
