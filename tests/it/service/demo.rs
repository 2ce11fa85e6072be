//! The demo: three simulated providers on real sockets, and the panel that breaks and repairs them.

use std::time::Duration;

use failsoft::config::Settings;
use failsoft::domain::ProviderState;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{TestApp, TestResponse, WsClient};

async fn demo() -> TestApp {
    TestApp::start(Settings::demo()).await
}

/// Sends a provider a command as the panel does.
async fn command(app: &TestApp, name: &str, body: &Value) -> TestResponse {
    app.request("POST", &format!("/demo/providers/{name}"))
        .json(body)
        .send()
        .await
}

async fn break_with(app: &TestApp, name: &str, fault: &str) {
    let answer = command(app, name, &json!({ "fault": fault })).await;
    let expected = if fault == "none" {
        Value::Null
    } else {
        json!(fault)
    };
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "provider": name, "fault": expected }))
    );
}

/// Breaks the provider in mid-answer. The answer ends whole, with a draft of the broken attempt.
async fn break_in_mid_answer(fault: &'static str, reason: &str) {
    let app = demo().await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.welcome["demo"], true);
    let turn = client.ask("What is a circuit breaker?").await;
    client
        .wait_for_turn(&turn, |shown| shown.token_frames >= 5)
        .await;
    break_with(&app, "aurora", fault).await;
    assert_eq!(app.status().await["drill"], Value::Null, "{fault}");
    if reason.is_empty() {
        // `slow` is no failure: the answer continues, and normally so once repaired.
        let tokens = client.page.turn(&turn).token_frames;
        client
            .wait_for_turn(&turn, |shown| shown.token_frames > tokens + 1)
            .await;
        break_with(&app, "aurora", "none").await;
        let shown = client.wait_for_done(&turn).await;
        assert_eq!((shown.attempts.len(), shown.restarts.len()), (1, 0));
        assert_eq!(shown.done.as_ref().unwrap()["provider"], "aurora");
        return;
    }
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        shown.provider_path(),
        [
            ("aurora".into(), "".into()),
            ("borealis".into(), reason.into())
        ],
        "{fault}"
    );
    let [restart] = &shown.restarts[..] else {
        panic!("{fault}: {} restarts", shown.restarts.len())
    };
    assert_eq!(
        (&restart["to"], &restart["reason"]),
        (&json!("borealis"), &json!(reason)),
        "{fault}"
    );
    let [(from, draft)] = &shown.drafts[..] else {
        panic!("{fault}: {} drafts", shown.drafts.len())
    };
    assert!(
        from == "aurora" && !draft.is_empty() && !shown.text.starts_with(draft),
        "{fault}"
    );
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["source"], &done["finish"], &done["provider"]),
        (&json!("ai"), &json!("stop"), &json!("borealis"))
    );
    // The text is the same as in an undisturbed answer of that provider.
    let text = shown.text.clone();
    let question = shown.question.clone();
    app.wait_until_idle().await;
    assert_eq!(
        app.provider_status("aurora").await["counts"]["restarts"],
        1,
        "{fault}"
    );
    break_with(&app, "aurora", "none").await;
    assert_eq!(
        app.provider_status("aurora").await["state"],
        "closed",
        "{fault}"
    );
    let body =
        json!({ "message": question, "options": { "provider": "borealis", "failover": false } });
    let undisturbed = app
        .request("POST", "/api/chat")
        .json(&body)
        .send()
        .await
        .json();
    assert_eq!(undisturbed["message"], text, "{fault}");
}

#[tokio::test]
async fn every_fault_in_mid_answer_leaves_a_whole_answer() {
    let faults = [
        ("down", "reset"),
        ("rate_limit", "reset"),
        ("unauthorized", "reset"),
        ("timeout", "stalled"),
        ("stall", "stalled"),
        ("cut", "reset"),
        ("garbage", "malformed"),
        ("slow", ""),
    ];
    join_all(faults.map(|(fault, reason)| break_in_mid_answer(fault, reason))).await;
}

#[tokio::test]
async fn repairing_a_provider_resets_its_breaker() {
    let app = demo().await;
    let mut client = WsClient::open(&app).await;
    let ask = async |client: &mut WsClient| {
        let turn = client.ask("Hello?").await;
        let path = client
            .wait_for_turn(&turn, |shown| shown.token_frames > 0)
            .await
            .provider_path();
        client
            .send_frame(&json!({ "type": "stop", "turn": turn }))
            .await;
        client.wait_for_done(&turn).await;
        path
    };
    for (fault, reason, state) in [
        ("unauthorized", "refused", ProviderState::Blocked),
        ("rate_limit", "rate_limited", ProviderState::Closed),
        ("down", "refused", ProviderState::Closed),
    ] {
        break_with(&app, "aurora", fault).await;
        assert_eq!(
            ask(&mut client).await,
            [
                ("aurora".into(), "".into()),
                ("borealis".into(), reason.into())
            ],
            "{fault}"
        );
        app.wait_for_status("aurora", |provider_status| provider_status.state == state)
            .await;
        break_with(&app, "aurora", "none").await;
        let provider_status = app.provider_status("aurora").await;
        assert_eq!(
            (&provider_status["state"], &provider_status["retry_at"]),
            (&json!("closed"), &Value::Null),
            "{fault}"
        );
        assert_eq!(
            ask(&mut client).await,
            [("aurora".into(), "".into())],
            "{fault}"
        );
    }
}

#[tokio::test]
async fn with_all_providers_down_a_fallback_comes_and_timed_faults_end() {
    let app = demo().await;
    let mut client = WsClient::open(&app).await;
    for name in ["aurora", "borealis", "cascade"] {
        let answer = command(&app, name, &json!({ "fault": "down", "for": "2s" })).await;
        assert_eq!(answer.status, 200);
    }
    let shown = client.ask_and_wait("Xyzzy?").await;
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["degraded"], &done["attempts"], &done["provider"]),
        (&json!(true), &json!(3), &Value::Null)
    );
    assert!(!shown.text.is_empty());
    // The fault ends by itself, and the first provider answers again.
    let repaired = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let ask = json!({ "message": "Xyzzy?", "options": { "provider": "aurora", "failover": false } });
            let connection = app.request("POST", "/api/chat").json(&ask);
            let answer = connection.send().await.json();
            if answer["provider"] == "aurora" {
                return;
            }
        }
    };
    crate::harness::eventually("aurora to be repaired", repaired).await;
}

#[tokio::test]
async fn invalid_panel_commands_are_rejected_with_a_message() {
    let app = demo().await;
    for (name, body, status) in [
        ("aurora", json!({ "fault": "nonsense" }), 400),
        ("aurora", json!({ "fault": "Down" }), 400),
        ("aurora", json!({ "fault": "" }), 400),
        ("aurora", json!({}), 400),
        ("aurora", json!({ "fault": "down", "for": "soon" }), 400),
        ("aurora", json!({ "fault": "down", "for": "0s" }), 400),
        ("aurora", json!({ "fault": "down", "for": "16m" }), 400),
        ("nobody", json!({ "fault": "down" }), 404),
    ] {
        let answer = command(&app, name, &body).await;
        assert_eq!(answer.status, status, "{name} {body}");
        assert!(
            answer.json()["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
    for origin in ["https://evil.example", "null"] {
        let request = app
            .request("POST", "/demo/providers/aurora")
            .header("origin", origin);
        assert_eq!(
            request
                .json(&json!({ "fault": "down" }))
                .send()
                .await
                .status,
            403,
            "{origin}"
        );
    }
    // None of these commands broke a provider.
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Hello?").await;
    assert_eq!(
        client
            .wait_for_turn(&turn, |shown| shown.token_frames > 0)
            .await
            .provider_path(),
        [("aurora".into(), "".into())]
    );
    // The service's own origin is allowed.
    let own = format!("http://127.0.0.1:{}", app.port);
    let request = app
        .request("POST", "/demo/providers/cascade")
        .header("origin", &own);
    assert_eq!(
        request
            .json(&json!({ "fault": "slow" }))
            .send()
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_page_and_the_status_show_the_demo_providers() {
    let app = demo().await;
    let page = app.request("GET", "/").send().await;
    assert!(
        page.body.contains("Demo: simulated providers"),
        "{}",
        page.body
    );
    let providers: Vec<_> = app.status().await["providers"].as_array().unwrap().clone();
    let dialects: Vec<_> = providers
        .iter()
        .map(|provider| (provider["name"].clone(), provider["dialect"].clone()))
        .collect();
    let expected = [
        ("aurora", "openai"),
        ("borealis", "anthropic"),
        ("cascade", "ollama"),
    ];
    assert_eq!(
        dialects,
        expected.map(|(name, dialect)| (json!(name), json!(dialect)))
    );
}
