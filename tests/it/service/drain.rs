//! Shutdown: new turns are rejected, running ones finish, and clients are told to reconnect.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptedProvider, TestApp, WsClient, partial_answer, send_text, stream_end,
    test_settings, token_event, unique_message_id,
};

#[tokio::test]
async fn running_turns_finish_and_new_ones_are_rejected() {
    let gate = ScriptGate::default();
    let script = vec![
        partial_answer(["The ", "whole "]),
        gate.wait_step(),
        send_text(&token_event("answer.")),
        send_text(&stream_end()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.server.drain = Duration::from_secs(30);
    let mut app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let mut other = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "The whole ")
        .await;
    let mut phase = app.chat_service.turns.phase.clone();
    app.request_stop();
    crate::harness::eventually("the drain", phase.changed())
        .await
        .unwrap();

    assert_eq!(app.request("GET", "/readyz").send().await.status, 503);
    assert_eq!(app.request("GET", "/healthz").send().await.status, 200);
    let refused = other.ask_as(&unique_message_id(), "Me too?").await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("error"), &json!("shutting_down"))
    );
    assert!(refused["retry_after_s"].as_u64() > Some(0), "{refused}");
    let answer = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "Me too?" }))
        .send()
        .await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (503, &json!("shutting_down"))
    );
    // A client that reconnects during the drain still gets its answer.
    client.reconnect(app.port).await;
    gate.let_one_through();
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), &shown.done.as_ref().unwrap()["finish"]),
        ("The whole answer.", &json!("stop"))
    );
    assert_eq!(
        (client.wait_for_close().await, other.wait_for_close().await),
        (Some(1001), Some(1001))
    );
    app.shut_down().await;
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn turns_aborted_by_the_drain_end_as_interrupted() {
    let gate = ScriptGate::default();
    let alpha =
        ScriptedProvider::start(vec![partial_answer(["A ", "beginning"]), gate.wait_step()]).await;
    let mut app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = WsClient::open(&app).await;
        let turn = client.ask("What?").await;
        client
            .wait_for_turn(&turn, |shown| shown.text == "A beginning")
            .await;
        clients.push((client, turn));
    }
    let stopped = Instant::now();
    app.request_stop();
    for (client, turn) in &mut clients {
        let done = client.wait_for_done(turn).await.done.clone().unwrap();
        assert_eq!(
            (&done["finish"], &done["text"]),
            (&json!("interrupted"), &json!("A beginning"))
        );
        assert_eq!(client.wait_for_close().await, Some(1001));
    }
    app.shut_down().await;
    assert!(
        stopped.elapsed() < Duration::from_secs(10),
        "stopping took {:?}",
        stopped.elapsed()
    );
    alpha
        .wait_for(|counts| counts.client_disconnects == 5)
        .await;
}
