//! Requests that two servers in a row could read differently: each is rejected with 400 and its
//! connection closed, so that bytes behind it are never read as a request. They are sent over raw
//! sockets, because no client library sends such requests.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{ScriptedProvider, TestApp, eventually};

/// The smuggled request. A response to it proves that it was read.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Sends the bytes and returns everything that is received until the server closes.
async fn send_raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    // The server resets the connection if it leaves bytes unread.
    drop(eventually("the server to close", stream.read_to_end(&mut received)).await);
    String::from_utf8_lossy(&received).into_owned()
}

fn statuses(received: &str) -> Vec<&str> {
    received
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| received[at + 9..].split(' ').next().unwrap())
        .collect()
}

#[tokio::test]
async fn ambiguous_requests_are_rejected_and_closed() {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let post = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let body = r#"{"model":"auto","messages":[{"role":"user","content":"Well?"}]}"#;
    let length = body.len();
    let chunk = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let mut failures = Vec::new();
    for (name, request) in [
        (
            "both lengths, CL.TE",
            format!(
                "{post}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "both lengths, TE.CL",
            format!("{post}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{chunk}"),
        ),
        (
            "two lengths",
            format!("{post}content-length: {length}\r\ncontent-length: 0\r\n\r\n{body}"),
        ),
        (
            "two lengths in one line",
            format!("{post}content-length: {length}, 0\r\n\r\n{body}"),
        ),
        (
            "a signed length",
            format!("{post}content-length: +{length}\r\n\r\n{body}"),
        ),
        (
            "a negative length",
            format!("{post}content-length: -1\r\n\r\n{body}"),
        ),
        (
            "a length in hex",
            format!("{post}content-length: 0x10\r\n\r\n{body}"),
        ),
        (
            "a length out of range",
            format!("{post}content-length: 99999999999999999999999\r\n\r\n{body}"),
        ),
        (
            "another coding",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{chunk}"),
        ),
        (
            "chunked not last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{chunk}"),
        ),
        (
            "two codings",
            format!(
                "{post}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n{chunk}"
            ),
        ),
        (
            "a space before the colon",
            format!("{post}transfer-encoding : chunked\r\n\r\n{chunk}"),
        ),
        (
            "a folded header",
            format!("{post}transfer-encoding:\r\n chunked\r\n\r\n{chunk}"),
        ),
        (
            "a vertical tab in the coding",
            format!("{post}transfer-encoding: \x0bchunked\r\n\r\n{chunk}"),
        ),
        (
            "a NUL in a header",
            format!("{post}x-a: a\0b\r\ncontent-length: 0\r\n\r\n"),
        ),
        (
            "a chunk size in words",
            format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "a negative chunk",
            format!("{post}transfer-encoding: chunked\r\n\r\n-1\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk size in 0x",
            format!("{post}transfer-encoding: chunked\r\n\r\n0x{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk out of range",
            format!(
                "{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{body}\r\n0\r\n\r\n"
            ),
        ),
        (
            "a chunk longer than its size",
            format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "two hosts",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: example.com\r\n\r\n".to_owned(),
        ),
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned()),
        (
            "no such version",
            "GET /healthz HTTP/3.7\r\nhost: localhost\r\n\r\n".to_owned(),
        ),
        (
            "a space in the address",
            "GET /healthz x HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        ),
        (
            "an empty header name",
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\n: x\r\n\r\n".to_owned(),
        ),
        (
            "a TLS handshake",
            "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned(),
        ),
    ] {
        let received = send_raw(&app, format!("{request}{SMUGGLED}").as_bytes()).await;
        if statuses(&received) != ["400"] {
            failures.push((name, statuses(&received).join(" ")));
        }
    }
    assert!(
        failures.is_empty(),
        "not rejected, or the smuggled request was read: {failures:?}"
    );
    assert_eq!(alpha.question_count(), 0);
    assert_eq!(app.request("GET", "/healthz").send().await.status, 200);
}

/// Two well-formed requests in one packet are two requests.
#[tokio::test]
async fn unambiguous_pipelined_requests_are_accepted() {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let body = r#"{"model":"auto","messages":[{"role":"user","content":"Well?"}]}"#;
    let (first, rest) = body.split_at(7);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x};a=b\r\n{first}\r\n{:X}\r\n{rest}\r\n0\r\nx-after: y\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        first.len(),
        rest.len()
    );
    let received = send_raw(&app, request.as_bytes()).await;
    assert_eq!(statuses(&received), ["200", "200"], "{received}");
    assert_eq!(alpha.question_count(), 1);
}
