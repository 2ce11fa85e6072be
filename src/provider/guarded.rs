//! The guard put around a transport: what a provider's answer must be, before the SSE client reads it.

use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};

use crate::chat::{Failure, Fault};

use super::dialect::Framing;
use super::guard::Guard;

/// The most of an error's body that is read, in bytes.
const ERROR_BYTES: usize = 16 * 1024;

/// How long an error's body may take after its head: it is a few hundred bytes, and a visitor waits.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// A transport whose good answers come through a [`Guard`], and whose redirects are failures.
///
/// A refusal of its own is, like one of the transport below, a [`Failure`] inside the [`TransportError`].
#[derive(Clone, Debug)]
pub struct Guarded<T> {
    transport: T,
    framing: Framing,
}

impl<T> Guarded<T> {
    /// Guards the answer of a call that asked for this framing.
    pub fn new(transport: T, framing: Framing) -> Self {
        Self { transport, framing }
    }
}

impl<T: HttpTransport> HttpTransport for Guarded<T> {
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let answer = self.transport.request(request);
        let framing = self.framing;
        Box::pin(async move {
            let answer = answer.await?;
            let status = answer.status();
            if !status.is_success() && !status.is_redirection() {
                return Ok(answer);
            }
            let framing = framing_of(&answer, framing).map_err(TransportError::new)?;
            Ok(answer.map(|body| guarded(body, framing)))
        })
    }
}

/// How the body of a good answer is to be read, by what its head says.
///
/// A server that names no content type is taken at its body. JSON is read in the framing that was asked for: a whole answer instead
/// of a stream, or an error, is one event.
///
/// # Errors
/// `Misconfigured` for a redirect, which is never followed; `Malformed` for a web page or another foreign body.
pub fn framing_of<B>(answer: &http::Response<B>, asked: Framing) -> Result<Framing, Failure> {
    let refuse = |fault, detail: &str| Failure {
        status: Some(answer.status().as_u16()),
        ..Failure::with(fault, detail)
    };
    if answer.status().is_redirection() {
        return Err(refuse(Fault::Misconfigured, "base_url redirects elsewhere"));
    }
    let coding = header(answer.headers(), CONTENT_ENCODING);
    if !matches!(coding.as_str(), "" | "identity") {
        return Err(refuse(
            Fault::Malformed,
            &format!("content encoding {}", plain(&coding)),
        ));
    }
    let kind = header(answer.headers(), CONTENT_TYPE);
    match kind.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(asked),
        "text/event-stream" => Ok(Framing::Sse),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Framing::Lines),
        other if other.ends_with("+json") => Ok(asked),
        other => Err(refuse(
            Fault::Malformed,
            &format!("content type {}", plain(other)),
        )),
    }
}

/// A header in lower case; empty where there is none.
fn header(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

/// A media type or coding as it may be repeated; what looks like neither is not.
fn plain(name: &str) -> &str {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte);
    if name.len() <= 60 && name.bytes().all(token) {
        name
    } else {
        "of no known form"
    }
}

/// The body as the parser may see it. After an error, of the guard or of the transport, nothing follows.
fn guarded(mut body: ByteStream, framing: Framing) -> ByteStream {
    let mut guard = Guard::new(framing);
    let mut ended = false;
    let mut failed = None;
    Box::pin(stream::poll_fn(move |cx| {
        loop {
            if ended {
                return Poll::Ready(failed.take().map(Err));
            }
            let mut out = Vec::new();
            match ready!(body.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => {
                    // Mostly as much comes out; the parser's blank lines are in the wire's too.
                    out.reserve(chunk.len());
                    if let Err(breach) = guard.push(&chunk, &mut out) {
                        let failure = Failure::with(Fault::Malformed, &breach.to_string());
                        failed = Some(TransportError::new(failure));
                        ended = true;
                    }
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    ended = true;
                }
                None => {
                    guard.end(&mut out);
                    ended = true;
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(out.into())));
            }
        }
    }))
}

/// What there is of an error's body: at most 16 KiB, and what came within a second.
pub async fn error_text(mut body: ByteStream) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        while let Some(Ok(chunk)) = body.next().await {
            let room = ERROR_BYTES - text.len();
            text.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if text.len() == ERROR_BYTES {
                break;
            }
        }
    };
    // Late or broken: what came is enough to judge by, with the status.
    let _ = tokio::time::timeout(ERROR_PATIENCE, read).await;
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::future;

    use eventsource_client::{Client as _, ClientBuilder, Error, ReconnectOptions, SSE};

    use super::*;

    /// A server without sockets: these chunks, with this head.
    #[derive(Clone)]
    struct Canned {
        kind: &'static str,
        chunks: Vec<Bytes>,
    }

    impl HttpTransport for Canned {
        fn request(&self, _: http::Request<Option<Bytes>>) -> ResponseFuture {
            let body: ByteStream = Box::pin(stream::iter(self.chunks.clone().into_iter().map(Ok)));
            let answer = http::Response::builder()
                .header(CONTENT_TYPE, self.kind)
                .body(body);
            Box::pin(future::ready(answer.map_err(TransportError::new)))
        }
    }

    /// The events that the SSE client reads of these chunks: each one's name and data.
    async fn events(kind: &'static str, chunks: &[&[u8]]) -> Vec<(String, String)> {
        let chunks = chunks
            .iter()
            .map(|chunk| Bytes::copy_from_slice(chunk))
            .collect();
        let transport = Guarded::new(Canned { kind, chunks }, Framing::Sse);
        let client = ClientBuilder::for_url("http://canned.test/").unwrap();
        let client = client.reconnect(ReconnectOptions::reconnect(false).build());
        let mut stream = client.build_with_transport(transport).stream();
        let mut events = Vec::new();
        loop {
            match stream.next().await {
                Some(Ok(SSE::Connected(_))) => {}
                Some(Ok(SSE::Event(event))) => events.push((event.event_type, event.data)),
                Some(Err(Error::Eof)) => return events,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn any_cut_of_a_hard_body_gives_the_same_events() {
        let body = "\u{feff}: ping\r\n\r\nevent: a\rdata: €1\rdata: 2\r\rid\n\nretry: x\n\nevent:\n\n\
            unknown: 1\n\ndata: 😀\r\n\r\n{\n \"error\": \"}\"\n}\ndata: last";
        let bytes = [body.as_bytes(), b"\xff\xe2\x82"].concat();
        let expected = [
            ("a", "€1\n2"),
            ("message", "😀"),
            ("message", "{\n \"error\": \"}\"\n}"),
            ("message", "last\u{fffd}\u{fffd}"),
        ];
        let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(
                events("text/event-stream", &[head, tail]).await,
                expected,
                "at {at}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events("text/event-stream", &single).await, expected);
    }

    #[tokio::test]
    async fn a_whole_object_is_one_event_and_lines_are_many() {
        let body: &[u8] = b"{\n\"a\": 1\n}";
        let whole = vec![("message".to_owned(), "{\n\"a\": 1\n}".to_owned())];
        assert_eq!(
            events("application/json; charset=utf-8", &[body]).await,
            whole
        );
        assert_eq!(
            events("application/x-ndjson", &[b"{}\n[]\n"]).await.len(),
            2
        );
    }

    #[test]
    fn only_a_readable_body_is_read() {
        let of = |status: u16, name: &str, value: &str| {
            let answer = http::Response::builder()
                .status(status)
                .header(name, value)
                .body(());
            framing_of(&answer.unwrap(), Framing::Lines).map_err(|failure| failure.fault)
        };
        assert_eq!(
            of(200, "content-type", "Text/Event-Stream;charset=utf-8"),
            Ok(Framing::Sse)
        );
        assert_eq!(
            of(200, "content-type", "application/problem+json"),
            Ok(Framing::Lines)
        );
        assert_eq!(of(200, "server", "x"), Ok(Framing::Lines));
        assert_eq!(of(200, "content-encoding", "identity"), Ok(Framing::Lines));
        for (name, value) in [
            ("content-type", "text/html"),
            ("content-type", "text/plain"),
            ("content-type", "image/png"),
            ("content-encoding", "gzip"),
        ] {
            assert_eq!(of(200, name, value), Err(Fault::Malformed), "{value}");
        }
        assert_eq!(of(308, "location", "/"), Err(Fault::Misconfigured));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_text_is_short_and_soon() {
        let chunk = || Ok(Bytes::from_static(&[b'x'; 5000]));
        let endless: ByteStream = Box::pin(stream::repeat_with(chunk));
        assert_eq!(error_text(endless).await.len(), ERROR_BYTES);
        let slow: ByteStream = Box::pin(stream::iter([chunk()]).chain(stream::pending()));
        let asked = tokio::time::Instant::now();
        assert_eq!(error_text(slow).await.len(), 5000);
        assert!(asked.elapsed() < ERROR_PATIENCE * 2);
        let broken = TransportError::new(Failure::of(Fault::Reset));
        let cut: ByteStream = Box::pin(stream::iter([chunk(), Err(broken), chunk()]));
        assert_eq!(error_text(cut).await.len(), 5000);
    }

    #[tokio::test]
    async fn what_came_before_a_breach_is_read_and_nothing_after() {
        let chunks = [
            Bytes::from(b"data: 1\n\n".repeat(3)),
            Bytes::from(vec![b'x'; 300_000]),
            Bytes::from("data: 2\n\n"),
        ];
        let body: ByteStream = Box::pin(stream::iter(chunks.map(Ok)));
        let mut body = guarded(body, Framing::Sse);
        assert_eq!(
            body.next().await.unwrap().unwrap(),
            b"data: 1\n\n".repeat(3)
        );
        assert!(body.next().await.unwrap().is_err());
        assert!(body.next().await.is_none());
    }
}
