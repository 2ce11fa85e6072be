//! Shutdown: new turns are rejected, running ones finish, and clients are told to reconnect.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Gate, ScriptedProvider, TestApp, WsClient, finish, fresh_id, say, settings, spoken, word,
};

#[tokio::test]
async fn running_turns_finish_and_new_ones_are_rejected() {
    let gate = Gate::default();
    let script = vec![
        spoken(["The ", "whole "]),
        gate.hold(),
        say(&word("answer.")),
        say(&finish()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.server.drain = Duration::from_secs(30);
    let mut app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let mut other = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .shows(&turn, |shown| shown.text == "The whole ")
        .await;
    let mut phase = app.lobby.turns.phase.clone();
    app.stop();
    crate::harness::soon("the drain", phase.changed())
        .await
        .unwrap();

    assert_eq!(app.request("GET", "/readyz").send().await.status, 503);
    assert_eq!(app.request("GET", "/healthz").send().await.status, 200);
    let refused = other.ask_as(&fresh_id(), "Me too?").await;
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
    gate.open();
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), &shown.done.as_ref().unwrap()["finish"]),
        ("The whole answer.", &json!("stop"))
    );
    assert_eq!(
        (client.closed().await, other.closed().await),
        (Some(1001), Some(1001))
    );
    app.stopped().await;
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn turns_aborted_by_the_drain_end_as_interrupted() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![spoken(["A ", "beginning"]), gate.hold()]).await;
    let mut app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = WsClient::open(&app).await;
        let turn = client.ask("What?").await;
        client
            .shows(&turn, |shown| shown.text == "A beginning")
            .await;
        clients.push((client, turn));
    }
    let stopped = Instant::now();
    app.stop();
    for (client, turn) in &mut clients {
        let done = client.done(turn).await.done.clone().unwrap();
        assert_eq!(
            (&done["finish"], &done["text"]),
            (&json!("interrupted"), &json!("A beginning"))
        );
        assert_eq!(client.closed().await, Some(1001));
    }
    app.stopped().await;
    assert!(
        stopped.elapsed() < Duration::from_secs(10),
        "stopping took {:?}",
        stopped.elapsed()
    );
    alpha.until(|counts| counts.left == 5).await;
}
