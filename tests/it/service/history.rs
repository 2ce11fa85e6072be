//! Stored turns of a conversation: pages, feedback, and the part that is sent to the model.

use failsoft::domain::{
    AnswerSource, ConversationId, FinishReason, Timestamp, TurnId, TurnRecord, TurnState,
};
use serde_json::{Value, json};

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, partial_answer, string_fields,
    test_settings,
};

/// A stored turn from long ago.
fn old_turn(number: u64) -> TurnRecord {
    let id = TurnId::next_after(None, number, 7);
    let question = format!("question {number}");
    let asked = TurnRecord::new(
        id,
        format!("old{number}").parse().unwrap(),
        Timestamp(number),
        question,
        None,
    );
    TurnRecord {
        text: format!("answer {number}"),
        state: TurnState::Done,
        source: Some(AnswerSource::Ai),
        finish: Some(FinishReason::Stop),
        ..asked
    }
}

fn questions(turns: &Value) -> Vec<String> {
    string_fields(turns.as_array().unwrap(), "question")
}

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| format!("question {number}")).collect()
}

#[tokio::test]
async fn the_history_is_sent_in_pages_of_a_hundred() {
    let alpha = ScriptedProvider::answering("Now.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let conversation = ConversationId::from_random([7; 16]);
    for number in 1..=250 {
        app.chat_service
            .turns
            .store
            .write_turn(conversation, old_turn(number))
            .await
            .unwrap();
    }
    let mut client = WsClient::join(&app, &conversation.to_string()).await;
    let mut page = client.welcome["history"].clone();
    assert_eq!(questions(&page), numbered(151..=250));
    for numbers in [51..=150, 1..=50] {
        client
            .send_frame(&json!({ "type": "history", "before": page[0]["turn"] }))
            .await;
        let history = client.next_frame().await;
        assert_eq!(history["type"], "history");
        page = history["turns"].clone();
        assert_eq!(questions(&page), numbered(numbers));
    }
    client
        .send_frame(&json!({ "type": "history", "before": page[0]["turn"] }))
        .await;
    assert_eq!(client.next_frame().await["turns"], json!([]));
    // The prompt contains the last twenty turns only.
    client.ask_and_wait("And now?").await;
    let (_, request) = alpha.requests().pop().unwrap();
    let messages = request["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1 + 2 * 20 + 1);
    assert_eq!(messages[1]["content"], "question 231");
}

#[tokio::test]
async fn recent_turns_are_paged_too() {
    let alpha = ScriptedProvider::answering("Now.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.limits.messages_per_minute = 1000;
    settings.limits.messages_per_minute_per_ip = 1000;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    for number in 1..=104 {
        client.ask_and_wait(&format!("question {number}")).await;
    }
    let mut client = WsClient::join(&app, &client.conversation).await;
    let newest = client.welcome["history"].clone();
    assert_eq!(questions(&newest), numbered(5..=104));
    client
        .send_frame(&json!({ "type": "history", "before": newest[0]["turn"] }))
        .await;
    assert_eq!(
        questions(&client.next_frame().await["turns"]),
        numbered(1..=4)
    );
}

#[tokio::test]
async fn the_prompt_is_cut_to_the_models_context() {
    let alpha = ScriptedProvider::answering("Now.").await;
    let beta = ScriptedProvider::answering("Now, too.").await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.chat.system_prompt = "Be kind.".into();
    settings.chat.max_tokens = 1024;
    settings.providers[0].context_tokens = Some(200);
    let app = TestApp::start(settings).await;
    let conversation = ConversationId::from_random([7; 16]);
    for number in 1..=15 {
        app.chat_service
            .turns
            .store
            .write_turn(conversation, old_turn(number))
            .await
            .unwrap();
    }
    let mut client = WsClient::join(&app, &conversation.to_string()).await;
    let last_request = |provider: &ScriptedProvider| provider.requests().pop().unwrap().1;
    client.ask_and_wait("And now?").await;
    // Half of the 200 tokens is reserved for the answer. The system prompt takes 6 of the rest, the
    // question 6, and each turn 14.
    let request = last_request(&alpha);
    let texts = string_fields(request["messages"].as_array().unwrap(), "content");
    assert_eq!(texts.first().unwrap(), "Be kind.");
    assert_eq!(texts.len(), 1 + 2 * 6 + 1);
    assert_eq!(texts.last().unwrap(), "And now?");
    assert_eq!(
        (&*texts[1], &request["max_tokens"]),
        ("question 10", &json!(104))
    );
    // A question too long for alpha goes to beta, with the whole history.
    client.ask_and_wait(&"word ".repeat(200)).await;
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    assert_eq!(
        last_request(&beta)["messages"].as_array().unwrap().len(),
        1 + 2 * 16 + 1
    );
    assert_eq!(app.provider_status("alpha").await["state"], "closed");
}

#[tokio::test]
async fn feedback_is_stored_with_its_turn() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::answering("Well?").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client.wait_for_done(&turn).await;
    let rate = async |app: &TestApp, client: &mut WsClient, value: &str| {
        client
            .send_frame(&json!({ "type": "feedback", "turn": turn, "value": value }))
            .await;
        client.assert_no_pending_frame().await;
        WsClient::join(app, &client.conversation).await.welcome["history"][0]["feedback"].clone()
    };
    assert_eq!(rate(&app, &mut client, "up").await, "up");
    assert_eq!(rate(&app, &mut client, "down").await, "down");
    let conversation = client.conversation.clone();
    let folder = app.shut_down().await;
    let app = TestApp::start_in(test_settings(&[("alpha", &alpha)]), folder).await;
    let mut client = WsClient::join(&app, &conversation).await;
    assert_eq!(client.welcome["history"][0]["feedback"], "down");
    assert_eq!(rate(&app, &mut client, "up").await, "up");
    // Feedback is rejected while the turn runs.
    alpha.script_default(vec![
        partial_answer(["Not yet"]),
        gate.wait_step(),
        ScriptStep::Hang,
    ]);
    let running = client.ask("And?").await;
    client
        .wait_for_turn(&running, |shown| shown.text == "Not yet")
        .await;
    client
        .send_frame(&json!({ "type": "feedback", "turn": running, "value": "up" }))
        .await;
    assert_eq!(client.next_frame().await["code"], "busy");
}

#[tokio::test]
async fn degraded_turns_are_stored_but_not_sent_to_the_model() {
    let alpha = ScriptedProvider::answering("Well.").await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    client.ask_and_wait("One?").await;
    // Degraded.
    alpha.stop_listening().await;
    assert_eq!(client.ask_and_wait("Xyzzy?").await.text, "Later, please.");
    alpha.listen();
    // Stopped.
    alpha.script_next(vec![partial_answer(["Half"]), ScriptStep::Hang]);
    let stopped = client.ask("Three?").await;
    client
        .wait_for_turn(&stopped, |shown| shown.text == "Half")
        .await;
    client
        .send_frame(&json!({ "type": "stop", "turn": stopped }))
        .await;
    client.wait_for_done(&stopped).await;
    client.ask_and_wait("Four?").await;
    let (_, request) = alpha.requests().pop().unwrap();
    let contents = string_fields(&request["messages"].as_array().unwrap()[1..], "content");
    assert!(
        contents.starts_with(&["One?".into(), "Well.".into()])
            && contents.ends_with(&["Four?".into()]),
        "{contents:?}"
    );
    assert!(
        !contents.contains(&"Xyzzy?".into()) && !contents.contains(&"Later, please.".into()),
        "{contents:?}"
    );
    let client = WsClient::join(&app, &client.conversation).await;
    let history = client.welcome["history"].as_array().unwrap();
    assert_eq!(
        string_fields(history, "question"),
        ["One?", "Xyzzy?", "Three?", "Four?"]
    );
    assert_eq!(
        string_fields(history, "source"),
        ["ai", "fallback", "ai", "ai"]
    );
    assert_eq!(
        string_fields(history, "finish"),
        ["stop", "stop", "stopped", "stop"]
    );
}
