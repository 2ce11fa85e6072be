//! A provider behind HTTP: a question goes out as one POST in the dialect's words, the answer comes back as steps.

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

/// The most text of one answer, in bytes.
const ANSWER_BYTES: usize = 1024 * 1024;

/// How long the end of the body is waited for once the answer is whole: with it the connection can be used again, and it mostly
/// came with the end mark.
const REST: Duration = Duration::from_millis(10);

/// How often one question is mapped anew: once for each thing that servers are known to refuse.
const MAPPINGS: u32 = 4;

const JSON: &str = "application/json";

/// One provider: where it is, how it speaks, over what.
#[derive(Clone)]
pub struct HttpUpstream {
    base_url: Arc<str>,
    dialect: Arc<dyn Dialect>,
    transport: Transport,
    drills: Arc<Switch>,
}

impl HttpUpstream {
    /// A provider at this address; a dialect's paths are added to it. Its calls are befallen by the drills of this switch.
    pub fn new(
        base_url: &str,
        dialect: Arc<dyn Dialect>,
        transport: Transport,
        drills: Arc<Switch>,
    ) -> Self {
        Self {
            base_url: base_url.trim_end_matches('/').into(),
            dialect,
            transport,
            drills,
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
        let answer = transport.request(request).await;
        let answer = answer.map_err(|error| broken(&error))?;
        if answer.status().is_success() || answer.status().is_redirection() {
            return framing_of(&answer, call.framing).map(|_| ());
        }
        let (head, body) = answer.into_parts();
        let head = Response::new(head.status, head.headers);
        let text = error_text(body).await;
        Err(judged(&head, &text, |answer| self.refused(answer)))
    }

    fn url(&self, call: &Call) -> String {
        format!("{}{}", self.base_url, call.path)
    }

    /// Sends a question, and again where the dialect says that its own mapping was at fault.
    async fn open(&self, ask: &Ask) -> Result<Answer, Failure> {
        let mut adapted = 0;
        let mut call = self.dialect.request(ask);
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
                    let text = error_text(body.into_stream()).await;
                    // The dialect learns from a second refusal too, for the next question.
                    let (failure, again) = judged(&head, &text, |answer| {
                        (self.refused(answer), self.dialect.adapt(&call, answer))
                    });
                    let next = self.dialect.request(ask);
                    // What was learned may be of no help to this question.
                    if adapted == MAPPINGS || !again || next == call {
                        return Err(failure);
                    }
                    (call, adapted) = (next, adapted + 1);
                }
                Some(Err(error)) => return Err(ended_by(&error)),
                None => return Err(Failure::of(Fault::Empty)),
            }
        }
    }

    /// The events of one POST. By default the client would send it again at the end of the body, after errors, and to wherever
    /// a redirect points.
    fn post(&self, call: &Call) -> Result<BoxStream<eventsource_client::Result<SSE>>, Failure> {
        let accept = match call.framing {
            Framing::Sse => "text/event-stream",
            Framing::Lines => "application/x-ndjson",
        };
        let once = ReconnectOptions::reconnect(false)
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
                .reconnect(once))
        };
        let builder = build().map_err(|_: Error| bad_request())?;
        let guarded = Guarded::new(self.transport.clone(), call.framing);
        let transport = Drilled::new(
            guarded,
            Arc::clone(&self.drills),
            Some(Arc::clone(&self.dialect)),
        );
        Ok(builder.build_with_transport(transport).stream())
    }

    /// What an error answer means.
    fn refused(&self, answer: &Refused<'_>) -> Failure {
        Failure {
            status: Some(answer.status),
            ..self.dialect.refused(answer)
        }
    }
}

/// Shows an error answer to a dialect.
fn judged<T>(head: &Response, body: &[u8], judge: impl FnOnce(&Refused<'_>) -> T) -> T {
    let header = |name: &str| {
        head.get_header_value(name)
            .ok()
            .flatten()
            .map(str::to_owned)
    };
    judge(&Refused {
        status: head.status(),
        header: &header,
        body,
        now: At::from_system(SystemTime::now()),
    })
}

impl Upstream for HttpUpstream {
    fn ask(&self, ask: &Ask) -> Steps {
        let (upstream, ask) = (self.clone(), ask.clone());
        let opened = async move { upstream.open(&ask).await };
        let steps = opened.map(|opened| match opened {
            Ok(answer) => answer.steps(),
            Err(failure) => stream::once(async { Err(failure) }).boxed(),
        });
        steps.flatten_stream().fuse().boxed()
    }

    fn list(&self) -> BoxFuture<'static, Result<(), Failure>> {
        let upstream = self.clone();
        async move { upstream.listed().await }.boxed()
    }
}

/// An answer under way.
struct Answer {
    events: BoxStream<eventsource_client::Result<SSE>>,
    reader: Box<dyn Reader + Send>,
    /// Whether any event came.
    heard: bool,
    /// Bytes of text so far.
    text: usize,
}

impl Answer {
    /// The steps to the end. The connection is let go before the last of them is given.
    fn steps(self) -> Steps {
        let all = stream::unfold(
            (Some(self), VecDeque::new()),
            |(mut answer, mut ready)| async move {
                while ready.is_empty() {
                    let mut steps = Vec::new();
                    let end = answer.as_mut()?.advance(&mut steps).await;
                    ready.extend(steps.into_iter().map(Ok));
                    let end = end.transpose().map(|end| end.map(Step::End));
                    if end.is_some() {
                        answer = None;
                    }
                    ready.extend(end);
                }
                ready.pop_front().map(|step| (step, (answer, ready)))
            },
        );
        all.boxed()
    }

    /// Reads one event; tells how the answer finished when it did.
    async fn advance(&mut self, steps: &mut Vec<Step>) -> Result<Option<Finish>, Failure> {
        let event = match self.events.next().await {
            Some(Ok(SSE::Event(event))) => event,
            Some(Ok(_)) => return Ok(None),
            Some(Err(Error::Eof)) if self.heard => return self.reader.verdict().map(Some),
            Some(Err(Error::Eof)) | None => return Err(Failure::of(Fault::Empty)),
            Some(Err(error)) => return Err(ended_by(&error)),
        };
        self.heard = true;
        let read = self.reader.event(&event.event_type, &event.data, steps);
        // The end is the verdict's to tell, and told once.
        steps.retain(|step| match step {
            Step::End(_) => false,
            Step::Text(text) => !text.is_empty(),
            _ => true,
        });
        for step in &*steps {
            if let Step::Text(text) = step {
                self.text += text.len();
            }
        }
        read?;
        if self.text > ANSWER_BYTES {
            return Err(Failure::with(Fault::Malformed, "an answer beyond 1 MiB"));
        }
        if !self.reader.ended() {
            return Ok(None);
        }
        let finish = self.reader.verdict()?;
        // Whatever comes is the end of the body, or it is of no interest.
        let _ = tokio::time::timeout(REST, self.events.next()).await;
        Ok(Some(finish))
    }
}

/// What ended the events before the answer was whole.
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

/// The failure that our transports put into their errors.
fn broken(error: &TransportError) -> Failure {
    let failure = error.inner().downcast_ref::<Failure>();
    failure
        .cloned()
        .unwrap_or_else(|| Failure::of(Fault::Reset))
}

/// The call cannot even be written down. Its values are not told: the key is among them.
fn bad_request() -> Failure {
    Failure::with(
        Fault::Misconfigured,
        "the address or a header of the request is not valid",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
