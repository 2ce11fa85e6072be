//! A provider reached over HTTP: one POST per chat request, in the provider's dialect.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventsource_client::{
    BoxStream, Client as _, ClientBuilder, Error, ReconnectOptions, Response, SSE,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::header::{ACCEPT, CONTENT_TYPE};
use launchdarkly_sdk_transport::{HttpTransport as _, TransportError};

use crate::domain::{ChatRequest, Failure, FaultKind, FinishReason, Timestamp};

use super::dialect::{Dialect, ErrorResponse, Framing, ProviderRequest, StreamDecoder};
use super::fault_injection::{FaultInjectingTransport, FaultSwitch};
use super::sse_transport::{SanitizingTransport, detect_framing, read_error_body};
use super::stream_event::{EventStream, ProviderClient, StreamEvent};
use super::transport::Transport;

const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The maximum wait for the end of the body after a complete answer. The connection can only be
/// reused after it, and it mostly arrives with the end mark.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(10);

/// The maximum number of remapped requests per chat request, one for each thing that servers are
/// known to reject.
const MAX_REMAPPINGS: u32 = 4;

const JSON_MIME: &str = "application/json";

#[derive(Clone)]
pub struct HttpProviderClient {
    base_url: Arc<str>,
    dialect: Arc<dyn Dialect>,
    transport: Transport,
    fault_switch: Arc<FaultSwitch>,
}

impl HttpProviderClient {
    /// `base_url` is the prefix of the dialect's paths. `fault_switch` may inject faults into the
    /// calls.
    pub fn new(
        base_url: &str,
        dialect: Arc<dyn Dialect>,
        transport: Transport,
        fault_switch: Arc<FaultSwitch>,
    ) -> Self {
        Self {
            base_url: base_url.trim_end_matches('/').into(),
            dialect,
            transport,
            fault_switch,
        }
    }

    async fn check_listing(&self) -> Result<(), Failure> {
        let call = self.dialect.list_models_request();
        let mut request = http::Request::get(self.url(&call)).header(ACCEPT, JSON_MIME);
        for (name, value) in &call.headers {
            request = request.header(name.as_ref(), value);
        }
        let request = request.body(None).map_err(|_| invalid_request())?;
        let transport = FaultInjectingTransport::new(
            self.transport.clone(),
            Arc::clone(&self.fault_switch),
            None,
        );
        let response = transport.request(request).await;
        let response = response.map_err(|error| transport_failure(&error))?;
        if response.status().is_success() || response.status().is_redirection() {
            return detect_framing(&response, call.framing).map(|_| ());
        }
        let (head, body) = response.into_parts();
        let head = Response::new(head.status, head.headers);
        let body = read_error_body(body).await;
        Err(with_error_response(&head, &body, |response| {
            self.classify_error(response)
        }))
    }

    fn url(&self, call: &ProviderRequest) -> String {
        format!("{}{}", self.base_url, call.path)
    }

    /// Sends a chat request, and again whenever the dialect has corrected its mapping.
    async fn open_stream(&self, request: &ChatRequest) -> Result<AnswerStream, Failure> {
        let mut remappings = 0;
        let mut call = self.dialect.chat_request(request);
        loop {
            let mut events = self.post(&call)?;
            match events.next().await {
                Some(Ok(_)) => {
                    return Ok(AnswerStream {
                        sse_events: events,
                        decoder: self.dialect.decoder(),
                        has_events: false,
                        text_bytes: 0,
                    });
                }
                Some(Err(Error::UnexpectedResponse(head, body))) => {
                    let body = read_error_body(body.into_stream()).await;
                    // Let the dialect adapt in any case: the next chat request benefits too.
                    let (failure, has_adapted) = with_error_response(&head, &body, |response| {
                        (
                            self.classify_error(response),
                            self.dialect.adapt_to_rejection(&call, response),
                        )
                    });
                    let next = self.dialect.chat_request(request);
                    // What was learned may not change this request.
                    if remappings == MAX_REMAPPINGS || !has_adapted || next == call {
                        return Err(failure);
                    }
                    call = next;
                    remappings += 1;
                }
                Some(Err(error)) => return Err(failure_from(&error)),
                None => return Err(Failure::new(FaultKind::Empty)),
            }
        }
    }

    /// Sends one POST and returns its events. Reconnects, retries and redirects of the SSE client
    /// are turned off, because each of them would send the request again.
    fn post(
        &self,
        call: &ProviderRequest,
    ) -> Result<BoxStream<eventsource_client::Result<SSE>>, Failure> {
        let accept = match call.framing {
            Framing::Sse => "text/event-stream",
            Framing::Lines => "application/x-ndjson",
        };
        let no_reconnect = ReconnectOptions::reconnect(false)
            .retry_initial(false)
            .build();
        let build = || {
            let mut builder = ClientBuilder::for_url(&self.url(call))?
                .method("POST".to_owned())
                .header(CONTENT_TYPE.as_str(), JSON_MIME)?
                .header(ACCEPT.as_str(), accept)?;
            for (name, value) in &call.headers {
                builder = builder.header(name, value)?;
            }
            Ok(builder
                .body(call.body.clone())
                .redirect_limit(0)
                .reconnect(no_reconnect))
        };
        let builder = build().map_err(|_: Error| invalid_request())?;
        let sanitizing = SanitizingTransport::new(self.transport.clone(), call.framing);
        let transport = FaultInjectingTransport::new(
            sanitizing,
            Arc::clone(&self.fault_switch),
            Some(Arc::clone(&self.dialect)),
        );
        Ok(builder.build_with_transport(transport).stream())
    }

    fn classify_error(&self, response: &ErrorResponse<'_>) -> Failure {
        Failure {
            status: Some(response.status),
            ..self.dialect.classify_error(response)
        }
    }
}

fn with_error_response<T>(
    head: &Response,
    body: &[u8],
    classify: impl FnOnce(&ErrorResponse<'_>) -> T,
) -> T {
    let header = |name: &str| {
        head.get_header_value(name)
            .ok()
            .flatten()
            .map(str::to_owned)
    };
    classify(&ErrorResponse {
        status: head.status(),
        header: &header,
        body,
        now: Timestamp::from_system_time(SystemTime::now()),
    })
}

impl ProviderClient for HttpProviderClient {
    fn stream_chat(&self, request: &ChatRequest) -> EventStream {
        let client = self.clone();
        let request = request.clone();
        let opened = async move { client.open_stream(&request).await };
        let events = opened.map(|opened| match opened {
            Ok(answer) => answer.into_events(),
            Err(failure) => stream::once(async { Err(failure) }).boxed(),
        });
        events.flatten_stream().fuse().boxed()
    }

    fn list_models(&self) -> BoxFuture<'static, Result<(), Failure>> {
        let client = self.clone();
        async move { client.check_listing().await }.boxed()
    }
}

struct AnswerStream {
    sse_events: BoxStream<eventsource_client::Result<SSE>>,
    decoder: Box<dyn StreamDecoder + Send>,
    has_events: bool,
    text_bytes: usize,
}

impl AnswerStream {
    /// The events until the end. The connection is closed before the last one is yielded.
    fn into_events(self) -> EventStream {
        let events = stream::unfold(
            (Some(self), VecDeque::new()),
            |(mut answer, mut ready)| async move {
                // One SSE event may yield none or several events.
                while ready.is_empty() {
                    let mut decoded = Vec::new();
                    let end = answer.as_mut()?.read_event(&mut decoded).await;
                    ready.extend(decoded.into_iter().map(Ok));
                    let end = end.transpose().map(|end| end.map(StreamEvent::Finished));
                    if end.is_some() {
                        answer = None;
                    }
                    ready.extend(end);
                }
                ready.pop_front().map(|event| (event, (answer, ready)))
            },
        );
        events.boxed()
    }

    /// Reads one SSE event. Returns the finish once the answer is complete.
    async fn read_event(
        &mut self,
        out: &mut Vec<StreamEvent>,
    ) -> Result<Option<FinishReason>, Failure> {
        let sse_event = match self.sse_events.next().await {
            Some(Ok(SSE::Event(event))) => event,
            Some(Ok(_)) => return Ok(None),
            Some(Err(Error::Eof)) if self.has_events => {
                return self.decoder.finish_result().map(Some);
            }
            Some(Err(Error::Eof)) | None => return Err(Failure::new(FaultKind::Empty)),
            Some(Err(error)) => return Err(failure_from(&error)),
        };
        self.has_events = true;
        let decoded = self
            .decoder
            .decode(&sse_event.event_type, &sse_event.data, out);
        // `Finished` is emitted exactly once, by `into_events`.
        out.retain(|event| match event {
            StreamEvent::Finished(_) => false,
            StreamEvent::Text(text) => !text.is_empty(),
            _ => true,
        });
        for event in &*out {
            if let StreamEvent::Text(text) = event {
                self.text_bytes += text.len();
            }
        }
        // Only now: text before a failure in the same event is kept.
        decoded?;
        if self.text_bytes > MAX_ANSWER_BYTES {
            return Err(Failure::with_detail(
                FaultKind::Malformed,
                "answer larger than 1 MiB",
            ));
        }
        if !self.decoder.is_finished() {
            return Ok(None);
        }
        let finish = self.decoder.finish_result()?;
        // Only the end of the body matters here, whatever else arrives is ignored.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.sse_events.next()).await;
        Ok(Some(finish))
    }
}

/// Classifies what ended the event stream before the answer was complete.
fn failure_from(error: &Error) -> Failure {
    match error {
        Error::Transport(error) => transport_failure(error),
        Error::MalformedLocationHeader(_)
        | Error::MaxRedirectLimitReached(_)
        | Error::InvalidParameter(_) => invalid_request(),
        Error::InvalidLine(_) | Error::InvalidEvent | Error::UnexpectedResponse(..) => {
            Failure::new(FaultKind::Malformed)
        }
        Error::TimedOut | Error::HttpStream(_) | Error::Eof | Error::UnexpectedEof => {
            Failure::new(FaultKind::Reset)
        }
    }
}

fn transport_failure(error: &TransportError) -> Failure {
    let failure = error.inner().downcast_ref::<Failure>();
    failure
        .cloned()
        .unwrap_or_else(|| Failure::new(FaultKind::Reset))
}

/// The failure for a request that cannot be built. Its values are not quoted, because they include
/// the key.
fn invalid_request() -> Failure {
    Failure::with_detail(
        FaultKind::Misconfigured,
        "the address or a header of the request is not valid",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
