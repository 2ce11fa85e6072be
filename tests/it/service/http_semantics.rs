//! HTTP semantics: methods, versions, security headers, rate limits.

use failsoft::config::Secret;
use serde_json::json;

use crate::harness::{ScriptedProvider, TestApp, question_body, test_settings};

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    (alpha, app)
}

#[tokio::test]
async fn other_websocket_versions_get_426_with_the_supported_one() {
    let (_alpha, app) = service().await;
    let handshake = |version: &str| {
        let request = app.request("GET", "/ws").header("upgrade", "websocket");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.header("sec-websocket-version", version)
    };
    for version in ["8", "7", "12", "14", "13, 8", ""] {
        let answer = handshake(version).send().await;
        assert_eq!(
            (answer.status, answer.header("sec-websocket-version")),
            (426, "13"),
            "{version}"
        );
    }
}

#[tokio::test]
async fn invalid_websocket_keys_are_rejected() {
    let (_alpha, app) = service().await;
    for key in [
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZSE=",
        "not a key at all!!",
        "",
    ] {
        let request = app.request("GET", "/ws").header("upgrade", "websocket");
        let request = request
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", key);
        let answer = request.send().await;
        assert!(
            answer.status == 400 && answer.body.contains("Sec-WebSocket-Key"),
            "{key}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn api_chat_rejects_other_methods_with_405() {
    let (_alpha, app) = service().await;
    for method in ["GET", "PUT", "DELETE"] {
        let answer = app.request(method, "/api/chat").send().await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "POST"),
            "{method}"
        );
        assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn every_response_forbids_content_sniffing() {
    let (_alpha, app) = service().await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/api/chat", 405),
        ("POST", "/api/chat", 400),
        ("GET", "/status.json", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/models", 200),
        ("POST", "/v1/chat/completions", 400),
        ("GET", "/v1/nothing", 404),
        ("GET", "/admin/audit", 404),
        ("GET", "/static/chat.js", 200),
        ("GET", "/", 200),
    ] {
        let answer = app.request(method, path).send().await;
        assert_eq!(
            (answer.status, answer.header("x-content-type-options")),
            (status, "nosniff"),
            "{path}"
        );
    }
    let too_large = app
        .request("GET", "/")
        .header("x-big", &"x".repeat(20_000))
        .send()
        .await;
    assert_eq!(
        (too_large.status, too_large.header("x-content-type-options")),
        (431, "nosniff")
    );
}

#[tokio::test]
async fn completions_are_rate_limited_by_address_except_local_ones() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.limits.messages_per_minute_per_ip = 2;
    settings.server.api_keys = vec![Secret::new("sk-program")];
    settings.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let app = TestApp::start(settings).await;
    let from = |address: &str| {
        let request = app
            .completion_request(&question_body("Who?"))
            .header("authorization", "Bearer sk-program");
        request.header("x-forwarded-for", address)
    };
    for _ in 0..2 {
        assert_eq!(from("198.51.100.7").send().await.status, 200);
    }
    let refused = from("198.51.100.7").send().await;
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].clone()),
        (429, json!("rate_limit_exceeded"))
    );
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(
        from("198.51.100.8").send().await.status,
        200,
        "another address has a limit of its own"
    );
    assert_eq!(
        alpha.question_count(),
        3,
        "a rejected request calls no provider"
    );
    for _ in 0..4 {
        let here = app
            .completion_request(&question_body("Who?"))
            .header("authorization", "Bearer sk-program");
        assert_eq!(here.send().await.status, 200);
    }
}
