//! `/api/chat`: answers, errors and options.

use serde_json::{Value, json};

use super::http_routes::service;
use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, partial_answer, test_settings,
};

#[tokio::test]
async fn api_chat_answers_like_a_socket() {
    let (alpha, app) = service().await;
    let answer = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "What?" }))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    for (key, value) in [
        ("message", json!("The whole answer.")),
        ("source", json!("ai")),
        ("degraded", json!(false)),
        ("provider", json!("alpha")),
        ("model", json!("alpha-model")),
        ("attempts", json!(1)),
    ] {
        assert_eq!(body[key], value, "{key}");
    }
    for (name, value) in [
        ("x-provider", "alpha"),
        ("x-source", "ai"),
        ("x-degraded", "false"),
        ("x-attempts", "1"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(!answer.header("x-request-id").is_empty());
    // The conversation can be continued over the API and over a socket.
    let conversation = body["conversation"].as_str().unwrap();
    let more = json!({ "message": "And?", "conversation": conversation });
    let second = app
        .request("POST", "/api/chat")
        .json(&more)
        .send()
        .await
        .json();
    assert_eq!(second["conversation"], *conversation);
    let (_, request) = alpha.requests().pop().unwrap();
    assert_eq!(request["messages"].as_array().unwrap().len(), 4);
    let client = WsClient::join(&app, conversation).await;
    let history = client.welcome["history"].as_array().unwrap();
    assert_eq!((history.len(), &history[0]["turn"]), (2, &body["turn"]));
}

#[tokio::test]
async fn api_chat_marks_degraded_answers_and_keeps_status_200() {
    let (alpha, app) = service().await;
    alpha.stop_listening().await;
    let answer = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "Xyzzy?" }))
        .send()
        .await;
    let body = answer.json();
    assert_eq!(
        (
            answer.status,
            answer.header("x-degraded"),
            answer.header("x-source")
        ),
        (200, "true", "fallback")
    );
    assert_eq!(
        (&body["message"], &body["source"]),
        (&json!("Later, please."), &json!("fallback"))
    );
    assert_eq!(
        (&body["degraded"], &body["provider"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn api_chat_explains_bad_requests() {
    let (alpha, app) = service().await;
    let post = |body: &str, kind: &str| {
        app.request("POST", "/api/chat")
            .header("content-type", kind)
            .body(body)
            .send()
    };
    let long = json!({ "message": "x".repeat(101) }).to_string();
    let huge = json!({ "message": "x".repeat(1_100_000) }).to_string();
    for (body, kind, status, code) in [
        ("{", "application/json", 400, "bad_request"),
        ("{}", "application/json", 400, "bad_request"),
        (r#"{"message":7}"#, "application/json", 400, "bad_request"),
        (r#"{"message":" "}"#, "application/json", 400, "bad_request"),
        (
            r#"["What?", null, null]"#,
            "application/json",
            400,
            "bad_request",
        ),
        (
            r#"{"message":"x","options":["alpha",true,"off",null]}"#,
            "application/json",
            400,
            "bad_request",
        ),
        (
            r#"{"message":"x","conversation":"short"}"#,
            "application/json",
            400,
            "bad_request",
        ),
        (
            r#"{"message":"x","options":{"provider":"nobody"}}"#,
            "application/json",
            400,
            "bad_request",
        ),
        (&long, "application/json", 413, "message_too_long"),
        (&huge, "application/json", 413, "too_large"),
    ] {
        let answer = post(body, kind).await;
        let excerpt = &body[..body.len().min(60)];
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{excerpt}"
        );
        assert!(answer.json()["error"]["message"].is_string(), "{excerpt}");
        assert!(
            answer.header("x-request-id").starts_with("req-"),
            "{excerpt}"
        );
    }
    assert_eq!(alpha.question_count(), 0);
}

#[tokio::test]
async fn api_chat_returns_busy_while_a_turn_runs() {
    let (alpha, app) = service().await;
    alpha.script_default(vec![partial_answer(["Wait"]), ScriptStep::Hang]);
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "Wait")
        .await;
    let more = json!({ "message": "And?", "conversation": client.conversation });
    let answer = app.request("POST", "/api/chat").json(&more).send().await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (503, &json!("busy"))
    );
    assert!(
        answer
            .header("retry-after")
            .parse::<u64>()
            .is_ok_and(|seconds| seconds > 0)
    );
}

#[tokio::test]
async fn options_select_a_provider() {
    let alpha = ScriptedProvider::answering("Alpha.").await;
    let beta = ScriptedProvider::answering("Beta.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let ask = async |options: Value| {
        let body = json!({ "message": "Xyzzy?", "options": options });
        app.request("POST", "/api/chat")
            .json(&body)
            .send()
            .await
            .json()["message"]
            .clone()
    };
    assert_eq!(ask(json!({})).await, "Alpha.");
    assert_eq!(ask(json!({ "provider": "beta" })).await, "Beta.");
    beta.stop_listening().await;
    assert_eq!(ask(json!({ "provider": "beta" })).await, "Alpha.");
    assert_eq!(
        ask(json!({ "provider": "beta", "failover": false })).await,
        "Later, please."
    );
    // Options of a page's visitor are ignored unless the operator allows them.
    let mut client = WsClient::open(&app).await;
    client.send_frame(&json!({
        "type": "send", "client_msg_id": "x", "text": "Xyzzy?", "options": { "provider": "beta", "failover": false },
    })).await;
    let accepted = client.next_frame().await;
    assert_eq!(
        client
            .wait_for_done(accepted["turn"].as_str().unwrap())
            .await
            .text,
        "Alpha."
    );
}
