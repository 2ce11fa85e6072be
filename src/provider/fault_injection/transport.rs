//! A transport that injects the faults of a drill or of the demo. They look like failures of the real transport,
//! so that nothing above can tell the difference.

use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};
use tokio::time::Instant;

use super::events::{self, EventBuffer};
use super::fault::{CallFault, SLOW_TOKEN_INTERVAL, StreamFault};
use super::switch::{FaultSwitch, TrackedCall};
use crate::domain::{Failure, FaultKind};
use crate::provider::dialect::{Dialect, StreamDecoder};
use crate::provider::stream_event::StreamEvent;

/// The `Retry-After` of `rate_limit`, in seconds.
const RETRY_AFTER_SECONDS: &str = "30";

/// Broken JSON, as a separate event.
const GARBAGE_EVENT: &[u8] = b"\n\ndata: {\"outage\": {\"drill\n\n";

#[derive(Clone)]
pub struct FaultInjectingTransport<T> {
    transport: T,
    switch: Arc<FaultSwitch>,
    /// Recognises tokens in an answer. `None` passes bodies through unchanged.
    dialect: Option<Arc<dyn Dialect>>,
}

impl<T> FaultInjectingTransport<T> {
    /// Wraps a transport. Successful bodies must be guarded, that is consist of complete lines.
    pub fn new(transport: T, switch: Arc<FaultSwitch>, dialect: Option<Arc<dyn Dialect>>) -> Self {
        Self {
            transport,
            switch,
            dialect,
        }
    }
}

impl<T: HttpTransport> HttpTransport for FaultInjectingTransport<T> {
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let Self {
            transport,
            switch,
            dialect,
        } = self.clone();
        Box::pin(async move {
            let mut call = switch.track_call();
            // Hold the request back while the fault lasts: if the drill ends, it is sent as usual.
            while let Some(met) = call.call_fault() {
                match met {
                    CallFault::ConnectionRefused => {
                        return Err(injected_failure(FaultKind::Unreachable));
                    }
                    CallFault::Status(status) => return error_response(status),
                    CallFault::Hang => call.changed().await,
                    CallFault::None => break,
                }
            }
            let mut answer = pin!(transport.request(request));
            let answer = loop {
                // The head of an answer is no token, so `stall`, `cut` and `garbage` let it pass.
                match call.stream_fault(false) {
                    StreamFault::None | StreamFault::Throttle => tokio::select! {
                        biased;
                        () = call.changed() => {}
                        answer = &mut answer => break answer?,
                    },
                    StreamFault::Hang => call.changed().await,
                    StreamFault::Reset => return Err(injected_failure(FaultKind::Reset)),
                    StreamFault::Garbage => {
                        return Ok(http::Response::new(static_body(GARBAGE_EVENT)));
                    }
                }
            };
            match dialect {
                Some(dialect) if answer.status().is_success() => {
                    Ok(answer.map(|body| FaultyBody::new(body, call, dialect.decoder()).stream()))
                }
                _ => Ok(answer),
            }
        })
    }
}

fn injected_failure(fault: FaultKind) -> TransportError {
    TransportError::new(Failure::with_detail(fault, "an outage drill"))
}

fn static_body(bytes: &'static [u8]) -> ByteStream {
    Box::pin(stream::iter([Ok(Bytes::from_static(bytes))]))
}

fn error_response(status: u16) -> Result<http::Response<ByteStream>, TransportError> {
    let mut answer = http::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    if status == 429 {
        answer = answer.header(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    let body = static_body(br#"{"error":{"message":"An outage drill."}}"#);
    answer
        .body(body)
        .map_err(|_| injected_failure(FaultKind::Reset))
}

struct FaultyBody {
    /// `None` once the connection is closed.
    inner: Option<ByteStream>,
    call: TrackedCall,
    /// Bytes that arrived while the call was affected and were not passed on yet.
    events: EventBuffer,
    decoder: Box<dyn StreamDecoder + Send>,
    /// The time of the last token passed on under `slow`.
    last_token_at: Option<Instant>,
}

enum BodyEvent {
    Data(Bytes),
    /// The end, or an error.
    End(Option<TransportError>),
    DrillChanged,
}

impl FaultyBody {
    fn new(inner: ByteStream, call: TrackedCall, decoder: Box<dyn StreamDecoder + Send>) -> Self {
        Self {
            inner: Some(inner),
            call,
            events: EventBuffer::default(),
            decoder,
            last_token_at: None,
        }
    }

    fn stream(self) -> ByteStream {
        let parts = stream::unfold(self, |mut body| async move {
            let part = body.next_chunk().await?;
            Some((part, body))
        });
        // Never contended: `ByteStream` requires `Sync`, which the inner stream is not.
        let mut parts = Mutex::new(parts.boxed());
        Box::pin(stream::poll_fn(move |cx| {
            parts.get_mut().poll_next_unpin(cx)
        }))
    }

    /// Returns the next part of the body, or `None` at its end.
    async fn next_chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        loop {
            if self.inner.is_none() {
                return self.events.take_rest().map(Ok);
            }
            if let Some(broken) = self.break_off(false).await {
                return Some(broken);
            }
            let is_affected = self.call.is_affected();
            if !is_affected && let Some(rest) = self.events.take_rest() {
                return Some(Ok(rest));
            }
            let read = if is_affected {
                self.read_event().await
            } else {
                self.read_chunk().await
            };
            match read {
                BodyEvent::Data(event) if is_affected => return Some(self.inject(event).await),
                BodyEvent::Data(chunk) => return Some(Ok(chunk)),
                BodyEvent::End(None) if is_affected => {
                    // A fault still to come takes effect now: the answer would be complete
                    // otherwise.
                    self.inner = None;
                    if let Some(broken) = self.break_off(true).await {
                        return Some(broken);
                    }
                }
                BodyEvent::End(error) => return error.map(Err),
                BodyEvent::DrillChanged => {}
            }
        }
    }

    /// Lets the fault break the body. Returns `None` once it lets the answer go on.
    async fn break_off(&mut self, is_last: bool) -> Option<Result<Bytes, TransportError>> {
        loop {
            match self.call.stream_fault(is_last) {
                StreamFault::None | StreamFault::Throttle => return None,
                StreamFault::Hang => self.call.changed().await,
                StreamFault::Reset => {
                    self.disconnect();
                    return Some(Err(injected_failure(FaultKind::Reset)));
                }
                StreamFault::Garbage => {
                    self.disconnect();
                    return Some(Ok(Bytes::from_static(GARBAGE_EVENT)));
                }
            }
        }
    }

    /// Passes on an event at the pace of the fault. Before the last event the fault takes effect
    /// first, because the answer would be complete with it.
    async fn inject(&mut self, event: Bytes) -> Result<Bytes, TransportError> {
        let (name, data) = events::parse_event(&event);
        let mut steps = Vec::new();
        // A decoder that starts in mid-answer may fail: then every event counts as a token.
        let tokens = if self.decoder.decode(&name, &data, &mut steps).is_err() {
            1
        } else {
            if self.decoder.is_finished()
                && let Some(broken) = self.break_off(true).await
            {
                return broken;
            }
            let is_token = |step: &&_| matches!(step, StreamEvent::Text(_) | StreamEvent::Thinking);
            u32::try_from(steps.iter().filter(is_token).count()).unwrap_or(u32::MAX)
        };
        while tokens > 0 && self.call.stream_fault(false) == StreamFault::Throttle {
            let due = *self.last_token_at.get_or_insert_with(Instant::now) + SLOW_TOKEN_INTERVAL;
            if tokio::time::timeout_at(due, self.call.changed())
                .await
                .is_err()
            {
                self.last_token_at = Some(Instant::now());
                break;
            }
        }
        self.call.count_tokens(tokens);
        Ok(event)
    }

    fn disconnect(&mut self) {
        self.inner = None;
        self.events = EventBuffer::default();
    }

    async fn read_event(&mut self) -> BodyEvent {
        loop {
            if let Some(event) = self.events.next_event() {
                return BodyEvent::Data(event);
            }
            match self.read_chunk().await {
                BodyEvent::Data(chunk) => self.events.push(&chunk),
                other => return other,
            }
        }
    }

    async fn read_chunk(&mut self) -> BodyEvent {
        let Some(inner) = &mut self.inner else {
            return BodyEvent::End(None);
        };
        if self.call.has_changed() {
            self.call.changed().await;
            return BodyEvent::DrillChanged;
        }
        // Bytes first: usually they are ready, and no drill is running.
        tokio::select! {
            biased;
            chunk = inner.next() => match chunk {
                Some(Ok(chunk)) => BodyEvent::Data(chunk),
                Some(Err(error)) => {
                    self.inner = None;
                    BodyEvent::End(Some(error))
                }
                None => BodyEvent::End(None),
            },
            () = self.call.changed() => BodyEvent::DrillChanged,
        }
    }
}
