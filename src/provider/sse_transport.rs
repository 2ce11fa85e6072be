//! A transport that checks a provider's response and sanitizes its body for the SSE client.

use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};

use crate::domain::{Failure, FaultKind};

use super::dialect::Framing;
use super::sse_guard::SseSanitizer;

const MAX_ERROR_BODY_BYTES: usize = 16 * 1024;

/// The time limit for an error's body after its head. It has a few hundred bytes, and a visitor
/// waits.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Passes the body of a successful response through an [`SseSanitizer`] and rejects redirects.
///
/// Its own errors are, like those of the inner transport, a [`Failure`] inside the
/// [`TransportError`].
#[derive(Clone, Debug)]
pub struct SanitizingTransport<T> {
    transport: T,
    framing: Framing,
}

impl<T> SanitizingTransport<T> {
    /// `framing` is what the request asked for.
    pub fn new(transport: T, framing: Framing) -> Self {
        Self { transport, framing }
    }
}

impl<T: HttpTransport> HttpTransport for SanitizingTransport<T> {
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let answer = self.transport.request(request);
        let framing = self.framing;
        Box::pin(async move {
            let answer = answer.await?;
            let status = answer.status();
            if !status.is_success() && !status.is_redirection() {
                return Ok(answer);
            }
            let framing = detect_framing(&answer, framing).map_err(TransportError::new)?;
            Ok(answer.map(|body| sanitize_body(body, framing)))
        })
    }
}

/// Determines how to read the body of a successful response from its head.
///
/// Without a content type the requested framing applies. The same for JSON: a complete answer
/// instead of a stream, or an error, is one event.
///
/// # Errors
/// `Misconfigured` for a redirect, which is never followed. `Malformed` for a web page, an encoded
/// body or another content type.
pub fn detect_framing<B>(answer: &http::Response<B>, asked: Framing) -> Result<Framing, Failure> {
    let refuse = |fault, detail: &str| {
        let status = Some(answer.status().as_u16());
        let failure = Failure::with_detail(fault, detail);
        Err(Failure { status, ..failure })
    };
    if answer.status().is_redirection() {
        return refuse(FaultKind::Misconfigured, "base_url redirects elsewhere");
    }
    let coding = lowercase_header(answer.headers(), CONTENT_ENCODING);
    if !matches!(coding.as_str(), "" | "identity") {
        let detail = format!("content encoding {}", printable_token(&coding));
        return refuse(FaultKind::Malformed, &detail);
    }
    let kind = lowercase_header(answer.headers(), CONTENT_TYPE);
    match kind.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(asked),
        "text/event-stream" => Ok(Framing::Sse),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Framing::Lines),
        other if other.ends_with("+json") => Ok(asked),
        other => {
            let detail = format!("content type {}", printable_token(other));
            refuse(FaultKind::Malformed, &detail)
        }
    }
}

fn lowercase_header(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

/// A media type or encoding for an error message. Text that looks like neither is not repeated.
fn printable_token(name: &str) -> &str {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte);
    if name.len() <= 60 && name.bytes().all(token) {
        name
    } else {
        "of no known form"
    }
}

/// Sanitizes a body. Ends after the first error of the sanitizer or the transport.
fn sanitize_body(mut body: ByteStream, framing: Framing) -> ByteStream {
    let mut sanitizer = SseSanitizer::new(framing);
    let mut has_ended = false;
    let mut error = None;
    Box::pin(stream::poll_fn(move |cx| {
        loop {
            if has_ended {
                return Poll::Ready(error.take().map(Err));
            }
            let mut out = Vec::new();
            match ready!(body.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => {
                    // The output mostly has the size of the input.
                    out.reserve(chunk.len());
                    if let Err(limit) = sanitizer.feed(&chunk, &mut out) {
                        // Deliver the output before the limit first, then the error.
                        let failure =
                            Failure::with_detail(FaultKind::Malformed, &limit.to_string());
                        error = Some(TransportError::new(failure));
                        has_ended = true;
                    }
                }
                Some(Err(transport_error)) => {
                    error = Some(transport_error);
                    has_ended = true;
                }
                None => {
                    sanitizer.finish(&mut out);
                    has_ended = true;
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(out.into())));
            }
        }
    }))
}

/// Reads the body of an error response, at most 16 KiB and only what arrives within a second.
pub async fn read_error_body(mut body: ByteStream) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        while let Some(Ok(chunk)) = body.next().await {
            let remaining = MAX_ERROR_BODY_BYTES - text.len();
            text.extend_from_slice(chunk.get(..remaining).unwrap_or(&chunk));
            if text.len() == MAX_ERROR_BODY_BYTES {
                break;
            }
        }
    };
    // After a timeout or an error, the bytes so far and the status are enough to classify it.
    let _ = tokio::time::timeout(ERROR_BODY_TIMEOUT, read).await;
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::future;

    use eventsource_client::{Client as _, ClientBuilder, Error, ReconnectOptions, SSE};

    use super::*;

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

    /// The name and data of each event that the SSE client reads from these chunks.
    async fn events(kind: &'static str, chunks: &[&[u8]]) -> Vec<(String, String)> {
        let chunks = chunks
            .iter()
            .map(|chunk| Bytes::copy_from_slice(chunk))
            .collect();
        let transport = SanitizingTransport::new(Canned { kind, chunks }, Framing::Sse);
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
    async fn events_do_not_depend_on_where_the_body_is_cut() {
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
    async fn json_body_is_one_event_and_json_lines_are_many() {
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
    fn response_head_decides_the_framing() {
        let detect = |status: u16, name: &str, value: &str| {
            let answer = http::Response::builder()
                .status(status)
                .header(name, value)
                .body(());
            detect_framing(&answer.unwrap(), Framing::Lines).map_err(|failure| failure.fault)
        };
        assert_eq!(
            detect(200, "content-type", "Text/Event-Stream;charset=utf-8"),
            Ok(Framing::Sse)
        );
        assert_eq!(
            detect(200, "content-type", "application/problem+json"),
            Ok(Framing::Lines)
        );
        assert_eq!(detect(200, "server", "x"), Ok(Framing::Lines));
        assert_eq!(
            detect(200, "content-encoding", "identity"),
            Ok(Framing::Lines)
        );
        for (name, value) in [
            ("content-type", "text/html"),
            ("content-type", "text/plain"),
            ("content-type", "image/png"),
            ("content-encoding", "gzip"),
        ] {
            assert_eq!(
                detect(200, name, value),
                Err(FaultKind::Malformed),
                "{value}"
            );
        }
        assert_eq!(detect(308, "location", "/"), Err(FaultKind::Misconfigured));
    }

    #[tokio::test(start_paused = true)]
    async fn error_body_is_limited_in_size_and_time() {
        let chunk = || Ok(Bytes::from_static(&[b'x'; 5000]));
        let endless: ByteStream = Box::pin(stream::repeat_with(chunk));
        assert_eq!(read_error_body(endless).await.len(), MAX_ERROR_BODY_BYTES);
        let slow: ByteStream = Box::pin(stream::iter([chunk()]).chain(stream::pending()));
        let started_at = tokio::time::Instant::now();
        assert_eq!(read_error_body(slow).await.len(), 5000);
        assert!(started_at.elapsed() < ERROR_BODY_TIMEOUT * 2);
        let broken = TransportError::new(Failure::new(FaultKind::Reset));
        let cut: ByteStream = Box::pin(stream::iter([chunk(), Err(broken), chunk()]));
        assert_eq!(read_error_body(cut).await.len(), 5000);
    }

    #[tokio::test]
    async fn output_before_a_limit_is_delivered_and_nothing_after() {
        let chunks = [
            Bytes::from(b"data: 1\n\n".repeat(3)),
            Bytes::from(vec![b'x'; 300_000]),
            Bytes::from("data: 2\n\n"),
        ];
        let body: ByteStream = Box::pin(stream::iter(chunks.map(Ok)));
        let mut body = sanitize_body(body, Framing::Sse);
        assert_eq!(
            body.next().await.unwrap().unwrap(),
            b"data: 1\n\n".repeat(3)
        );
        assert!(body.next().await.unwrap().is_err());
        assert!(body.next().await.is_none());
    }
}
