//! Stopping a turn and leaving it: the provider's call is closed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, full_answer, partial_answer,
    test_settings,
};

#[tokio::test]
async fn stop_closes_the_providers_call_at_once() {
    let alpha =
        ScriptedProvider::start(vec![partial_answer(["A ", "beginning"]), ScriptStep::Hang]).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A beginning")
        .await;
    assert_eq!(app.provider_status("alpha").await["in_flight"], 1);
    let stopped = Instant::now();
    client
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    alpha
        .wait_for(|counts| counts.client_disconnects == 1)
        .await;
    assert!(
        stopped.elapsed() < Duration::from_secs(1),
        "the provider saw the end after {:?}",
        stopped.elapsed()
    );
    let shown = client.wait_for_done(&turn).await;
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
    app.wait_until_idle().await;
    // A stop is not counted as the provider's failure.
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        provider_status["counts"],
        json!({ "success": 0, "failure": 0, "restarts": 0 })
    );
    assert_eq!(
        (&provider_status["in_flight"], &provider_status["state"]),
        (&json!(0), &json!("closed"))
    );
    // A second stop has no effect.
    client
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    client.assert_no_pending_frame().await;
    // The conversation goes on.
    alpha.script_default(full_answer("Next."));
    assert_eq!(client.ask_and_wait("And?").await.text, "Next.");
}

#[tokio::test]
async fn stop_works_from_any_tab_and_before_the_first_token() {
    let alpha = ScriptedProvider::start(vec![ScriptStep::Hang]).await;
    let beta = ScriptedProvider::answering("Never asked.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    alpha.wait_for(|counts| counts.in_flight == 1).await;
    let mut other = WsClient::join(&app, &client.conversation).await;
    other
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    for client in [&mut client, &mut other] {
        let shown = client.wait_for_done(&turn).await;
        assert_eq!(
            (shown.text.as_str(), &shown.done.as_ref().unwrap()["finish"]),
            ("", &json!("stopped"))
        );
    }
    alpha
        .wait_for(|counts| counts.client_disconnects == 1)
        .await;
    assert_eq!(beta.question_count(), 0);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn stop_during_a_fail_over_starts_no_new_attempt() {
    // Alpha is to be retried after a second; the stop comes during that wait.
    let limited = "HTTP/1.1 429 No\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let alpha = ScriptedProvider::start(vec![crate::harness::send_text(limited)]).await;
    let beta = ScriptedProvider::answering("Never asked.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let asked = Instant::now();
    let turn = client.ask("What?").await;
    app.wait_for_status("alpha", |provider_status| provider_status.failures == 1)
        .await;
    client
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(shown.done.as_ref().unwrap()["finish"], "stopped");
    assert!(
        asked.elapsed() < Duration::from_millis(1000),
        "the turn ended after {:?}",
        asked.elapsed()
    );
    assert_eq!(shown.outcomes(), ["rate_limited"]);
    app.wait_until_idle().await;
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 0));
}

#[tokio::test]
async fn a_disconnected_api_caller_cancels_the_call_within_seconds() {
    let alpha =
        ScriptedProvider::start(vec![partial_answer(["A ", "beginning"]), ScriptStep::Hang]).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let request = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "What?" }));
    let connection = request.send_without_reading().await;
    alpha.wait_for(|counts| counts.in_flight == 1).await;
    let left = Instant::now();
    drop(connection);
    alpha
        .wait_for(|counts| counts.client_disconnects == 1)
        .await;
    assert!(
        left.elapsed() < Duration::from_secs(4),
        "the provider saw the end after {:?}",
        left.elapsed()
    );
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_client_can_reconnect_and_stop_its_turn() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["A ", "beginning"]),
        gate.wait_step(),
        ScriptStep::Hang,
    ])
    .await;
    let app = TestApp::start(test_settings(&[("alpha", &alpha)])).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A beginning")
        .await;
    let conversation = client.conversation.clone();
    drop(client);
    gate.let_one_through();
    let mut client = WsClient::join(&app, &conversation).await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A beginning")
        .await;
    assert_eq!(
        alpha.counts().client_disconnects,
        0,
        "the turn was cancelled"
    );
    client
        .send_frame(&json!({ "type": "stop", "turn": turn }))
        .await;
    client.wait_for_done(&turn).await;
    alpha
        .wait_for(|counts| counts.client_disconnects == 1)
        .await;
    app.wait_until_idle().await;
}
