//! The WebSocket protocol itself (RFC 6455), byte by byte over a raw socket: what a peer must not send is answered with the right Close, what
//! it may send in odd pieces is taken. No public suite asks this of a service that does not echo, so its cases are asked here.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{ScriptedProvider, TestApp, WsClient, soon};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of these first two bits of head, masked as a client's must be.
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
struct Raw {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Raw {
    async fn open(app: &TestApp) -> Self {
        Self::open_with(app, "").await
    }

    /// The same, with these lines in the handshake's head.
    async fn open_with(app: &TestApp, lines: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "GET /ws HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n",
            app.port
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        while !told.ends_with(b"\r\n\r\n") {
            told.push(soon("the handshake", stream.read_u8()).await.unwrap());
        }
        let told = String::from_utf8(told).unwrap().to_ascii_lowercase();
        assert!(
            told.starts_with("http/1.1 101 ") && told.contains("s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{told}"
        );
        assert!(
            !told.contains("sec-websocket-extensions"),
            "no extension is spoken: {told}"
        );
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        // A server that has closed already may refuse what comes after.
        drop(soon("room to send", self.stream.write_all(bytes)).await);
    }

    /// The next frame: its head and its payload. None at the end of the connection.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [head, length, rest @ ..] = &self.bytes[..] {
                assert_eq!(head & 0x70, 0, "reserved bits of the server");
                assert_eq!(length & 0x80, 0, "a server does not mask");
                let (length, rest) = match (length, rest) {
                    (126, [high, low, rest @ ..]) => {
                        (usize::from(u16::from_be_bytes([*high, *low])), rest)
                    }
                    (126, _) => (usize::MAX, rest),
                    (length, rest) => (usize::from(*length), rest),
                };
                if rest.len() >= length {
                    let told = (*head, rest[..length].to_vec());
                    self.bytes = rest[length..].to_vec();
                    return Some(told);
                }
            }
            let mut more = [0; 4096];
            match soon("a frame", self.stream.read(&mut more)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.bytes.extend(&more[..read]),
            }
        }
    }

    /// Reads on to the Close, and gives its code; the connection ends with it.
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
                // Who gets a Close gives one, and only then the connection ends.
                self.send(&close(1000, b"")).await;
            }
        }
        code
    }

    async fn says(&mut self, kind: &str) -> Value {
        loop {
            let (head, payload) = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the end before {kind}"));
            if head == TEXT {
                let told: Value = serde_json::from_slice(&payload).unwrap();
                if told["type"] == kind {
                    return told;
                }
            }
        }
    }
}

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("All is well.").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    (alpha, app)
}

/// What comes of these bytes after a hello.
async fn comes_of(app: &TestApp, bytes: &[u8]) -> Option<u16> {
    let mut raw = Raw::open(app).await;
    raw.send(&hello()).await;
    raw.says("welcome").await;
    raw.send(bytes).await;
    raw.closed().await
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_as_such() {
    let (_alpha, app) = service().await;
    let mut witness = WsClient::open(&app).await;
    let mut wrong: Vec<(String, Vec<u8>)> = Vec::new();
    for bit in [0x40, 0x20, 0x10] {
        wrong.push((
            format!("reserved bit {bit:x}"),
            frame(TEXT | bit, br#"{"type":"ping"}"#),
        ));
        wrong.push((
            format!("reserved bit {bit:x} of a ping"),
            frame(PING | bit, b"x"),
        ));
    }
    for code in (3..8).chain(11..16) {
        wrong.push((format!("opcode {code}"), frame(0x80 | code, b"x")));
    }
    let mut bare = frame(TEXT, br#"{"type":"ping"}"#);
    bare[1] &= 0x7f;
    bare.drain(2..6);
    wrong.push(("a frame without a mask".into(), bare));
    wrong.push(("a ping of 126 bytes".into(), frame(PING, &[b'x'; 126])));
    wrong.push(("a close of 126 bytes".into(), close(1000, &[b'x'; 124])));
    wrong.push(("a ping in fragments".into(), frame(0x09, b"x")));
    wrong.push((
        "a close in fragments".into(),
        frame(0x08, &1000_u16.to_be_bytes()),
    ));
    wrong.push(("a close of one byte".into(), frame(CLOSE, b"x")));
    wrong.push(("a continuation of nothing".into(), frame(0x80, b"x")));
    wrong.push((
        "a text within a text".into(),
        [frame(0x01, b"x"), frame(TEXT, b"x")].concat(),
    ));
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        wrong.push((format!("close code {code}"), close(code, b"")));
    }
    let mut otherwise = Vec::new();
    for (what, bytes) in wrong {
        let code = comes_of(&app, &bytes).await;
        if code != Some(1002) {
            otherwise.push((what, code));
        }
    }
    assert!(
        otherwise.is_empty(),
        "not closed as a breach of the protocol: {otherwise:?}"
    );
    assert_eq!(witness.answered("Well?").await.text, "All is well.");
}

#[tokio::test]
async fn text_is_utf_8_wherever_it_is_cut_and_so_is_a_reason() {
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
            comes_of(&app, &frame(TEXT, bad)).await,
            Some(1007),
            "{bad:?}"
        );
        let (first, rest) = bad.split_at(bad.len() / 2);
        let cut = [
            frame(0x01, first),
            frame(PING, b"between"),
            frame(0x80, rest),
        ]
        .concat();
        assert_eq!(comes_of(&app, &cut).await, Some(1007), "cut: {bad:?}");
    }
    // Of a reason the RFC leaves open which of the two it is.
    let told = comes_of(&app, &close(1000, b"\xce\xba\xff")).await;
    assert!(told == Some(1002) || told == Some(1007), "{told:?}");
}

#[tokio::test]
async fn a_close_is_answered_and_nothing_after_it_counts() {
    let (alpha, app) = service().await;
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let told = comes_of(&app, &close(code, "bye ✓".as_bytes())).await;
        assert!(
            told.is_some_and(|told| told == code || told == 1000),
            "{code}: {told:?}"
        );
    }
    assert!(
        comes_of(&app, &frame(CLOSE, b"")).await.is_some(),
        "one that says nothing"
    );
    let send = json!({ "type": "send", "client_msg_id": "m", "text": "Well?" }).to_string();
    let late = [close(1000, b""), frame(TEXT, send.as_bytes())].concat();
    comes_of(&app, &late).await;
    assert_eq!(alpha.asked(), 0, "a question after the Close");
}

#[tokio::test]
async fn what_comes_in_odd_pieces_is_taken() {
    let (_alpha, app) = service().await;
    let mut raw = Raw::open(&app).await;
    // One byte a packet, the heads of frames too.
    for byte in hello() {
        raw.send(&[byte]).await;
    }
    raw.says("welcome").await;
    // A ping of every length comes back as it was; a pong that nobody asked for says nothing.
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
    // Lengths written in more bytes than they need, many frames in one packet, empty fragments.
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
    raw.says("pong").await;
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
        raw.says("pong").await;
    }
    raw.send(&frame(TEXT, b"")).await;
    assert_eq!(raw.says("error").await["code"], "bad_request");
}

/// An extension that is offered is not taken up: what is asked and told goes as it is, and compressed frames are a breach.
#[tokio::test]
async fn compression_that_is_offered_is_not_taken_up() {
    let (alpha, app) = service().await;
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_no_context_takeover",
        "x-webkit-deflate-frame, permessage-bzip2, permessage-deflate; server_max_window_bits=8",
    ] {
        let lines = format!("sec-websocket-extensions: {offer}\r\n");
        let mut raw = Raw::open_with(&app, &lines).await;
        raw.send(&hello()).await;
        raw.says("welcome").await;
        let send = json!({ "type": "send", "client_msg_id": "m", "text": "Well?" }).to_string();
        raw.send(&frame(TEXT, send.as_bytes())).await;
        assert_eq!(raw.says("done").await["text"], "All is well.", "{offer}");
        raw.send(&frame(TEXT | 0x40, b"\xaa\x56\x2a\xa9")).await;
        assert_eq!(raw.closed().await, Some(1002), "{offer}");
    }
    assert_eq!(alpha.asked(), 3);
}
