//! What HTTP asks of answers: methods, versions, headers that keep browsers from guessing, rates.

use failsoft::config::Secret;
use serde_json::json;

use crate::harness::{ScriptedProvider, TestApp, question, settings};

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    (alpha, app)
}

#[tokio::test]
async fn another_version_of_the_websocket_protocol_is_told_which_one_there_is() {
    let (_alpha, app) = service().await;
    let shake = |version: &str| {
        let request = app.request("GET", "/ws").header("upgrade", "websocket");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.header("sec-websocket-version", version)
    };
    for version in ["8", "7", "12", "14", "13, 8", ""] {
        let answer = shake(version).send().await;
        assert_eq!(
            (answer.status, answer.header("sec-websocket-version")),
            (426, "13"),
            "{version}"
        );
    }
}

#[tokio::test]
async fn a_key_that_is_none_opens_no_socket() {
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
async fn a_wrong_method_is_told_the_right_one() {
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
async fn no_browser_guesses_what_an_answer_is() {
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
    let big = app
        .request("GET", "/")
        .header("x-big", &"x".repeat(20_000))
        .send()
        .await;
    assert_eq!(
        (big.status, big.header("x-content-type-options")),
        (431, "nosniff")
    );
}

#[tokio::test]
async fn completions_have_a_rate_by_address_but_on_this_machine() {
    let alpha = ScriptedProvider::answering("From alpha.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.limits.messages_per_minute_per_ip = 2;
    settings.server.api_keys = vec![Secret::new("sk-program")];
    settings.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let app = TestApp::start(settings).await;
    let from = |address: &str| {
        let request = app
            .completion(&question("Who?"))
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
        "another address has its own"
    );
    assert_eq!(
        alpha.asked(),
        3,
        "who is refused costs no provider anything"
    );
    for _ in 0..4 {
        let here = app
            .completion(&question("Who?"))
            .header("authorization", "Bearer sk-program");
        assert_eq!(here.send().await.status, 200);
    }
}
