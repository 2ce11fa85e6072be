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

use crate::chat::{Ask, At, Failure, Fault, Finish};

use super::dialect::{Call, Dialect, Framing, Reader, Refused};
use super::drill::{Drilled, Switch};
use super::guarded::{Guarded, error_text, framing_of};
use super::transport::Transport;
use super::upstream::{Step, Steps, Upstream};

const ANSWER_BYTES: usize = 1024 * 1024;

/// The maximum wait for the end of the body after a complete answer. The connection can only be
/// reused after it, and it mostly arrives with the end mark.
const REST: Duration = Duration::from_millis(10);

/// The maximum number of remapped requests per chat request, one for each thing that servers are
/// known to reject.
const MAPPINGS: u32 = 4;

const JSON: &str = "application/json";

#[derive(Clone)]
pub struct HttpUpstream {
    base_url: Arc<str>,
    dialect: Arc<dyn Dialect>,
    transport: Transport,
    drills: Arc<Switch>,
}

impl HttpUpstream {
    /// `base_url` is the prefix of the dialect's paths. `fault_switch` may inject faults into the
    /// calls.
    pub fn new(
        base_url: &str,
        dialect: Arc<dyn Dialect>,
        transport: Transport,
        fault_switch: Arc<Switch>,
    ) -> Self {
        Self {
            base_url: base_url.trim_end_matches('/').into(),
            dialect,
            transport,
            drills: fault_switch,
        }
    }

    async fn listed(&self) -> Result<(), Failure> {
        let call = self.dialect.listing();
        let mut request = http::Request::get(self.url(&call)).header(ACCEPT, JSON);
        for (name, value) in &call.headers {
            request = request.header(name.as_ref(), value);
        }
        let request = request.body(None).map_err(|_| bad_request())?;
        let transport = Drilled::new(self.transport.clone(), Arc::clone(&self.drills), None);
        let response = transport.request(request).await;
        let response = response.map_err(|error| broken(&error))?;
        if response.status().is_success() || response.status().is_redirection() {
            return framing_of(&response, call.framing).map(|_| ());
        }
        let (head, body) = response.into_parts();
        let head = Response::new(head.status, head.headers);
        let body = error_text(body).await;
        Err(judged(&head, &body, |response| self.refused(response)))
    }

    fn url(&self, call: &Call) -> String {
        format!("{}{}", self.base_url, call.path)
    }

    /// Sends a chat request, and again whenever the dialect has corrected its mapping.
    async fn open(&self, request: &Ask) -> Result<Answer, Failure> {
        let mut remappings = 0;
        let mut call = self.dialect.request(request);
        loop {
            let mut events = self.post(&call)?;
            match events.next().await {
                Some(Ok(_)) => {
                    return Ok(Answer {
                        events,
                        reader: self.dialect.reader(),
                        heard: false,
                        text: 0,
                    });
                }
                Some(Err(Error::UnexpectedResponse(head, body))) => {
                    let body = error_text(body.into_stream()).await;
                    // Let the dialect adapt in any case: the next chat request benefits too.
                    let (failure, has_adapted) = judged(&head, &body, |response| {
                        (self.refused(response), self.dialect.adapt(&call, response))
                    });
                    let next = self.dialect.request(request);
                    // What was learned may not change this request.
                    if remappings == MAPPINGS || !has_adapted || next == call {
                        return Err(failure);
                    }
                    call = next;
                    remappings += 1;
                }
                Some(Err(error)) => return Err(ended_by(&error)),
                None => return Err(Failure::of(Fault::Empty)),
            }
        }
    }

    /// Sends one POST and returns its events. Reconnects, retries and redirects of the SSE client
    /// are turned off, because each of them would send the request again.
    fn post(&self, call: &Call) -> Result<BoxStream<eventsource_client::Result<SSE>>, Failure> {
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
                .header(CONTENT_TYPE.as_str(), JSON)?
                .header(ACCEPT.as_str(), accept)?;
            for (name, value) in &call.headers {
                builder = builder.header(name, value)?;
            }
            Ok(builder
                .body(call.body.clone())
                .redirect_limit(0)
                .reconnect(no_reconnect))
        };
        let builder = build().map_err(|_: Error| bad_request())?;
        let sanitizing = Guarded::new(self.transport.clone(), call.framing);
        let transport = Drilled::new(
            sanitizing,
            Arc::clone(&self.drills),
            Some(Arc::clone(&self.dialect)),
        );
        Ok(builder.build_with_transport(transport).stream())
    }

    fn refused(&self, response: &Refused<'_>) -> Failure {
        Failure {
            status: Some(response.status),
            ..self.dialect.refused(response)
        }
    }
}

fn judged<T>(head: &Response, body: &[u8], classify: impl FnOnce(&Refused<'_>) -> T) -> T {
    let header = |name: &str| {
        head.get_header_value(name)
            .ok()
            .flatten()
            .map(str::to_owned)
    };
    classify(&Refused {
        status: head.status(),
        header: &header,
        body,
        now: At::from_system(SystemTime::now()),
    })
}

impl Upstream for HttpUpstream {
    fn ask(&self, request: &Ask) -> Steps {
        let client = self.clone();
        let request = request.clone();
        let opened = async move { client.open(&request).await };
        let events = opened.map(|opened| match opened {
            Ok(answer) => answer.steps(),
            Err(failure) => stream::once(async { Err(failure) }).boxed(),
        });
        events.flatten_stream().fuse().boxed()
    }

    fn list(&self) -> BoxFuture<'static, Result<(), Failure>> {
        let client = self.clone();
        async move { client.listed().await }.boxed()
    }
}

struct Answer {
    events: BoxStream<eventsource_client::Result<SSE>>,
    reader: Box<dyn Reader + Send>,
    heard: bool,
    text: usize,
}

impl Answer {
    /// The events until the end. The connection is closed before the last one is yielded.
    fn steps(self) -> Steps {
        let events = stream::unfold(
            (Some(self), VecDeque::new()),
            |(mut answer, mut ready)| async move {
                // One SSE event may yield none or several events.
                while ready.is_empty() {
                    let mut decoded = Vec::new();
                    let end = answer.as_mut()?.advance(&mut decoded).await;
                    ready.extend(decoded.into_iter().map(Ok));
                    let end = end.transpose().map(|end| end.map(Step::End));
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
    async fn advance(&mut self, out: &mut Vec<Step>) -> Result<Option<Finish>, Failure> {
        let sse_event = match self.events.next().await {
            Some(Ok(SSE::Event(event))) => event,
            Some(Ok(_)) => return Ok(None),
            Some(Err(Error::Eof)) if self.heard => return self.reader.verdict().map(Some),
            Some(Err(Error::Eof)) | None => return Err(Failure::of(Fault::Empty)),
            Some(Err(error)) => return Err(ended_by(&error)),
        };
        self.heard = true;
        let decoded = self
            .reader
            .event(&sse_event.event_type, &sse_event.data, out);
        // `Finished` is emitted exactly once, by `into_events`.
        out.retain(|event| match event {
            Step::End(_) => false,
            Step::Text(text) => !text.is_empty(),
            _ => true,
        });
        for event in &*out {
            if let Step::Text(text) = event {
                self.text += text.len();
            }
        }
        // Only now: text before a failure in the same event is kept.
        decoded?;
        if self.text > ANSWER_BYTES {
            return Err(Failure::with(Fault::Malformed, "answer larger than 1 MiB"));
        }
        if !self.reader.ended() {
            return Ok(None);
        }
        let finish = self.reader.verdict()?;
        // Only the end of the body matters here, whatever else arrives is ignored.
        let _ = tokio::time::timeout(REST, self.events.next()).await;
        Ok(Some(finish))
    }
}

/// Classifies what ended the event stream before the answer was complete.
fn ended_by(error: &Error) -> Failure {
    match error {
        Error::Transport(error) => broken(error),
        Error::MalformedLocationHeader(_)
        | Error::MaxRedirectLimitReached(_)
        | Error::InvalidParameter(_) => bad_request(),
        Error::InvalidLine(_) | Error::InvalidEvent | Error::UnexpectedResponse(..) => {
            Failure::of(Fault::Malformed)
        }
        Error::TimedOut | Error::HttpStream(_) | Error::Eof | Error::UnexpectedEof => {
            Failure::of(Fault::Reset)
        }
    }
}

fn broken(error: &TransportError) -> Failure {
    let failure = error.inner().downcast_ref::<Failure>();
    failure
        .cloned()
        .unwrap_or_else(|| Failure::of(Fault::Reset))
}

/// The failure for a request that cannot be built. Its values are not quoted, because they include
/// the key.
fn bad_request() -> Failure {
    Failure::with(
        Fault::Misconfigured,
        "the address or a header of the request is not valid",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
