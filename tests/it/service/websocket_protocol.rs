//! The WebSocket protocol (RFC 6455), byte by byte over a raw socket: violations get the right
//! Close, unusual but valid input is accepted. Public test suites need a service that echoes, so
//! their cases are written out here.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{ScriptedProvider, TestApp, WsClient, eventually};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame whose first byte is `head`.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn hello() -> Vec<u8> {
    frame(TEXT, br#"{"type":"hello"}"#)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A raw client after its handshake.
struct RawClient {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl RawClient {
    async fn open(app: &TestApp) -> Self {
        Self::open_with(app, "").await
    }

    /// Like `open`, with additional header lines in the handshake.
    async fn open_with(app: &TestApp, lines: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "GET /ws HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n",
            app.port
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(eventually("the handshake", stream.read_u8()).await.unwrap());
        }
        let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
        assert!(
            response.starts_with("http/1.1 101 ")
                && response.contains("s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{response}"
        );
        assert!(
            !response.contains("sec-websocket-extensions"),
            "an extension was accepted: {response}"
        );
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed the connection already.
        drop(eventually("the bytes to be sent", self.stream.write_all(bytes)).await);
    }

    /// The next frame's first byte and payload, or `None` at the end of the connection.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [head, length, rest @ ..] = &self.bytes[..] {
                assert_eq!(head & 0x70, 0, "the server set reserved bits");
                assert_eq!(length & 0x80, 0, "the server masked a frame");
                let (length, rest) = match (length, rest) {
                    (126, [high, low, rest @ ..]) => {
                        (usize::from(u16::from_be_bytes([*high, *low])), rest)
                    }
                    (126, _) => (usize::MAX, rest),
                    (length, rest) => (usize::from(*length), rest),
                };
                if rest.len() >= length {
                    let frame = (*head, rest[..length].to_vec());
                    self.bytes = rest[length..].to_vec();
                    return Some(frame);
                }
            }
            let mut more = [0; 4096];
            match eventually("a frame", self.stream.read(&mut more)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.bytes.extend(&more[..read]),
            }
        }
    }

    /// Reads until the connection ends, answers a Close, and returns its code.
    async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((head, payload)) = self.next().await {
            assert!(code.is_none(), "a frame after the Close: {head:x}");
            if head == CLOSE {
                code = Some(
                    payload
                        .first_chunk()
                        .map_or(1005, |bytes| u16::from_be_bytes(*bytes)),
                );
                // The server ends the connection once its Close is answered.
                self.send(&close(1000, b"")).await;
            }
        }
        code
    }

    /// Reads until a text frame of this type.
    async fn until_type(&mut self, kind: &str) -> Value {
        loop {
            let (head, payload) = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the connection ended before {kind}"));
            if head == TEXT {
                let frame: Value = serde_json::from_slice(&payload).unwrap();
                if frame["type"] == kind {
                    return frame;
                }
            }
        }
    }
}

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    (alpha, app)
}

/// The close code that the server answers these bytes with, after a hello.
async fn close_code_after(app: &TestApp, bytes: &[u8]) -> Option<u16> {
    let mut raw = RawClient::open(app).await;
    raw.send(&hello()).await;
    raw.until_type("welcome").await;
    raw.send(bytes).await;
    raw.closed().await
}

#[tokio::test]
async fn protocol_violations_are_closed_with_1002() {
    let (_alpha, app) = service().await;
    let mut bystander = WsClient::open(&app).await;
    let mut violations: Vec<(String, Vec<u8>)> = Vec::new();
    for bit in [0x40, 0x20, 0x10] {
        violations.push((
            format!("reserved bit {bit:x}"),
            frame(TEXT | bit, br#"{"type":"ping"}"#),
        ));
        violations.push((
            format!("reserved bit {bit:x} of a ping"),
            frame(PING | bit, b"x"),
        ));
    }
    for code in (3..8).chain(11..16) {
        violations.push((format!("opcode {code}"), frame(0x80 | code, b"x")));
    }
    let mut bare = frame(TEXT, br#"{"type":"ping"}"#);
    bare[1] &= 0x7f;
    bare.drain(2..6);
    violations.push(("a frame without a mask".into(), bare));
    violations.push(("a ping of 126 bytes".into(), frame(PING, &[b'x'; 126])));
    violations.push(("a close of 126 bytes".into(), close(1000, &[b'x'; 124])));
    violations.push(("a ping in fragments".into(), frame(0x09, b"x")));
    violations.push((
        "a close in fragments".into(),
        frame(0x08, &1000_u16.to_be_bytes()),
    ));
    violations.push(("a close of one byte".into(), frame(CLOSE, b"x")));
    violations.push(("a continuation of nothing".into(), frame(0x80, b"x")));
    violations.push((
        "a text within a text".into(),
        [frame(0x01, b"x"), frame(TEXT, b"x")].concat(),
    ));
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        violations.push((format!("close code {code}"), close(code, b"")));
    }
    let mut other_codes = Vec::new();
    for (name, bytes) in violations {
        let code = close_code_after(&app, &bytes).await;
        if code != Some(1002) {
            other_codes.push((name, code));
        }
    }
    assert!(
        other_codes.is_empty(),
        "not closed with 1002: {other_codes:?}"
    );
    assert_eq!(bystander.ask_and_wait("Well?").await.text, "All is well.");
}

#[tokio::test]
async fn invalid_utf_8_in_text_or_reason_closes_the_connection() {
    let (_alpha, app) = service().await;
    for bad in [
        &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..],
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\xed\xbf\xbf",
        b"\xff",
        b"\xe2\x82",
    ] {
        assert_eq!(
            close_code_after(&app, &frame(TEXT, bad)).await,
            Some(1007),
            "{bad:?}"
        );
        let (first, rest) = bad.split_at(bad.len() / 2);
        let fragmented = [
            frame(0x01, first),
            frame(PING, b"between"),
            frame(0x80, rest),
        ]
        .concat();
        assert_eq!(
            close_code_after(&app, &fragmented).await,
            Some(1007),
            "fragmented: {bad:?}"
        );
    }
    // For an invalid reason the RFC allows both codes.
    let code = close_code_after(&app, &close(1000, b"\xce\xba\xff")).await;
    assert!(code == Some(1002) || code == Some(1007), "{code:?}");
}

#[tokio::test]
async fn a_close_is_answered_and_later_frames_are_ignored() {
    let (alpha, app) = service().await;
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let answered = close_code_after(&app, &close(code, "bye ✓".as_bytes())).await;
        assert!(
            answered.is_some_and(|answered| answered == code || answered == 1000),
            "{code}: {answered:?}"
        );
    }
    assert!(
        close_code_after(&app, &frame(CLOSE, b"")).await.is_some(),
        "a Close without a payload is answered"
    );
    let send = json!({ "type": "send", "client_msg_id": "m", "text": "Well?" }).to_string();
    let late = [close(1000, b""), frame(TEXT, send.as_bytes())].concat();
    close_code_after(&app, &late).await;
    assert_eq!(
        alpha.question_count(),
        0,
        "a message after the Close was processed"
    );
}

#[tokio::test]
async fn unusual_framing_is_accepted() {
    let (_alpha, app) = service().await;
    let mut raw = RawClient::open(&app).await;
    // One byte per packet splits the heads of frames too.
    for byte in hello() {
        raw.send(&[byte]).await;
    }
    raw.until_type("welcome").await;
    // Pings of every length are echoed; an unsolicited pong is ignored.
    raw.send(&frame(PONG, b"unasked")).await;
    for length in [0, 1, 124, 125] {
        let payload: Vec<u8> = (0..length).collect();
        raw.send(&frame(PING, &payload)).await;
        let pong = loop {
            let (head, payload) = raw.next().await.unwrap();
            if head == PONG {
                break payload;
            }
        };
        assert_eq!(pong, payload);
    }
    // Lengths in a longer form than needed, several frames in one packet, empty fragments.
    let ask = br#"{"type":"ping"}"#;
    let mut long = vec![TEXT, 0x80 | 127];
    long.extend((ask.len() as u64).to_be_bytes());
    long.extend(MASK);
    long.extend(
        ask.iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    raw.send(&long).await;
    raw.until_type("pong").await;
    raw.send(
        &[
            frame(TEXT, ask),
            frame(TEXT, ask),
            frame(0x01, b""),
            frame(0x00, ask),
            frame(0x80, b""),
        ]
        .concat(),
    )
    .await;
    for _ in 0..3 {
        raw.until_type("pong").await;
    }
    raw.send(&frame(TEXT, b"")).await;
    assert_eq!(raw.until_type("error").await["code"], "bad_request");
}

/// Frames go uncompressed, and compressed ones are a protocol violation.
#[tokio::test]
async fn offered_compression_is_declined() {
    let (alpha, app) = service().await;
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_no_context_takeover",
        "x-webkit-deflate-frame, permessage-bzip2, permessage-deflate; server_max_window_bits=8",
    ] {
        let lines = format!("sec-websocket-extensions: {offer}\r\n");
        let mut raw = RawClient::open_with(&app, &lines).await;
        raw.send(&hello()).await;
        raw.until_type("welcome").await;
        let send = json!({ "type": "send", "client_msg_id": "m", "text": "Well?" }).to_string();
        raw.send(&frame(TEXT, send.as_bytes())).await;
        assert_eq!(
            raw.until_type("done").await["text"],
            "All is well.",
            "{offer}"
        );
        raw.send(&frame(TEXT | 0x40, b"\xaa\x56\x2a\xa9")).await;
        assert_eq!(raw.closed().await, Some(1002), "{offer}");
    }
    assert_eq!(alpha.question_count(), 3);
}
