//! What a client must not send, and what comes of it: an `error`, or a Close with the right code, and nothing for anyone else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::harness::{Act, ScriptedProvider, TestApp, WsClient, fresh_id, settings, soon};

const TEXT: &str = "All is well.";

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.chat.max_message_chars = 100;
    settings.limits.frame_bytes = 4096;
    let app = TestApp::start(settings).await;
    (alpha, app)
}

/// The connection still serves.
async fn lives(client: &mut WsClient) {
    assert_eq!(client.answered("Well?").await.text, TEXT);
}

fn part(kind: Data, bytes: impl Into<Vec<u8>>, last: bool) -> Message {
    Message::Frame(Frame::message(bytes.into(), OpCode::Data(kind), last))
}

#[tokio::test]
async fn a_bad_frame_is_answered_and_the_connection_lives() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    for (text, code, about) in [
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
        let error = client.next().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code)),
            "{text}"
        );
        assert_eq!(error["client_msg_id"], about, "{text}");
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
    assert_eq!(client.next().await, json!({ "type": "pong" }));
    lives(&mut client).await;
}

#[tokio::test]
async fn deep_json_is_no_way_in() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    client.send(Message::text("[".repeat(4000))).await;
    assert_eq!(client.next().await["code"], "bad_request");
    client
        .send(Message::text(format!(
            r#"{{"type":"ping","x":{}1{}}}"#,
            "[".repeat(1900),
            "]".repeat(1900)
        )))
        .await;
    assert_eq!(client.next().await["code"], "bad_request");
    lives(&mut client).await;
}

#[tokio::test]
async fn the_first_frame_must_be_hello() {
    let (alpha, app) = service().await;
    for first in [
        json!({ "type": "ping" }),
        json!({ "type": "send", "client_msg_id": "a", "text": "x" }),
    ] {
        let mut client = WsClient::connect(app.port).await;
        client.say(&first).await;
        assert_eq!(client.closed().await, Some(1008), "{first}");
    }
    // A malformed one may be mended.
    let mut client = WsClient::connect(app.port).await;
    for bad in [
        json!({ "type": "hello", "conversation": "../../etc/passwd" }),
        json!({ "typ": "hello" }),
    ] {
        client.say(&bad).await;
        assert_eq!(client.next().await["code"], "bad_request", "{bad}");
    }
    client.say_hello(&json!({})).await;
    lives(&mut client).await;
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn a_socket_that_says_nothing_is_closed_after_five_seconds() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::connect(app.port).await;
    let connected = Instant::now();
    assert_eq!(client.closed().await, Some(1008));
    let after = connected.elapsed();
    assert!(
        after > Duration::from_secs(4) && after < Duration::from_secs(9),
        "after {after:?}"
    );
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_and_the_connection_lives() {
    let (alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    let id = fresh_id();
    // Characters count, not bytes.
    let error = client.ask_as(&id, &"\u{e9}".repeat(101)).await;
    assert_eq!(
        (&error["code"], &error["client_msg_id"]),
        (&json!("message_too_long"), &json!(id))
    );
    assert_eq!(alpha.asked(), 0);
    let accepted = client.ask_as(&id, &"\u{e9}".repeat(100)).await;
    assert_eq!(accepted["type"], "accepted", "{accepted}");
    client.done(accepted["turn"].as_str().unwrap()).await;
    lives(&mut client).await;
}

#[tokio::test]
async fn a_frame_that_is_too_big_closes() {
    let (_alpha, app) = service().await;
    let mut witness = WsClient::open(&app).await;
    let big = json!({ "type": "ping", "x": "x".repeat(5000) }).to_string();
    let mut client = WsClient::open(&app).await;
    client.send(Message::text(big.clone())).await;
    assert_eq!(client.closed().await, Some(1009));
    // In fragments that are each small enough.
    let mut client = WsClient::open(&app).await;
    client
        .send(part(Data::Text, &big.as_bytes()[..3000], false))
        .await;
    client
        .send(part(Data::Continue, &big.as_bytes()[3000..], true))
        .await;
    assert_eq!(client.closed().await, Some(1009));
    lives(&mut witness).await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_not_waited_for() {
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
    // The head of a masked text frame of 100 MB, and none of it.
    let mut frame = vec![0x81, 0xff];
    frame.extend(100_000_000_u64.to_be_bytes());
    frame.extend([1, 2, 3, 4]);
    stream.write_all(&frame).await.unwrap();
    let mut told = Vec::new();
    soon("the close", stream.read_to_end(&mut told))
        .await
        .unwrap();
    assert!(
        told.windows(4)
            .any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1009_u16.to_be_bytes()),
        "{told:?}"
    );
}

#[tokio::test]
async fn fragments_are_put_together() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    let text = json!({ "type": "send", "client_msg_id": "é", "text": "Wéll?" })
        .to_string()
        .into_bytes();
    // One byte a fragment, code points cut, and a ping between.
    client.send(part(Data::Text, &text[..1], false)).await;
    client.send(Message::Ping(b"x".to_vec().into())).await;
    for byte in &text[1..text.len() - 1] {
        client.send(part(Data::Continue, vec![*byte], false)).await;
    }
    client
        .send(part(Data::Continue, &text[text.len() - 1..], true))
        .await;
    let accepted = client.until(|frame| frame["type"] == "accepted").await;
    assert_eq!(accepted["client_msg_id"], "é");
    assert_eq!(
        client
            .done(accepted["turn"].as_str().unwrap())
            .await
            .question,
        "Wéll?"
    );
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes() {
    let (_alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    client
        .send(part(
            Data::Text,
            *b"{\"type\":\"ping\",\"x\":\"\xff\"}",
            true,
        ))
        .await;
    assert_eq!(client.closed().await, Some(1007));
    let mut client = WsClient::open(&app).await;
    client
        .send(part(Data::Text, *b"{\"type\":\"ping\",\"x\":\"\xc3", false))
        .await;
    client.send(part(Data::Continue, *b"\"}", true)).await;
    assert_eq!(client.closed().await, Some(1007));
}

#[tokio::test]
async fn what_is_not_the_protocol_closes_or_is_refused() {
    let (_alpha, app) = service().await;
    // Binary is refused; the connection lives.
    let mut client = WsClient::open(&app).await;
    client
        .send(Message::binary(b"{\"type\":\"ping\"}".to_vec()))
        .await;
    assert_eq!(client.next().await["code"], "bad_request");
    lives(&mut client).await;
    // Binary in fragments.
    client.send(part(Data::Binary, *b"x", false)).await;
    assert_eq!(client.closed().await, Some(1003));
    // A continuation of nothing, and a second beginning.
    let mut client = WsClient::open(&app).await;
    client.send(part(Data::Continue, *b"x", true)).await;
    assert_eq!(client.closed().await, Some(1002));
    let mut client = WsClient::open(&app).await;
    client.send(part(Data::Text, *b"x", false)).await;
    client.send(part(Data::Text, *b"x", true)).await;
    assert_eq!(client.closed().await, Some(1002));
    // A Close is answered in kind.
    let mut client = WsClient::open(&app).await;
    client.send(Message::Close(None)).await;
    client.closed().await;
}

#[tokio::test]
async fn a_flood_of_messages_is_slowed() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.limits.messages_per_minute = 3;
    settings.limits.messages_per_minute_per_ip = 5;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    for _ in 0..3 {
        lives(&mut client).await;
    }
    let id = fresh_id();
    let error = client.ask_as(&id, "Well?").await;
    assert_eq!(
        (&error["code"], &error["client_msg_id"]),
        (&json!("rate_limited"), &json!(id))
    );
    let wait = error["retry_after_s"].as_u64().unwrap();
    assert!((1..=20).contains(&wait), "{error}");
    // Another conversation has a share of its own, as far as the address has one.
    let mut other = WsClient::open(&app).await;
    lives(&mut other).await;
    let error = loop {
        let answer = other.ask_as(&fresh_id(), "Well?").await;
        match answer["turn"].as_str() {
            Some(turn) => drop(other.done(turn).await),
            None => break answer,
        }
    };
    assert_eq!(error["code"], "rate_limited");
    assert!(alpha.asked() <= 5, "asked {} times", alpha.asked());
}

#[tokio::test]
async fn a_flood_of_pings_harms_nobody_else() {
    let (_alpha, app) = service().await;
    let mut witness = WsClient::open(&app).await;
    let mut client = WsClient::open(&app).await;
    for round in 0..2000 {
        client.send(Message::Ping(vec![0; 100].into())).await;
        client.say(&json!({ "type": "ping", "n": round })).await;
    }
    lives(&mut witness).await;
    // It is answered, each time or by a refusal, or closed; it takes nothing down.
    let mut pongs = 0;
    while pongs < 2000 {
        let frame = client.next().await;
        assert!(
            frame["type"] == "pong" || frame["code"] == "rate_limited",
            "{frame}"
        );
        pongs += 1;
    }
    lives(&mut client).await;
}

#[tokio::test]
async fn as_many_turns_and_connections_as_there_may_be() {
    let alpha = ScriptedProvider::start(vec![Act::Silence]).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.limits.turns = 1;
    settings.limits.connections_per_ip = 2;
    let app = TestApp::start(settings).await;
    let (mut one, mut two) = (WsClient::open(&app).await, WsClient::open(&app).await);
    let turn = one.ask("What?").await;
    let busy = two.ask_as(&fresh_id(), "What?").await;
    assert_eq!(busy["code"], "busy");
    assert!(busy["retry_after_s"].as_u64() > Some(0), "{busy}");
    let refused = crate::harness::upgrade(&app, &[]).await.unwrap_err();
    assert_eq!(refused, 503);
    one.say(&json!({ "type": "stop", "turn": turn })).await;
    one.done(&turn).await;
    let program = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "" }))
        .send()
        .await;
    assert_eq!(program.status, 400);
}

#[tokio::test]
async fn a_head_of_more_than_sixteen_kibibytes_is_refused_everywhere() {
    let (alpha, app) = service().await;
    let question = json!({ "messages": [{ "role": "user", "content": "Well?" }], "model": "auto" });
    for (method, path, otherwise) in [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/ws", 400),
        ("POST", "/v1/chat/completions", 200),
    ] {
        let request = |length: usize| {
            let request = app
                .request(method, path)
                .header("x-long", &"x".repeat(length));
            if method == "POST" {
                request.json(&question)
            } else {
                request
            }
        };
        assert_eq!(request(15 * 1024).send().await.status, otherwise, "{path}");
        let answer = request(16 * 1024).send().await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (431, &json!("headers_too_large")),
            "{path}"
        );
    }
    let many = (0..90).fold(app.request("GET", "/"), |request, n| {
        request.header(&format!("x-{n}"), &"x".repeat(200))
    });
    assert_eq!(many.send().await.status, 431, "many small ones");
    assert_eq!(alpha.asked(), 1);
}
