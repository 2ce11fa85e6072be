//! What is served over plain HTTP.

use serde_json::{Value, json};

use crate::harness::{
    Act, ScriptedProvider, TestApp, WsClient, answer, question, refusal, settings, spoken,
};

async fn service() -> (ScriptedProvider, TestApp) {
    let alpha = ScriptedProvider::answering("The whole answer.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.chat.max_message_chars = 100;
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    (alpha, app)
}

#[tokio::test]
async fn api_chat_is_the_same_turn_as_over_a_socket() {
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
    // It can be gone on with, here and over a socket.
    let conversation = body["conversation"].as_str().unwrap();
    let more = json!({ "message": "And?", "conversation": conversation });
    let second = app
        .request("POST", "/api/chat")
        .json(&more)
        .send()
        .await
        .json();
    assert_eq!(second["conversation"], *conversation);
    let (_, asked) = alpha.requests().pop().unwrap();
    assert_eq!(asked["messages"].as_array().unwrap().len(), 4);
    let client = WsClient::join(&app, conversation).await;
    let history = client.welcome["history"].as_array().unwrap();
    assert_eq!((history.len(), &history[0]["turn"]), (2, &body["turn"]));
}

#[tokio::test]
async fn api_chat_degrades_with_status_200_and_says_so() {
    let (alpha, app) = service().await;
    alpha.refuse().await;
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
async fn api_chat_says_what_is_wrong() {
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
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{shown}"
        );
        assert!(answer.json()["error"]["message"].is_string(), "{shown}");
        assert!(answer.header("x-request-id").starts_with("req-"), "{shown}");
    }
    assert_eq!(alpha.asked(), 0);
}

#[tokio::test]
async fn api_chat_is_refused_while_the_conversation_is_busy() {
    let (alpha, app) = service().await;
    alpha.usually(vec![spoken(["Wait"]), Act::Silence]);
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client.shows(&turn, |shown| shown.text == "Wait").await;
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
async fn options_choose_a_provider() {
    let (alpha, beta) = (
        ScriptedProvider::answering("Alpha.").await,
        ScriptedProvider::answering("Beta.").await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
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
    beta.refuse().await;
    assert_eq!(ask(json!({ "provider": "beta" })).await, "Alpha.");
    assert_eq!(
        ask(json!({ "provider": "beta", "failover": false })).await,
        "Later, please."
    );
    // A page's visitor has none, unless the operator says so.
    let mut client = WsClient::open(&app).await;
    client.say(&json!({
        "type": "send", "client_msg_id": "x", "text": "Xyzzy?", "options": { "provider": "beta", "failover": false },
    })).await;
    let accepted = client.next().await;
    assert_eq!(
        client.done(accepted["turn"].as_str().unwrap()).await.text,
        "Alpha."
    );
}

#[tokio::test]
async fn the_status_has_its_shape() {
    let (alpha, app) = service().await;
    let mut client = WsClient::open(&app).await;
    client.answered("What?").await;
    app.at_rest().await;
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
    // No key, no address, no prompt, no path.
    let text = status.to_string();
    let canaries = [
        "sk-canary",
        "127.0.0.1",
        "helpful assistant",
        &app.data().display().to_string(),
    ];
    assert!(
        canaries.iter().all(|canary| !text.contains(canary)),
        "{text}"
    );
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn pages_and_files_come_with_their_guards() {
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
async fn life_and_readiness_are_told() {
    let (_alpha, app) = service().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(app.request("GET", path).send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
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
    assert_eq!(app.provider("alpha").await["state"], "closed");
}

#[tokio::test]
async fn a_wrong_method_is_told_which_is_right() {
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
            app.request("HEAD", path).status_of_head().await,
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
async fn a_refusal_of_the_request_itself_is_no_outage() {
    let bad = || {
        vec![refusal(
            400,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"no","type":"invalid_request_error"}}"#,
        )]
    };
    let [alpha, beta, gamma] = [bad(), bad(), bad()].map(ScriptedProvider::start);
    let (alpha, beta, gamma) = (alpha.await, beta.await, gamma.await);
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]).await;
    let mut client = WsClient::open(&app).await;
    // One more provider, then a labelled answer; no breaker counts it.
    for _ in 0..6 {
        let shown = client.answered("Xyzzy?").await;
        assert_eq!(
            (
                shown.attempts.len(),
                &shown.done.as_ref().unwrap()["degraded"]
            ),
            (2, &json!(true))
        );
    }
    assert_eq!((alpha.asked(), beta.asked(), gamma.asked()), (6, 6, 0));
    for name in ["alpha", "beta"] {
        assert_eq!(app.provider(name).await["state"], "closed");
    }
}

/// The share of AI's answers: what was stopped, left, or wrong in itself is no outage; what broke and could not be mended is.
#[tokio::test]
async fn availability_counts_answers_and_what_was_lost() {
    let alpha = ScriptedProvider::start(vec![]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let answers = async || app.status().await["answers"].clone();
    assert_eq!(answers().await["availability"], Value::Null);

    let mut client = WsClient::open(&app).await;
    alpha.once(answer("Hello."));
    client.answered("Hello?").await;
    alpha.once(vec![spoken(["A ", "beginning"]), Act::Silence]);
    let turn = client.ask("And?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    client.done(&turn).await;
    let refused =
        json!({ "error": { "message": "no", "type": "invalid_request_error" } }).to_string();
    alpha.once(vec![refusal(
        400,
        "content-type: application/json\r\n",
        &refused,
    )]);
    assert_eq!(app.completion(&question("What?")).send().await.status, 400);
    let expected = json!({ "total": 3, "ai": 1, "degraded": 0, "availability": 1.0 });
    assert_eq!(answers().await, expected);

    // A stream that breaks with nobody to go on.
    alpha.once(vec![spoken(["A torn text"]), Act::Reset]);
    let torn = app.stream("What?").await.ended().await;
    assert!(torn.error.is_some() && !torn.done);
    assert_eq!(answers().await["availability"], 0.5);
}
