//! Limits on clients: rates, running turns, connections and the size of request heads.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::bad_input::{TEXT, assert_alive, service};
use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, test_settings, unique_message_id,
};

#[tokio::test]
async fn a_flood_of_messages_is_rate_limited() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.limits.messages_per_minute = 3;
    settings.limits.messages_per_minute_per_ip = 5;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    for _ in 0..3 {
        assert_alive(&mut client).await;
    }
    let id = unique_message_id();
    let error = client.ask_as(&id, "Well?").await;
    assert_eq!(
        (&error["code"], &error["client_msg_id"]),
        (&json!("rate_limited"), &json!(id))
    );
    let wait = error["retry_after_s"].as_u64().unwrap();
    assert!((1..=20).contains(&wait), "{error}");
    // Another conversation has a limit of its own, within the limit of the address.
    let mut other = WsClient::open(&app).await;
    assert_alive(&mut other).await;
    let error = loop {
        let answer = other.ask_as(&unique_message_id(), "Well?").await;
        match answer["turn"].as_str() {
            Some(turn) => drop(other.wait_for_done(turn).await),
            None => break answer,
        }
    };
    assert_eq!(error["code"], "rate_limited");
    assert!(
        alpha.question_count() <= 5,
        "asked {} times",
        alpha.question_count()
    );
}

#[tokio::test]
async fn a_flood_of_pings_does_not_affect_others() {
    let (_alpha, app) = service().await;
    let mut bystander = WsClient::open(&app).await;
    let mut client = WsClient::open(&app).await;
    for round in 0..2000 {
        client.send(Message::Ping(vec![0; 100].into())).await;
        client
            .send_frame(&json!({ "type": "ping", "n": round }))
            .await;
    }
    assert_alive(&mut bystander).await;
    // Each ping gets a pong or `rate_limited`.
    let mut pongs = 0;
    while pongs < 2000 {
        let frame = client.next_frame().await;
        assert!(
            frame["type"] == "pong" || frame["code"] == "rate_limited",
            "{frame}"
        );
        pongs += 1;
    }
    assert_alive(&mut client).await;
}

#[tokio::test]
async fn turns_and_connections_above_the_limit_are_rejected() {
    let alpha = ScriptedProvider::start(vec![ScriptStep::Hang]).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.limits.turns = 1;
    settings.limits.connections_per_ip = 2;
    let app = TestApp::start(settings).await;
    let mut first = WsClient::open(&app).await;
    let mut second = WsClient::open(&app).await;
    let turn = first.ask("What?").await;
    let busy = second.ask_as(&unique_message_id(), "What?").await;
    assert_eq!(busy["code"], "busy");
    assert!(busy["retry_after_s"].as_u64() > Some(0), "{busy}");
    let refused = crate::harness::try_upgrade(&app, &[]).await.unwrap_err();
    assert_eq!(refused, 503);
    first
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    first.wait_for_done(&turn).await;
    let invalid = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "" }))
        .send()
        .await;
    assert_eq!(invalid.status, 400);
}

#[tokio::test]
async fn request_heads_above_16_kib_are_rejected_on_every_route() {
    let (alpha, app) = service().await;
    let question = json!({ "messages": [{ "role": "user", "content": "Well?" }], "model": "auto" });
    for (method, path, expected) in [
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
        assert_eq!(request(15 * 1024).send().await.status, expected, "{path}");
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
    assert_eq!(many.send().await.status, 431, "many small headers");
    assert_eq!(alpha.question_count(), 1);
}
