//! The demo: three simulated providers on real sockets, and the panel that breaks and mends them.

use std::time::Duration;

use failsoft::config::Settings;
use failsoft::domain::ProviderState;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, WsClient};

async fn demo() -> TestApp {
    TestApp::start(Settings::demo()).await
}

/// Commands a provider as the panel does.
async fn command(app: &TestApp, name: &str, body: &Value) -> Answer {
    app.request("POST", &format!("/demo/providers/{name}"))
        .json(body)
        .send()
        .await
}

async fn break_with(app: &TestApp, name: &str, fault: &str) {
    let told = command(app, name, &json!({ "fault": fault })).await;
    let expected = if fault == "none" {
        Value::Null
    } else {
        json!(fault)
    };
    assert_eq!(
        (told.status, told.json()),
        (200, json!({ "provider": name, "fault": expected }))
    );
}

/// Breaks the answering provider in mid-answer: the answer ends whole, with the marker and the draft.
async fn break_in_mid_answer(fault: &'static str, reason: &str) {
    let app = demo().await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.welcome["demo"], true);
    let turn = client.ask("What is a circuit breaker?").await;
    client.shows(&turn, |shown| shown.tokens >= 5).await;
    break_with(&app, "aurora", fault).await;
    if reason.is_empty() {
        // It is only slow: no fault, and mended it goes on.
        let told = client.page.turn(&turn).tokens;
        client.shows(&turn, |shown| shown.tokens > told + 1).await;
        break_with(&app, "aurora", "none").await;
        let shown = client.done(&turn).await;
        assert_eq!((shown.attempts.len(), shown.restarts.len()), (1, 0));
        assert_eq!(shown.done.as_ref().unwrap()["provider"], "aurora");
        return;
    }
    let shown = client.done(&turn).await;
    assert_eq!(
        shown.path(),
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
    // Whole: as a healthy one of the same provider says it.
    let (text, question) = (shown.text.clone(), shown.question.clone());
    app.at_rest().await;
    assert_eq!(
        app.provider("aurora").await["counts"]["restarts"],
        1,
        "{fault}"
    );
    break_with(&app, "aurora", "none").await;
    assert_eq!(app.provider("aurora").await["state"], "closed", "{fault}");
    let whole =
        json!({ "message": question, "options": { "provider": "borealis", "failover": false } });
    let again = app
        .request("POST", "/api/chat")
        .json(&whole)
        .send()
        .await
        .json();
    assert_eq!(again["message"], text, "{fault}");
}

#[tokio::test]
async fn every_fault_in_mid_answer_leaves_a_whole_one() {
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
async fn what_a_fault_left_is_lifted_with_it() {
    let app = demo().await;
    let mut client = WsClient::open(&app).await;
    let ask = async |client: &mut WsClient| {
        let turn = client.ask("Hello?").await;
        let path = client.shows(&turn, |shown| shown.tokens > 0).await.path();
        client.say(&json!({ "type": "stop", "turn": turn })).await;
        client.done(&turn).await;
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
        app.vitals("aurora", |vitals| vitals.state == state).await;
        break_with(&app, "aurora", "none").await;
        let vitals = app.provider("aurora").await;
        assert_eq!(
            (&vitals["state"], &vitals["retry_at"]),
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
async fn with_all_of_them_down_the_answer_is_labelled_and_a_fault_ends_in_time() {
    let app = demo().await;
    let mut client = WsClient::open(&app).await;
    for name in ["aurora", "borealis", "cascade"] {
        let told = command(&app, name, &json!({ "fault": "down", "for": "2s" })).await;
        assert_eq!(told.status, 200);
    }
    let shown = client.answered("Xyzzy?").await;
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["degraded"], &done["attempts"], &done["provider"]),
        (&json!(true), &json!(3), &Value::Null)
    );
    assert!(!shown.text.is_empty());
    // Mended by itself: the first one answers again.
    let mended = async {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            beat.tick().await;
            let ask = json!({ "message": "Xyzzy?", "options": { "provider": "aurora", "failover": false } });
            let connection = app.request("POST", "/api/chat").json(&ask);
            let answer = connection.send().await.json();
            if answer["provider"] == "aurora" {
                return;
            }
        }
    };
    crate::harness::soon("aurora to be mended", mended).await;
}

#[tokio::test]
async fn the_panel_says_what_it_does_not_understand() {
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
        let told = command(&app, name, &body).await;
        assert_eq!(told.status, status, "{name} {body}");
        assert!(
            told.json()["error"]["message"]
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
    // Nothing was broken by it.
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Hello?").await;
    assert_eq!(
        client.shows(&turn, |shown| shown.tokens > 0).await.path(),
        [("aurora".into(), "".into())]
    );
    // The service's own page may.
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
async fn every_page_of_a_demo_says_so() {
    let app = demo().await;
    let page = app.request("GET", "/").send().await;
    assert!(
        page.body.contains("Demo: simulated providers"),
        "{}",
        page.body
    );
    let names: Vec<_> = app.status().await["providers"].as_array().unwrap().clone();
    let dialects: Vec<_> = names
        .iter()
        .map(|one| (one["name"].clone(), one["dialect"].clone()))
        .collect();
    let cast = [
        ("aurora", "openai"),
        ("borealis", "anthropic"),
        ("cascade", "ollama"),
    ];
    assert_eq!(
        dialects,
        cast.map(|(name, dialect)| (json!(name), json!(dialect)))
    );
}
