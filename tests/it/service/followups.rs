//! After an outage, degraded turns get a follow-up in the same conversation, on every tab.

use std::time::Duration;

use failsoft::config::Settings;
use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer, partial_answer,
    string_fields, test_settings, unique_message_id,
};

fn busy() -> Vec<ScriptStep> {
    vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )]
}

/// One provider whose breaker opens at the first failure, and a budget that allows a follow-up for
/// every turn.
fn with_followups(alpha: &ScriptedProvider) -> Settings {
    let mut settings = test_settings(&[("alpha", alpha)]);
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

async fn ask_degraded(client: &mut WsClient, question: &str) -> String {
    let turn = client.ask(question).await;
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (
            shown.text.as_str(),
            &shown.done.as_ref().unwrap()["degraded"]
        ),
        ("Later, please.", &json!(true))
    );
    turn
}

async fn next_followup(client: &mut WsClient) -> Value {
    client
        .wait_for_frame(|frame| frame["type"] == "followup")
        .await
}

async fn history(app: &TestApp, conversation: &str) -> Vec<Value> {
    WsClient::join(app, conversation).await.welcome["history"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn followups_reach_every_tab_in_order_and_are_stored() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_followups(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let mut turns = Vec::new();
    for question in ["One?", "Two?", "Three?"] {
        turns.push(ask_degraded(&mut client, question).await);
    }
    let mut tab = WsClient::join(&app, &client.conversation).await;
    let before = alpha.question_count();
    for text in ["First.", "Second."] {
        alpha.script_next(full_answer(text));
    }
    alpha.script_default(full_answer("Third."));
    for client in [&mut client, &mut tab] {
        for (turn, text) in turns.iter().zip(["First.", "Second.", "Third."]) {
            let late = next_followup(client).await;
            assert_eq!((&late["turn"], &late["text"]), (&json!(turn), &json!(text)));
            assert_eq!(
                (&late["provider"], &late["model"]),
                (&json!("alpha"), &json!("alpha-model"))
            );
            let fields = late.as_object().unwrap().keys().collect::<Vec<_>>();
            assert_eq!(fields, ["at", "model", "provider", "text", "turn", "type"]);
        }
    }
    assert_eq!(alpha.question_count(), before + 3);
    let turns_now = history(&app, &client.conversation).await;
    assert_eq!(string_fields(&turns_now, "text"), ["Later, please."; 3]);
    assert_eq!(
        string_fields(turns_now.iter().map(|turn| &turn["followup"]), "text"),
        ["First.", "Second.", "Third."]
    );
    assert!(
        turns_now
            .iter()
            .all(|turn| turn["degraded"] == true && turn["source"] == "fallback")
    );
    // The next turn's prompt contains the follow-ups.
    assert_eq!(client.ask_and_wait("Four?").await.text, "Third.");
    let (_, request) = alpha.requests().pop().unwrap();
    let contents = string_fields(&request["messages"].as_array().unwrap()[1..], "content");
    assert_eq!(
        contents,
        [
            "One?", "First.", "Two?", "Second.", "Three?", "Third.", "Four?"
        ]
    );
    // Follow-ups are not counted as turns.
    let answers = app.status().await["answers"].clone();
    assert_eq!(
        (&answers["total"], &answers["ai"], &answers["degraded"]),
        (&json!(4), &json!(1), &json!(3))
    );
    app.wait_until_idle().await;
}

#[tokio::test]
async fn feedback_and_followup_do_not_overwrite_each_other() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_followups(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let turn = ask_degraded(&mut client, "One?").await;
    alpha.script_default(full_answer("Late."));
    client
        .send_frame(&json!({ "type": "feedback", "turn": turn, "value": "down" }))
        .await;
    next_followup(&mut client).await;
    let history_now = history(&app, &client.conversation).await;
    assert_eq!(
        (
            &history_now[0]["feedback"],
            &history_now[0]["followup"]["text"]
        ),
        (&json!("down"), &json!("Late."))
    );
    client
        .send_frame(&json!({ "type": "feedback", "turn": turn, "value": "up" }))
        .await;
    client.assert_no_pending_frame().await;
    let history_now = history(&app, &client.conversation).await;
    assert_eq!(
        (
            &history_now[0]["feedback"],
            &history_now[0]["followup"]["text"]
        ),
        (&json!("up"), &json!("Late."))
    );
}

#[tokio::test]
async fn retried_turns_and_api_turns_get_no_followup() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_followups(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let called = app
        .request("POST", "/api/chat")
        .json(&json!({ "message": "Called?" }))
        .send()
        .await;
    assert_eq!(called.json()["degraded"], true);
    let stateless =
        json!({ "model": "auto", "messages": [{ "role": "user", "content": "Stateless?" }] });
    assert_eq!(
        app.request("POST", "/v1/chat/completions")
            .json(&stateless)
            .send()
            .await
            .status,
        200
    );
    let first = ask_degraded(&mut client, "One?").await;
    client
        .send_frame(
            &json!({ "type": "retry", "turn": first, "client_msg_id": unique_message_id() }),
        )
        .await;
    let again = client.wait_for_frame(|frame| frame["type"] == "done").await["turn"].clone();
    let last = ask_degraded(&mut client, "Two?").await;
    alpha.script_default(full_answer("Late."));
    assert_eq!(next_followup(&mut client).await["turn"], again);
    assert_eq!(next_followup(&mut client).await["turn"], json!(last));
    // Follow-ups keep the order of the questions, so earlier ones would have come first.
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
    assert_eq!(
        app.chat_service.turns.store.pending_followups().await,
        Ok(vec![])
    );
    assert_eq!(
        history(&app, &client.conversation).await[0]["followup"],
        Value::Null
    );
}

#[tokio::test]
async fn pending_followups_survive_a_restart() {
    let alpha = ScriptedProvider::start(busy()).await;
    let app = TestApp::start(with_followups(&alpha)).await;
    let mut client = WsClient::open(&app).await;
    let turn = ask_degraded(&mut client, "One?").await;
    let mut other = WsClient::open(&app).await;
    for _ in 0..2 {
        alpha.script_next(vec![partial_answer(["Half"]), ScriptStep::Hang]);
    }
    alpha.script_default(full_answer("Well."));
    let before = alpha.question_count();
    // The service stops while a follow-up and another conversation's first turn are running.
    alpha
        .wait_for(|counts| counts.questions > before && counts.in_flight > 0)
        .await;
    let conversation = client.conversation.clone();
    let interrupted = other.ask("Two?").await;
    other
        .wait_for_turn(&interrupted, |shown| shown.text == "Half")
        .await;
    let second = other.conversation.clone();
    let folder = app.shut_down().await;
    alpha.script_default(busy());
    let app = TestApp::start_in(with_followups(&alpha), folder).await;
    let mut client = WsClient::join(&app, &conversation).await;
    let mut other = WsClient::join(&app, &second).await;
    assert_eq!(client.welcome["history"][0]["followup"], Value::Null);
    assert_eq!(other.welcome["history"][0]["state"], "interrupted");
    alpha.script_default(full_answer("Late."));
    for (client, turn) in [(&mut client, turn), (&mut other, interrupted)] {
        let late = next_followup(client).await;
        assert_eq!(
            (&late["turn"], &late["text"]),
            (&json!(turn), &json!("Late."))
        );
    }
    assert_eq!(
        app.chat_service.turns.store.pending_followups().await,
        Ok(vec![])
    );
    let asked = alpha.question_count();
    // A second restart does not ask again.
    let app = TestApp::start_in(with_followups(&alpha), app.shut_down().await).await;
    assert_eq!(
        history(&app, &conversation).await[0]["followup"]["text"],
        "Late."
    );
    assert_eq!(
        WsClient::open(&app).await.ask_and_wait("Well?").await.text,
        "Late."
    );
    assert_eq!(alpha.question_count(), asked + 1);
}

#[tokio::test]
async fn a_failing_followup_pauses_the_others() {
    let alpha = ScriptedProvider::start(busy()).await;
    let mut settings = with_followups(&alpha);
    // After a failure the breaker stays open for a long time.
    settings.breaker.open_for = Duration::from_secs(3600);
    settings.breaker.open_max = Duration::from_secs(3600);
    let app = TestApp::start(settings).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = WsClient::open(&app).await;
        ask_degraded(&mut client, "What?").await;
        clients.push(client);
    }
    // Follow-ups start at once: one succeeds, the next fails, and then the probes succeed.
    alpha.script_default(full_answer("Well."));
    alpha.script_next(full_answer("Late."));
    alpha.script_next(busy());
    let folder = app.shut_down().await;
    let before = alpha.question_count();
    let mut settings = with_followups(&alpha);
    settings.breaker.open_for = Duration::from_secs(3600);
    settings.breaker.open_max = Duration::from_secs(3600);
    let app = TestApp::start_in(settings, folder).await;
    let mut first = WsClient::join(&app, &clients[0].conversation).await;
    if first.welcome["history"][0]["followup"].is_null() {
        next_followup(&mut first).await;
    }
    alpha
        .wait_for(|counts| counts.questions >= before + 2)
        .await;
    app.wait_until_idle().await;
    // The probes soon close the breaker, but follow-ups pause after a failure.
    app.wait_for_status("alpha", |provider_status| {
        provider_status.state == failsoft::domain::ProviderState::Closed
    })
    .await;
    assert_eq!(first.ask_and_wait("And now?").await.text, "Well.");
    assert!(
        alpha.question_count() <= before + 4,
        "{} follow-up calls",
        alpha.question_count() - before - 1
    );
    let waiting = app
        .chat_service
        .turns
        .store
        .pending_followups()
        .await
        .unwrap()
        .len();
    assert!((3..=4).contains(&waiting), "{waiting} follow-ups wait");
}

#[tokio::test]
async fn no_followups_are_queued_when_disabled() {
    let alpha = ScriptedProvider::start(busy()).await;
    let mut settings = with_followups(&alpha);
    settings.degradation.outbox = false;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    ask_degraded(&mut client, "What?").await;
    assert_eq!(
        app.chat_service.turns.store.pending_followups().await,
        Ok(vec![])
    );
}
