//! Outages: fallback answers at once, and notices to every client.

use std::time::{Duration, Instant};

use failsoft::domain::ProviderState;
use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer, test_settings,
};

fn busy() -> Vec<ScriptStep> {
    vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]
}

#[tokio::test]
async fn with_all_breakers_open_a_fallback_comes_within_100_ms() {
    let alpha = ScriptedProvider::start(busy()).await;
    let beta = ScriptedProvider::start(busy()).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
        provider.breaker.open_for = Duration::from_secs(60);
        provider.breaker.open_max = Duration::from_secs(60);
    }
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let first = client.ask_and_wait("Xyzzy?").await;
    assert_eq!(first.attempts.len(), 2);
    let mut times = Vec::new();
    for round in 0..21 {
        let has_template = round % 2 == 1;
        let (question, source) = if has_template {
            ("What is the price?", "template")
        } else {
            ("Xyzzy?", "fallback")
        };
        let asked = Instant::now();
        let turn = client.ask(question).await;
        let shown = client.wait_for_done(&turn).await;
        times.push(asked.elapsed());
        let done = shown.done.as_ref().unwrap();
        assert_eq!(
            (&done["source"], &done["degraded"]),
            (&json!(source), &json!(true))
        );
        assert_eq!(
            (&done["provider"], &done["attempts"]),
            (&Value::Null, &json!(0))
        );
        assert_eq!(shown.text == "Later, please.", !has_template);
        assert!(!shown.text.is_empty() && shown.token_frames == 1 && shown.restarts.is_empty());
    }
    times.sort();
    println!(
        "a fallback answer: median {:?}, slowest {:?}",
        times[10], times[20]
    );
    assert!(
        times[10] < Duration::from_millis(100),
        "the median is {:?}",
        times[10]
    );
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    let answers = app.status().await["answers"].clone();
    assert_eq!(
        answers,
        json!({ "total": 22, "ai": 0, "degraded": 22, "availability": 0.0 })
    );
    // Degraded turns are kept in the history, although the model does not get them.
    let client = WsClient::join(&app, &client.conversation).await;
    assert_eq!(client.welcome["history"].as_array().unwrap().len(), 22);
}

#[tokio::test]
async fn a_turn_that_times_out_ends_with_a_fallback() {
    let silent = || ScriptedProvider::start(vec![ScriptStep::Hang]);
    let alpha = silent().await;
    let beta = silent().await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.timeouts.turn = Duration::from_millis(1000);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let asked = Instant::now();
    let shown = client.ask_and_wait("Xyzzy?").await;
    assert_eq!(shown.done.as_ref().unwrap()["source"], "fallback");
    // The turn's own limit covers all attempts; too little of it is left for a second one.
    assert_eq!(shown.outcomes(), ["timeout"]);
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "it took {:?}",
        asked.elapsed()
    );
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 0));
    app.wait_until_idle().await;
}

/// Waits for the mode's hold times: two seconds until an outage, ten until normal.
#[tokio::test]
async fn every_client_is_notified_of_an_outage_and_its_end() {
    let alpha = ScriptedProvider::start(busy()).await;
    let beta = ScriptedProvider::start(busy()).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
    }
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let mut other = WsClient::open(&app).await;
    // A third client asks: for the asking one, frames of status and answer may come in any order.
    WsClient::open(&app).await.ask_and_wait("Xyzzy?").await;
    let down = Instant::now();
    for client in [&mut client, &mut other] {
        // Provider states are sent at once, the mode after its hold time.
        let first = client
            .wait_for_frame(|frame| frame["type"] == "status")
            .await;
        assert_eq!(first["mode"], "normal");
        assert!(
            first["providers"]
                .as_array()
                .unwrap()
                .iter()
                .any(|provider| provider["state"] != "closed"),
            "{first}"
        );
        let status = client
            .wait_for_frame(|frame| frame["type"] == "status" && frame["mode"] == "outage")
            .await;
        assert!(
            status["incident"].is_string() && status["message"] != "",
            "{status}"
        );
        assert_eq!(status["active"], Value::Null);
    }
    let held = down.elapsed();
    assert!(
        held > Duration::from_millis(1500) && held < Duration::from_secs(6),
        "sent after {held:?}"
    );
    let status = app.status().await;
    assert_eq!(status["mode"], "outage");
    let incident = status["incident"].clone();
    assert_eq!(
        WsClient::open(&app).await.welcome["status"]["incident"],
        incident
    );

    // Alpha recovers and answers at once; the mode follows after its hold time.
    alpha.script_default(full_answer("Alpha."));
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == ProviderState::Closed
    })
    .await;
    let recovered = Instant::now();
    let status = client
        .wait_for_frame(|frame| frame["type"] == "status" && frame["active"] == "alpha")
        .await;
    assert_eq!(
        (&status["mode"], &status["incident"]),
        (&json!("outage"), &incident)
    );
    assert_eq!(client.ask_and_wait("Xyzzy?").await.text, "Alpha.");
    let status = client
        .wait_for_frame(|frame| frame["type"] == "status" && frame["mode"] == "normal")
        .await;
    let held = recovered.elapsed();
    assert!(
        held > Duration::from_secs(9) && held < Duration::from_secs(15),
        "sent after {held:?}"
    );
    assert_eq!(
        (&status["incident"], &status["message"]),
        (&Value::Null, &json!(""))
    );
    assert_eq!(status["active"], "alpha");
    other
        .wait_for_frame(|frame| frame["type"] == "status" && frame["mode"] == "normal")
        .await;
}
