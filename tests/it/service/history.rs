//! What is kept of a conversation, and its pages.

use failsoft::domain::{
    AnswerSource, ConversationId, FinishReason, Timestamp, TurnId, TurnRecord, TurnState,
};
use serde_json::{Value, json};

use crate::harness::{Act, Gate, ScriptedProvider, TestApp, WsClient, settings, spoken, texts};

/// An ended turn of long ago.
fn old(number: u64) -> TurnRecord {
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
    texts(turns.as_array().unwrap(), "question")
}

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| format!("question {number}")).collect()
}

#[tokio::test]
async fn the_history_comes_in_pages_of_a_hundred() {
    let alpha = ScriptedProvider::answering("Now.").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let conversation = ConversationId::from_random([7; 16]);
    for number in 1..=250 {
        app.lobby
            .turns
            .store
            .write_turn(conversation, old(number))
            .await
            .unwrap();
    }
    let mut client = WsClient::join(&app, &conversation.to_string()).await;
    let mut newest = client.welcome["history"].clone();
    assert_eq!(questions(&newest), numbered(151..=250));
    for page in [51..=150, 1..=50] {
        client
            .say(&json!({ "type": "history", "before": newest[0]["turn"] }))
            .await;
        let history = client.next().await;
        assert_eq!(history["type"], "history");
        newest = history["turns"].clone();
        assert_eq!(questions(&newest), numbered(page));
    }
    client
        .say(&json!({ "type": "history", "before": newest[0]["turn"] }))
        .await;
    assert_eq!(client.next().await["turns"], json!([]));
    // The model sees the last twenty, no more.
    client.answered("And now?").await;
    let (_, asked) = alpha.requests().pop().unwrap();
    let said = asked["messages"].as_array().unwrap();
    assert_eq!(said.len(), 1 + 2 * 20 + 1);
    assert_eq!(said[1]["content"], "question 231");
}

#[tokio::test]
async fn turns_that_just_ended_come_in_pages_too() {
    let alpha = ScriptedProvider::answering("Now.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.limits.messages_per_minute = 1000;
    settings.limits.messages_per_minute_per_ip = 1000;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    for number in 1..=104 {
        client.answered(&format!("question {number}")).await;
    }
    let mut client = WsClient::join(&app, &client.conversation).await;
    let newest = client.welcome["history"].clone();
    assert_eq!(questions(&newest), numbered(5..=104));
    client
        .say(&json!({ "type": "history", "before": newest[0]["turn"] }))
        .await;
    assert_eq!(questions(&client.next().await["turns"]), numbered(1..=4));
}

#[tokio::test]
async fn the_model_sees_as_much_as_it_has_room_for() {
    let alpha = ScriptedProvider::answering("Now.").await;
    let beta = ScriptedProvider::answering("Now, too.").await;
    let mut settings = settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.chat.system_prompt = "Be kind.".into();
    settings.chat.max_tokens = 1024;
    settings.providers[0].context_tokens = Some(200);
    let app = TestApp::start(settings).await;
    let conversation = ConversationId::from_random([7; 16]);
    for number in 1..=15 {
        app.lobby
            .turns
            .store
            .write_turn(conversation, old(number))
            .await
            .unwrap();
    }
    let mut client = WsClient::join(&app, &conversation.to_string()).await;
    let asked = |provider: &ScriptedProvider| provider.requests().pop().unwrap().1;
    client.answered("And now?").await;
    // Half the room is the answer's; of the rest 6 tokens are the system prompt's, 6 the question's, 14 each turn's.
    let said = asked(&alpha);
    let texts = texts(said["messages"].as_array().unwrap(), "content");
    assert_eq!(texts.first().unwrap(), "Be kind.");
    assert_eq!(texts.len(), 1 + 2 * 6 + 1);
    assert_eq!(texts.last().unwrap(), "And now?");
    assert_eq!(
        (&*texts[1], &said["max_tokens"]),
        ("question 10", &json!(104))
    );
    // A question that has no room there at all goes to who has more, with all that went before.
    client.answered(&"word ".repeat(200)).await;
    assert_eq!((alpha.asked(), beta.asked()), (1, 1));
    assert_eq!(
        asked(&beta)["messages"].as_array().unwrap().len(),
        1 + 2 * 16 + 1
    );
    assert_eq!(app.provider("alpha").await["state"], "closed");
}

#[tokio::test]
async fn a_thumb_is_kept_with_its_turn() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::answering("Well?").await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client.done(&turn).await;
    let told = async |app: &TestApp, client: &mut WsClient, value: &str| {
        client
            .say(&json!({ "type": "feedback", "turn": turn, "value": value }))
            .await;
        client.quiet().await;
        WsClient::join(app, &client.conversation).await.welcome["history"][0]["feedback"].clone()
    };
    assert_eq!(told(&app, &mut client, "up").await, "up");
    assert_eq!(told(&app, &mut client, "down").await, "down");
    let conversation = client.conversation.clone();
    let folder = app.stopped().await;
    let app = TestApp::in_folder(settings(&[("alpha", &alpha)]), folder).await;
    let mut client = WsClient::join(&app, &conversation).await;
    assert_eq!(client.welcome["history"][0]["feedback"], "down");
    assert_eq!(told(&app, &mut client, "up").await, "up");
    // Not before its answer has ended.
    alpha.usually(vec![spoken(["Not yet"]), gate.hold(), Act::Silence]);
    let running = client.ask("And?").await;
    client
        .shows(&running, |shown| shown.text == "Not yet")
        .await;
    client
        .say(&json!({ "type": "feedback", "turn": running, "value": "up" }))
        .await;
    assert_eq!(client.next().await["code"], "busy");
}

#[tokio::test]
async fn what_was_not_answered_well_is_kept_and_not_shown_to_the_model() {
    let alpha = ScriptedProvider::answering("Well.").await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    client.answered("One?").await;
    // Degraded.
    alpha.refuse().await;
    assert_eq!(client.answered("Xyzzy?").await.text, "Later, please.");
    alpha.listen();
    // Stopped.
    alpha.once(vec![spoken(["Half"]), Act::Silence]);
    let stopped = client.ask("Three?").await;
    client.shows(&stopped, |shown| shown.text == "Half").await;
    client
        .say(&json!({ "type": "stop", "turn": stopped }))
        .await;
    client.done(&stopped).await;
    client.answered("Four?").await;
    let (_, asked) = alpha.requests().pop().unwrap();
    let said = texts(&asked["messages"].as_array().unwrap()[1..], "content");
    assert!(
        said.starts_with(&["One?".into(), "Well.".into()]) && said.ends_with(&["Four?".into()]),
        "{said:?}"
    );
    assert!(
        !said.contains(&"Xyzzy?".into()) && !said.contains(&"Later, please.".into()),
        "{said:?}"
    );
    let client = WsClient::join(&app, &client.conversation).await;
    let history = client.welcome["history"].as_array().unwrap();
    assert_eq!(
        texts(history, "question"),
        ["One?", "Xyzzy?", "Three?", "Four?"]
    );
    assert_eq!(texts(history, "source"), ["ai", "fallback", "ai", "ai"]);
    assert_eq!(
        texts(history, "finish"),
        ["stop", "stop", "stopped", "stop"]
    );
}
