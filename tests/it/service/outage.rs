//! Nobody can answer: a labelled answer at once, and everyone is told.

use std::time::{Duration, Instant};

use failsoft::domain::ProviderState;
use serde_json::{Value, json};

use crate::harness::{Act, ScriptedProvider, TestApp, WsClient, answer, refusal, settings};

fn busy() -> Vec<Act> {
    vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]
}

#[tokio::test]
async fn once_the_breakers_are_open_the_answer_comes_at_once() {
    let (alpha, beta) = (
        ScriptedProvider::start(busy()).await,
        ScriptedProvider::start(busy()).await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
        provider.breaker.open_for = Duration::from_secs(60);
        provider.breaker.open_max = Duration::from_secs(60);
    }
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let first = client.answered("Xyzzy?").await;
    assert_eq!(first.attempts.len(), 2);
    let mut times = Vec::new();
    for round in 0..21 {
        let priced = round % 2 == 1;
        let (question, source) = if priced {
            ("What is the price?", "template")
        } else {
            ("Xyzzy?", "fallback")
        };
        let asked = Instant::now();
        let turn = client.ask(question).await;
        let shown = client.done(&turn).await;
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
        assert_eq!(shown.text == "Later, please.", !priced);
        assert!(!shown.text.is_empty() && shown.tokens == 1 && shown.restarts.is_empty());
    }
    times.sort();
    println!(
        "a labelled answer: median {:?}, slowest {:?}",
        times[10], times[20]
    );
    assert!(
        times[10] < Duration::from_millis(100),
        "the median is {:?}",
        times[10]
    );
    assert_eq!((alpha.asked(), beta.asked()), (1, 1));
    let answers = app.status().await["answers"].clone();
    assert_eq!(
        answers,
        json!({ "total": 22, "ai": 0, "degraded": 22, "availability": 0.0 })
    );
    // What no AI answered is not shown to the model later, but kept.
    let client = WsClient::join(&app, &client.conversation).await;
    assert_eq!(client.welcome["history"].as_array().unwrap().len(), 22);
}

#[tokio::test]
async fn without_any_attempt_in_time_the_answer_is_labelled_too() {
    let silent = || ScriptedProvider::start(vec![Act::Silence]);
    let (alpha, beta) = (silent().await, silent().await);
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.timeouts.turn = Duration::from_millis(1000);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let asked = Instant::now();
    let shown = client.answered("Xyzzy?").await;
    assert_eq!(shown.done.as_ref().unwrap()["source"], "fallback");
    // The turn's own limit holds over all attempts; what is left of it is too little for another.
    assert_eq!(shown.outcomes(), ["timeout"]);
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "it took {:?}",
        asked.elapsed()
    );
    assert_eq!((alpha.asked(), beta.asked()), (1, 0));
    app.at_rest().await;
}

/// The one test that waits for the mode's holds: two seconds down, ten up.
#[tokio::test]
async fn every_page_is_told_of_an_outage_and_of_its_end() {
    let (alpha, beta) = (
        ScriptedProvider::start(busy()).await,
        ScriptedProvider::start(busy()).await,
    );
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
    }
    let app = TestApp::start(settings).await;
    let (mut client, mut other) = (WsClient::open(&app).await, WsClient::open(&app).await);
    // Who asks may hear of the state before its answer; those who only look hear of it in order.
    WsClient::open(&app).await.answered("Xyzzy?").await;
    let down = Instant::now();
    for client in [&mut client, &mut other] {
        // The providers' states at once, the mode when it has lasted.
        let first = client.until(|frame| frame["type"] == "status").await;
        assert_eq!(first["mode"], "normal");
        assert!(
            first["providers"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["state"] != "closed"),
            "{first}"
        );
        let told = client
            .until(|frame| frame["type"] == "status" && frame["mode"] == "outage")
            .await;
        assert!(
            told["incident"].is_string() && told["message"] != "",
            "{told}"
        );
        assert_eq!(told["active"], Value::Null);
    }
    let held = down.elapsed();
    assert!(
        held > Duration::from_millis(1500) && held < Duration::from_secs(6),
        "told after {held:?}"
    );
    let status = app.status().await;
    assert_eq!(status["mode"], "outage");
    let incident = status["incident"].clone();
    assert_eq!(
        WsClient::open(&app).await.welcome["status"]["incident"],
        incident
    );

    // Alpha comes back: it answers at once, the mode follows when it has lasted, and one incident is over.
    alpha.usually(answer("Alpha."));
    app.vitals("alpha", |vitals| vitals.state == ProviderState::Closed)
        .await;
    let well = Instant::now();
    let found = client
        .until(|frame| frame["type"] == "status" && frame["active"] == "alpha")
        .await;
    assert_eq!(
        (&found["mode"], &found["incident"]),
        (&json!("outage"), &incident)
    );
    assert_eq!(client.answered("Xyzzy?").await.text, "Alpha.");
    let told = client
        .until(|frame| frame["type"] == "status" && frame["mode"] == "normal")
        .await;
    let held = well.elapsed();
    assert!(
        held > Duration::from_secs(9) && held < Duration::from_secs(15),
        "told after {held:?}"
    );
    assert_eq!(
        (&told["incident"], &told["message"]),
        (&Value::Null, &json!(""))
    );
    assert_eq!(told["active"], "alpha");
    other
        .until(|frame| frame["type"] == "status" && frame["mode"] == "normal")
        .await;
}
