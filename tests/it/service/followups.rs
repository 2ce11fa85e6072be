//! What an outage left without an AI's answer is answered late, in the same conversation, on every tab.

use std::time::Duration;

use failsoft::config::Settings;
use serde_json::{Value, json};

use crate::harness::{
    Act, ScriptedProvider, TestApp, WsClient, answer, fresh_id, refusal, settings, spoken, texts,
};

fn busy() -> Vec<Act> {
    vec![refusal(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]
}

/// One provider, given up at its first failure, and late answers as many as there are turns.
fn with_outbox(alpha: &ScriptedProvider) -> Settings {
    let mut settings = settings(&[("alpha", alpha)]);
    settings.degradation.outbox = true;
    settings.degradation.fallback = "Later, please.".into();
    settings.retry.budget = 10.0;
    for provider in &mut settings.providers {
        provider.breaker.consecutive_failures = 1;
        provider.breaker.open_for = Duration::from_millis(200);
        provider.breaker.open_max = Duration::from_millis(400);
    }
    settings
}

async fn degraded(client: &mut WsClient, question: &str) -> String {
    let turn = client.ask(question).await;
    let shown = client.done(&turn).await;
    assert_eq!(
        (
            shown.text.as_str(),
            &shown.done.as_ref().unwrap()["degraded"]
        ),
        ("Later, please.", &json!(true))
    );
    turn
}

async fn followup(client: &mut WsClient) -> Value {
    client.until(|frame| frame["type"] == "followup").await
}

async fn history(app: &TestApp, conversation: &str) -> Vec<Value> {
    WsClient::join(app, conversation).await.welcome["history"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn late_answers_come_in_order_to_every_tab_and_stay() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_outbox(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let mut turns = Vec::new();
    for question in ["One?", "Two?", "Three?"] {
        turns.push(degraded(&mut client, question).await);
    }
    let mut tab = WsClient::join(&app, &client.conversation).await;
    let before = alpha.asked();
    for text in ["First.", "Second."] {
        alpha.once(answer(text));
    }
    alpha.usually(answer("Third."));
    for client in [&mut client, &mut tab] {
        for (turn, text) in turns.iter().zip(["First.", "Second.", "Third."]) {
            let late = followup(client).await;
            assert_eq!((&late["turn"], &late["text"]), (&json!(turn), &json!(text)));
            assert_eq!(
                (&late["provider"], &late["model"]),
                (&json!("alpha"), &json!("alpha-model"))
            );
            let fields = late.as_object().unwrap().keys().collect::<Vec<_>>();
            assert_eq!(fields, ["at", "model", "provider", "text", "turn", "type"]);
        }
    }
    assert_eq!(alpha.asked(), before + 3);
    let kept = history(&app, &client.conversation).await;
    assert_eq!(texts(&kept, "text"), ["Later, please."; 3]);
    assert_eq!(
        texts(kept.iter().map(|turn| &turn["followup"]), "text"),
        ["First.", "Second.", "Third."]
    );
    assert!(
        kept.iter()
            .all(|turn| turn["degraded"] == true && turn["source"] == "fallback")
    );
    // The next turn goes on from them.
    assert_eq!(client.answered("Four?").await.text, "Third.");
    let (_, asked) = alpha.requests().pop().unwrap();
    let said = texts(&asked["messages"].as_array().unwrap()[1..], "content");
    assert_eq!(
        said,
        [
            "One?", "First.", "Two?", "Second.", "Three?", "Third.", "Four?"
        ]
    );
    // They are no turns of their own.
    let answers = app.status().await["answers"].clone();
    assert_eq!(
        (&answers["total"], &answers["ai"], &answers["degraded"]),
        (&json!(4), &json!(1), &json!(3))
    );
    app.at_rest().await;
}

#[tokio::test]
async fn a_thumb_and_a_late_answer_do_not_cost_each_other() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_outbox(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let turn = degraded(&mut client, "One?").await;
    alpha.usually(answer("Late."));
    client
        .say(&json!({ "type": "feedback", "turn": turn, "value": "down" }))
        .await;
    followup(&mut client).await;
    let kept = history(&app, &client.conversation).await;
    assert_eq!(
        (&kept[0]["feedback"], &kept[0]["followup"]["text"]),
        (&json!("down"), &json!("Late."))
    );
    client
        .say(&json!({ "type": "feedback", "turn": turn, "value": "up" }))
        .await;
    client.quiet().await;
    let kept = history(&app, &client.conversation).await;
    assert_eq!(
        (&kept[0]["feedback"], &kept[0]["followup"]["text"]),
        (&json!("up"), &json!("Late."))
    );
}

#[tokio::test]
async fn who_asked_again_or_over_the_api_gets_none() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_outbox(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let called = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "Called?" }))
        .send()
        .await;
    assert_eq!(called.json()["degraded"], true);
    let unkept = json!({ "model": "auto", "messages": [{ "role": "user", "content": "Unkept?" }] });
    assert_eq!(
        app.request("POST", "/v1/chat/completions")
            .json(&unkept)
            .send()
            .await
            .status,
        200
    );
    let first = degraded(&mut client, "One?").await;
    client
        .say(&json!({ "type": "retry", "turn": first, "client_msg_id": fresh_id() }))
        .await;
    let again = client.until(|frame| frame["type"] == "done").await["turn"].clone();
    let last = degraded(&mut client, "Two?").await;
    alpha.usually(answer("Late."));
    assert_eq!(followup(&mut client).await["turn"], again);
    assert_eq!(followup(&mut client).await["turn"], json!(last));
    // In the order of the questions: the ones before would have come before.
    let asked: Vec<_> = alpha
        .requests()
        .into_iter()
        .map(|(_, asked)| asked)
        .collect();
    let late = asked.iter().rev().take(2).rev();
    let questions: Vec<_> = late
        .map(|asked| asked["messages"].as_array().unwrap().last().unwrap()["content"].clone())
        .collect();
    assert_eq!(questions, ["One?", "Two?"]);
    assert_eq!(app.lobby.turns.store.pending_followups().await, Ok(vec![]));
    assert_eq!(
        history(&app, &client.conversation).await[0]["followup"],
        Value::Null
    );
}

#[tokio::test]
async fn who_waits_is_known_after_a_restart() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_outbox(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let turn = degraded(&mut client, "One?").await;
    let mut other = WsClient::open(&app).await;
    for _ in 0..2 {
        alpha.once(vec![spoken(["Half"]), Act::Silence]);
    }
    alpha.usually(answer("Well."));
    let before = alpha.asked();
    // The late answer is under way, and another conversation's first, when the service goes down.
    alpha
        .until(|counts| counts.asked > before && counts.open > 0)
        .await;
    let conversation = client.conversation.clone();
    let cut = other.ask("Two?").await;
    other.shows(&cut, |shown| shown.text == "Half").await;
    let (second, folder) = (other.conversation.clone(), app.stopped().await);
    alpha.usually(busy());
    let app = TestApp::in_folder(with_outbox(&alpha), folder).await;
    let mut client = WsClient::join(&app, &conversation).await;
    let mut other = WsClient::join(&app, &second).await;
    assert_eq!(client.welcome["history"][0]["followup"], Value::Null);
    assert_eq!(other.welcome["history"][0]["state"], "interrupted");
    alpha.usually(answer("Late."));
    for (client, turn) in [(&mut client, turn), (&mut other, cut)] {
        let late = followup(client).await;
        assert_eq!(
            (&late["turn"], &late["text"]),
            (&json!(turn), &json!("Late."))
        );
    }
    assert_eq!(app.lobby.turns.store.pending_followups().await, Ok(vec![]));
    let asked = alpha.asked();
    // Nobody is asked twice, also not by the start after that.
    let app = TestApp::in_folder(with_outbox(&alpha), app.stopped().await).await;
    assert_eq!(
        history(&app, &conversation).await[0]["followup"]["text"],
        "Late."
    );
    assert_eq!(
        WsClient::open(&app).await.answered("Well?").await.text,
        "Late."
    );
    assert_eq!(alpha.asked(), asked + 1);
}

#[tokio::test]
async fn a_provider_that_fails_again_stops_it_until_it_is_well() {
    let alpha = ScriptedProvider::start(busy()).await;
    let mut settings = with_outbox(&alpha);
    // After a failure nobody is asked for a long time.
    settings.breaker.open_for = Duration::from_secs(3600);
    settings.breaker.open_max = Duration::from_secs(3600);
    let app = TestApp::start(settings).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = WsClient::open(&app).await;
        degraded(&mut client, "What?").await;
        clients.push(client);
    }
    // A start begins at once: one gets its answer, the next fails, though the probes go well.
    alpha.usually(answer("Well."));
    alpha.once(answer("Late."));
    alpha.once(busy());
    let folder = app.stopped().await;
    let before = alpha.asked();
    let mut settings = with_outbox(&alpha);
    settings.breaker.open_for = Duration::from_secs(3600);
    settings.breaker.open_max = Duration::from_secs(3600);
    let app = TestApp::in_folder(settings, folder).await;
    let mut first = WsClient::join(&app, &clients[0].conversation).await;
    if first.welcome["history"][0]["followup"].is_null() {
        followup(&mut first).await;
    }
    alpha.until(|counts| counts.asked >= before + 2).await;
    app.at_rest().await;
    // The provider is soon found well by its probes, but nobody is asked late so soon after a failure.
    app.vitals("alpha", |vitals| {
        vitals.state == failsoft::domain::ProviderState::Closed
    })
    .await;
    assert_eq!(first.answered("And now?").await.text, "Well.");
    assert!(
        alpha.asked() <= before + 4,
        "{} late calls",
        alpha.asked() - before - 1
    );
    let waiting = app
        .lobby
        .turns
        .store
        .pending_followups()
        .await
        .unwrap()
        .len();
    assert!((3..=4).contains(&waiting), "{waiting} wait");
}

#[tokio::test]
async fn switched_off_nobody_waits() {
    let alpha = ScriptedProvider::start(busy()).await;
    let mut settings = with_outbox(&alpha);
    settings.degradation.outbox = false;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    degraded(&mut client, "What?").await;
    assert_eq!(app.lobby.turns.store.pending_followups().await, Ok(vec![]));
}
