//! Malformed client input: an `error` frame or a Close with the right code, and no effect on other
//! clients.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::harness::{
    ScriptedProvider, TestApp, WsClient, eventually, test_settings, unique_message_id,
};

pub(super) const TEXT: &str = "All is well.";

pub(super) async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.chat.max_message_chars = 100;
    settings.limits.frame_bytes = 4096;
    let app = TestApp::start(settings).await;
    (alpha, app)
}

/// Asserts that the connection still serves turns.
pub(super) async fn assert_alive(client: &mut WsClient) {
    assert_eq!(client.ask_and_wait("Well?").await.text, TEXT);
}

fn fragment(kind: Data, bytes: impl Into<Vec<u8>>, is_last: bool) -> Message {
    Message::Frame(Frame::message(bytes.into(), OpCode::Data(kind), is_last))
}

#[tokio::test]
async fn malformed_frames_get_an_error_and_the_connection_stays_open() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    for (text, code, client_msg_id) in [
        ("not json", "bad_request", Value::Null),
        ("", "bad_request", Value::Null),
        ("[]", "bad_request", Value::Null),
        ("{}", "bad_request", Value::Null),
        (r#"{"type":7}"#, "bad_request", Value::Null),
        (r#"{"type":"shout"}"#, "bad_request", Value::Null),
        (r#"{"type":"hello"}"#, "bad_request", Value::Null),
        (
            r#"{"type":"send","client_msg_id":"a1"}"#,
            "bad_request",
            json!("a1"),
        ),
        (
            r#"{"type":"send","client_msg_id":"a2","text":7}"#,
            "bad_request",
            json!("a2"),
        ),
        (
            r#"{"type":"send","client_msg_id":"a3","text":" \n"}"#,
            "bad_request",
            json!("a3"),
        ),
        (
            r#"{"type":"send","client_msg_id":"","text":"x"}"#,
            "bad_request",
            json!(""),
        ),
        (r#"{"type":"send","text":"x"}"#, "bad_request", Value::Null),
        (r#"{"type":"stop","turn":"x"}"#, "bad_request", Value::Null),
        (r#"{"type":"stop"}"#, "bad_request", Value::Null),
        (
            r#"{"type":"feedback","turn":"00000000000100000000000000aa","value":"sideways"}"#,
            "bad_request",
            Value::Null,
        ),
        (
            r#"{"type":"stop","turn":"00000000000100000000000000aa"}"#,
            "not_found",
            Value::Null,
        ),
        (
            r#"{"type":"feedback","turn":"00000000000100000000000000aa","value":"up"}"#,
            "not_found",
            Value::Null,
        ),
        (
            r#"{"type":"retry","turn":"00000000000100000000000000aa","client_msg_id":"a4"}"#,
            "not_found",
            json!("a4"),
        ),
    ] {
        client.send(Message::text(text)).await;
        let error = client.next_frame().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code)),
            "{text}"
        );
        assert_eq!(error["client_msg_id"], client_msg_id, "{text}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{error}"
        );
        assert!(error.get("retry_after_s").is_some(), "{error}");
    }
    // Unknown fields are ignored.
    client
        .send(Message::text(r#"{"type":"ping","later":{"a":[1]}}"#))
        .await;
    assert_eq!(client.next_frame().await, json!({ "type": "pong" }));
    assert_alive(&mut client).await;
}

#[tokio::test]
async fn deeply_nested_json_is_rejected() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    client.send(Message::text("[".repeat(4000))).await;
    assert_eq!(client.next_frame().await["code"], "bad_request");
    client
        .send(Message::text(format!(
            r#"{{"type":"ping","x":{}1{}}}"#,
            "[".repeat(1900),
            "]".repeat(1900)
        )))
        .await;
    assert_eq!(client.next_frame().await["code"], "bad_request");
    assert_alive(&mut client).await;
}

#[tokio::test]
async fn a_connection_that_does_not_start_with_hello_is_closed() {
    let (alpha, app) = service().await;
    for first in [
        json!({ "type": "ping" }),
        json!({ "type": "send", "client_msg_id": "a", "text": "x" }),
    ] {
        let mut client = WsClient::connect(app.port).await;
        client.send_frame(&first).await;
        assert_eq!(client.wait_for_close().await, Some(1008), "{first}");
    }
    // A malformed hello may be followed by a valid one.
    let mut client = WsClient::connect(app.port).await;
    for bad in [
        json!({ "type": "hello", "conversation": "../../etc/passwd" }),
        json!({ "typ": "hello" }),
    ] {
        client.send_frame(&bad).await;
        assert_eq!(client.next_frame().await["code"], "bad_request", "{bad}");
    }
    client.send_hello(&json!({})).await;
    assert_alive(&mut client).await;
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_five_seconds() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::connect(app.port).await;
    let connected = Instant::now();
    assert_eq!(client.wait_for_close().await, Some(1008));
    let after = connected.elapsed();
    assert!(
        after > Duration::from_secs(4) && after < Duration::from_secs(9),
        "after {after:?}"
    );
}

#[tokio::test]
async fn too_long_messages_are_rejected_and_the_connection_stays_open() {
    let (alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    let id = unique_message_id();
    // The limit counts characters, not bytes.
    let error = client.ask_as(&id, &"\u{e9}".repeat(101)).await;
    assert_eq!(
        (&error["code"], &error["client_msg_id"]),
        (&json!("message_too_long"), &json!(id))
    );
    assert_eq!(alpha.question_count(), 0);
    let accepted = client.ask_as(&id, &"\u{e9}".repeat(100)).await;
    assert_eq!(accepted["type"], "accepted", "{accepted}");
    client
        .wait_for_done(accepted["turn"].as_str().unwrap())
        .await;
    assert_alive(&mut client).await;
}

#[tokio::test]
async fn an_oversized_message_closes_the_connection() {
    let (_alpha, app) = service().await;
    let mut bystander = WsClient::open(&app).await;
    let big = json!({ "type": "ping", "x": "x".repeat(5000) }).to_string();
    let mut client = WsClient::open(&app).await;
    client.send(Message::text(big.clone())).await;
    assert_eq!(client.wait_for_close().await, Some(1009));
    // Fragments that are each small enough add up to a message that is too big.
    let mut client = WsClient::open(&app).await;
    client
        .send(fragment(Data::Text, &big.as_bytes()[..3000], false))
        .await;
    client
        .send(fragment(Data::Continue, &big.as_bytes()[3000..], true))
        .await;
    assert_eq!(client.wait_for_close().await, Some(1009));
    assert_alive(&mut bystander).await;
}

#[tokio::test]
async fn a_100_mb_frame_header_closes_the_connection_at_once() {
    let (_alpha, app) = service().await;
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        app.port
    );
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", app.port))
        .await
        .unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The header of a masked text frame of 100 MB, without any payload.
    let mut frame = vec![0x81, 0xff];
    frame.extend(100_000_000_u64.to_be_bytes());
    frame.extend([1, 2, 3, 4]);
    stream.write_all(&frame).await.unwrap();
    let mut received = Vec::new();
    eventually("the close", stream.read_to_end(&mut received))
        .await
        .unwrap();
    assert!(
        received
            .windows(4)
            .any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1009_u16.to_be_bytes()),
        "{received:?}"
    );
}

#[tokio::test]
async fn fragments_are_reassembled() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    let text = json!({ "type": "send", "client_msg_id": "é", "text": "Wéll?" })
        .to_string()
        .into_bytes();
    // One byte per fragment splits code points; a ping arrives in between.
    client.send(fragment(Data::Text, &text[..1], false)).await;
    client.send(Message::Ping(b"x".to_vec().into())).await;
    for byte in &text[1..text.len() - 1] {
        client
            .send(fragment(Data::Continue, vec![*byte], false))
            .await;
    }
    client
        .send(fragment(Data::Continue, &text[text.len() - 1..], true))
        .await;
    let accepted = client
        .wait_for_frame(|frame| frame["type"] == "accepted")
        .await;
    assert_eq!(accepted["client_msg_id"], "é");
    assert_eq!(
        client
            .wait_for_done(accepted["turn"].as_str().unwrap())
            .await
            .question,
        "Wéll?"
    );
}

#[tokio::test]
async fn invalid_utf_8_closes_the_connection() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    client
        .send(fragment(
            Data::Text,
            *b"{\"type\":\"ping\",\"x\":\"\xff\"}",
            true,
        ))
        .await;
    assert_eq!(client.wait_for_close().await, Some(1007));
    let mut client = WsClient::open(&app).await;
    client
        .send(fragment(
            Data::Text,
            *b"{\"type\":\"ping\",\"x\":\"\xc3",
            false,
        ))
        .await;
    client.send(fragment(Data::Continue, *b"\"}", true)).await;
    assert_eq!(client.wait_for_close().await, Some(1007));
}

#[tokio::test]
async fn binary_and_misplaced_fragments_are_rejected_or_close_the_connection() {
    let (_alpha, app) = service().await;
    // A whole binary message is refused; the connection stays open.
    let mut client = WsClient::open(&app).await;
    client
        .send(Message::binary(b"{\"type\":\"ping\"}".to_vec()))
        .await;
    assert_eq!(client.next_frame().await["code"], "bad_request");
    assert_alive(&mut client).await;
    // A fragmented binary message closes it.
    client.send(fragment(Data::Binary, *b"x", false)).await;
    assert_eq!(client.wait_for_close().await, Some(1003));
    // A continuation without a start, and a start within a fragmented message.
    let mut client = WsClient::open(&app).await;
    client.send(fragment(Data::Continue, *b"x", true)).await;
    assert_eq!(client.wait_for_close().await, Some(1002));
    let mut client = WsClient::open(&app).await;
    client.send(fragment(Data::Text, *b"x", false)).await;
    client.send(fragment(Data::Text, *b"x", true)).await;
    assert_eq!(client.wait_for_close().await, Some(1002));
    // A Close is answered with a Close.
    let mut client = WsClient::open(&app).await;
    client.send(Message::Close(None)).await;
    client.wait_for_close().await;
}
