//! The routes served over plain HTTP.

use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer, partial_answer,
    question_body, test_settings,
};

pub(super) async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("The whole answer.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.chat.max_message_chars = 100;
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    (alpha, app)
}

#[tokio::test]
async fn status_json_has_the_documented_fields_and_no_secrets() {
    let (alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    client.ask_and_wait("What?").await;
    app.wait_until_idle().await;
    // The outcome reaches the provider's actor after the slot of the call is free.
    app.wait_for_status("alpha", |status| status.successes == 1)
        .await;
    let answer = app.request("GET", "/status.json").send().await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    let status = answer.json();
    for (key, value) in [
        ("mode", json!("normal")),
        ("incident", Value::Null),
        ("message", json!("")),
        ("active", json!("alpha")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("drill", Value::Null),
        (
            "answers",
            json!({ "total": 1, "ai": 1, "degraded": 0, "availability": 1.0 }),
        ),
        ("incidents", json!([])),
        ("problems", json!([])),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    assert!(
        status["since"].is_string()
            && status["instance"].is_string()
            && status["uptime_s"].is_u64()
    );
    let provider = &status["providers"][0];
    for (key, value) in [
        ("name", json!("alpha")),
        ("model", json!("alpha-model")),
        ("dialect", json!("openai")),
        ("state", json!("closed")),
        ("healthy", json!(true)),
        ("reason", Value::Null),
        ("retry_at", Value::Null),
        ("in_flight", json!(0)),
        (
            "counts",
            json!({ "success": 1, "failure": 0, "restarts": 0 }),
        ),
    ] {
        assert_eq!(provider[key], value, "{key}");
    }
    for latency in ["first_token", "total"] {
        for part in ["p50", "p95", "p99"] {
            assert!(provider["latency_ms"][latency][part].is_u64(), "{provider}");
        }
    }
    // The public status reveals no key, address, prompt or path.
    let text = status.to_string();
    let canaries = [
        "sk-canary",
        "127.0.0.1",
        "helpful assistant",
        &app.root_dir().display().to_string(),
    ];
    assert!(
        canaries.iter().all(|canary| !text.contains(canary)),
        "{text}"
    );
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn pages_and_files_have_security_headers() {
    let (_alpha, app) = service().await;
    let page = app.request("GET", "/").send().await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'self'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe-inline"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");

    let script = app.request("GET", "/static/chat.js").send().await;
    assert_eq!(
        (script.status, script.header("content-type")),
        (200, "text/javascript; charset=utf-8")
    );
    assert_eq!(script.header("access-control-allow-origin"), "*");
    assert_eq!(
        script.header("cross-origin-resource-policy"),
        "cross-origin"
    );
    assert_eq!(script.header("x-content-type-options"), "nosniff");
    let tag = script.header("etag").to_owned();
    let again = app
        .request("GET", "/static/chat.js")
        .header("if-none-match", &tag)
        .send()
        .await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    for path in [
        "/static/none.js",
        "/static/../Cargo.toml",
        "/static/%2e%2e/Cargo.toml",
        "/static/",
        "/static",
    ] {
        assert_eq!(app.request("GET", path).send().await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn health_and_readiness_return_200() {
    let (_alpha, app) = service().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(app.request("GET", path).send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn unknown_and_disabled_routes_return_404() {
    let (_alpha, app) = service().await;
    for (method, path) in [
        ("GET", "/nothing"),
        ("GET", "/.env"),
        ("GET", "/admin/drills"),
        ("POST", "/admin/providers/alpha"),
        ("POST", "/demo/providers/alpha"),
        ("GET", "/demo/providers/alpha"),
        ("POST", "/nothing"),
    ] {
        let mut request = app.request(method, path);
        if method == "POST" {
            request = request.json(&json!({ "fault": "down" }));
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
    }
    assert_eq!(app.provider_status("alpha").await["state"], "closed");
}

#[tokio::test]
async fn wrong_methods_get_405_with_the_allowed_ones() {
    let (_alpha, app) = service().await;
    let readable = [
        "/",
        "/status",
        "/status.json",
        "/healthz",
        "/readyz",
        "/metrics",
        "/widget.js",
        "/embed",
        "/static/chat.js",
    ];
    for path in readable {
        assert_eq!(
            app.request("HEAD", path).send_head_request().await,
            200,
            "HEAD {path}"
        );
        for method in ["POST", "OPTIONS", "TRACE"] {
            let answer = app.request(method, path).send().await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, "GET, HEAD"),
                "{method} {path}"
            );
        }
    }
    let answer = app.request("POST", "/ws").send().await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
}

#[tokio::test]
async fn a_rejected_request_moves_no_breaker() {
    let rejecting = || {
        vec![error_response(
            400,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"no","type":"invalid_request_error"}}"#,
        )]
    };
    let [alpha, beta, gamma] = [rejecting(), rejecting(), rejecting()].map(ScriptedProvider::start);
    let (alpha, beta, gamma) = (alpha.await, beta.await, gamma.await);
    let app =
        TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]).await;
    let mut client = WsClient::open(&app).await;
    // One more provider is tried, then the answer is a fallback; no breaker counts it.
    for _ in 0..6 {
        let shown = client.ask_and_wait("Xyzzy?").await;
        assert_eq!(
            (
                shown.attempts.len(),
                &shown.done.as_ref().unwrap()["degraded"]
            ),
            (2, &json!(true))
        );
    }
    assert_eq!(
        (
            alpha.question_count(),
            beta.question_count(),
            gamma.question_count()
        ),
        (6, 6, 0)
    );
    for name in ["alpha", "beta"] {
        assert_eq!(app.provider_status(name).await["state"], "closed");
    }
}

/// Stopped turns and rejected requests are not counted as outages; a stream that breaks is.
#[tokio::test]
async fn availability_counts_answered_and_lost_turns() {
    let alpha = ScriptedProvider::start(vec![]).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let answers = async || app.status().await["answers"].clone();
    assert_eq!(answers().await["availability"], Value::Null);

    let mut client = WsClient::open(&app).await;
    alpha.script_next(full_answer("Hello."));
    client.ask_and_wait("Hello?").await;
    alpha.script_next(vec![partial_answer(["A ", "beginning"]), ScriptStep::Hang]);
    let turn = client.ask("And?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A beginning")
        .await;
    client
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    client.wait_for_done(&turn).await;
    let refused =
        json!({ "error": { "message": "no", "type": "invalid_request_error" } }).to_string();
    alpha.script_next(vec![error_response(
        400,
        "content-type: application/json\r\n",
        &refused,
    )]);
    assert_eq!(
        app.completion_request(&question_body("What?"))
            .send()
            .await
            .status,
        400
    );
    let expected = json!({ "total": 3, "ai": 1, "degraded": 0, "availability": 1.0 });
    assert_eq!(answers().await, expected);

    // The stream breaks and no provider is left.
    alpha.script_next(vec![partial_answer(["A torn text"]), ScriptStep::Reset]);
    let answer = app.stream_answer("What?").await.read_to_end().await;
    assert!(answer.error.is_some() && !answer.has_end_mark);
    assert_eq!(answers().await["availability"], 0.5);
}
