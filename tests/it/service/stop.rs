//! Stopping a turn and leaving it: the provider's call is closed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Act, Gate, ScriptedProvider, TestApp, WsClient, answer, settings, spoken};

#[tokio::test]
async fn stop_closes_the_providers_call_at_once() {
    let alpha = ScriptedProvider::start(vec![spoken(["A ", "beginning"]), Act::Silence]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    assert_eq!(app.provider("alpha").await["in_flight"], 1);
    let stopped = Instant::now();
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    alpha.until(|counts| counts.left == 1).await;
    assert!(
        stopped.elapsed() < Duration::from_secs(1),
        "the provider saw the end after {:?}",
        stopped.elapsed()
    );
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.drafts.len()),
        ("A beginning", 0)
    );
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["finish"], &done["source"]),
        (&json!("stopped"), &json!("ai"))
    );
    assert_eq!(shown.outcomes(), ["stopped"]);
    app.at_rest().await;
    // A stop is not counted as the provider's failure.
    let vitals = app.provider("alpha").await;
    assert_eq!(
        vitals["counts"],
        json!({ "success": 0, "failure": 0, "restarts": 0 })
    );
    assert_eq!(
        (&vitals["in_flight"], &vitals["state"]),
        (&json!(0), &json!("closed"))
    );
    // A second stop has no effect.
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    client.quiet().await;
    // The conversation goes on.
    alpha.usually(answer("Next."));
    assert_eq!(client.answered("And?").await.text, "Next.");
}

#[tokio::test]
async fn stop_works_from_any_tab_and_before_the_first_token() {
    let alpha = ScriptedProvider::start(vec![Act::Silence]).await;
    let beta = ScriptedProvider::answering("Never asked.").await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    alpha.until(|counts| counts.open == 1).await;
    let mut other = WsClient::join(&app, &client.conversation).await;
    other.say(&json!({ "type": "stop", "turn": turn })).await;
    for client in [&mut client, &mut other] {
        let shown = client.done(&turn).await;
        assert_eq!(
            (shown.text.as_str(), &shown.done.as_ref().unwrap()["finish"]),
            ("", &json!("stopped"))
        );
    }
    alpha.until(|counts| counts.left == 1).await;
    assert_eq!(beta.asked(), 0);
    app.at_rest().await;
}

#[tokio::test]
async fn stop_during_a_fail_over_starts_no_new_attempt() {
    // Alpha is to be retried after a second; the stop comes during that wait.
    let limited = "HTTP/1.1 429 No\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let alpha = ScriptedProvider::start(vec![crate::harness::say(limited)]).await;
    let beta = ScriptedProvider::answering("Never asked.").await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let asked = Instant::now();
    let turn = client.ask("What?").await;
    app.vitals("alpha", |vitals| vitals.failures == 1).await;
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    let shown = client.done(&turn).await;
    assert_eq!(shown.done.as_ref().unwrap()["finish"], "stopped");
    assert!(
        asked.elapsed() < Duration::from_millis(1000),
        "the turn ended after {:?}",
        asked.elapsed()
    );
    assert_eq!(shown.outcomes(), ["rate_limited"]);
    app.at_rest().await;
    assert_eq!((alpha.asked(), beta.asked()), (1, 0));
}

#[tokio::test]
async fn a_disconnected_api_caller_cancels_the_call_within_seconds() {
    let alpha = ScriptedProvider::start(vec![spoken(["A ", "beginning"]), Act::Silence]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let request = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "What?" }));
    let connection = request.begin().await;
    alpha.until(|counts| counts.open == 1).await;
    let left = Instant::now();
    drop(connection);
    alpha.until(|counts| counts.left == 1).await;
    assert!(
        left.elapsed() < Duration::from_secs(4),
        "the provider saw the end after {:?}",
        left.elapsed()
    );
    app.at_rest().await;
}

#[tokio::test]
async fn a_client_can_reconnect_and_stop_its_turn() {
    let gate = Gate::default();
    let alpha =
        ScriptedProvider::start(vec![spoken(["A ", "beginning"]), gate.hold(), Act::Silence]).await;
    let app = TestApp::start(settings(&[("alpha", &alpha)])).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    let conversation = client.conversation.clone();
    drop(client);
    gate.open();
    let mut client = WsClient::join(&app, &conversation).await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    assert_eq!(alpha.counts().left, 0, "the turn was cancelled");
    client.say(&json!({ "type": "stop", "turn": turn })).await;
    client.done(&turn).await;
    alpha.until(|counts| counts.left == 1).await;
    app.at_rest().await;
}
