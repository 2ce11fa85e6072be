//! Turns: their frames, their messages, and the clients that see them.

use serde_json::{Value, json};

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, partial_answer, send_text,
    split_words, stream_end, string_fields, test_settings, unique_message_id,
};

const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// A script that says `TEXT` and waits for the gate in the middle.
fn held_in_the_middle(gate: &ScriptGate) -> Vec<ScriptStep> {
    let all_words: Vec<_> = split_words(TEXT).collect();
    let rest: String = all_words[4..]
        .iter()
        .map(|text| crate::harness::token_event(text))
        .collect();
    vec![
        partial_answer(all_words[..4].iter().copied()),
        gate.wait_step(),
        send_text(&rest),
        send_text(&stream_end()),
    ]
}

#[tokio::test]
async fn a_turn_is_answered_with_all_its_fields() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    assert_eq!(client.welcome["protocol"], 1);
    assert_eq!(client.welcome["history"], json!([]));
    let turn = client.ask_and_wait("What jumps?").await;
    assert_eq!(
        (turn.question.as_str(), turn.text.as_str()),
        ("What jumps?", TEXT)
    );
    assert_eq!(turn.provider_path(), [("alpha".into(), String::new())]);
    let done = turn.done.as_ref().unwrap();
    for (key, value) in [
        ("source", json!("ai")),
        ("degraded", json!(false)),
        ("provider", json!("alpha")),
        ("model", json!("alpha-model")),
        ("attempts", json!(1)),
        ("finish", json!("stop")),
        ("age_s", Value::Null),
        (
            "usage",
            json!({ "input_tokens": 7, "output_tokens": 5, "estimated": false }),
        ),
        ("cost_usd", Value::Null),
    ] {
        assert_eq!(done[key], value, "{key}");
    }
    assert!(
        done["first_token_ms"].as_u64() <= done["total_ms"].as_u64(),
        "{done}"
    );
    client.assert_no_pending_frame().await;
    app.wait_until_idle().await;
}

#[tokio::test]
async fn the_welcome_frame_has_settings_and_status() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.chat.title = "Help desk".into();
    settings.chat.greeting = "Hello there".into();
    settings.chat.max_message_chars = 77;
    let app = TestApp::start(settings).await;
    let WsClient { welcome, .. } = WsClient::open(&app).await;
    assert_eq!(welcome["limits"], json!({ "max_message_chars": 77 }));
    assert_eq!(
        (
            &welcome["title"],
            &welcome["greeting"],
            &welcome["heartbeat_s"],
            &welcome["demo"]
        ),
        (
            &json!("Help desk"),
            &json!("Hello there"),
            &json!(15),
            &json!(false)
        )
    );
    let status = &welcome["status"];
    assert_eq!(
        (&status["mode"], &status["active"]),
        (&json!("normal"), &json!("alpha"))
    );
    assert_eq!(
        status["providers"],
        json!([{ "name": "alpha", "state": "closed" }])
    );
    assert_eq!(
        (&status["incident"], &status["message"]),
        (&Value::Null, &json!(""))
    );
    assert!(status["since"].is_string());
    assert_eq!(welcome["conversation"].as_str().map(str::len), Some(22));
}

#[tokio::test]
async fn the_history_is_sent_to_reconnected_clients_and_to_the_model() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let first = client.ask("What jumps?").await;
    client.wait_for_done(&first).await;
    let conversation = client.conversation.clone();
    drop(client);

    let mut client = WsClient::join(&app, &conversation).await;
    assert_eq!(client.conversation, conversation);
    let history = client.welcome["history"].as_array().unwrap();
    assert_eq!(history.len(), 1);
    for (key, value) in [
        ("turn", json!(first)),
        ("question", json!("What jumps?")),
        ("text", json!(TEXT)),
        ("state", json!("done")),
        ("source", json!("ai")),
        ("degraded", json!(false)),
        ("provider", json!("alpha")),
        ("model", json!("alpha-model")),
        ("finish", json!("stop")),
        ("attempts", json!(1)),
        ("drafts", json!([])),
        ("age_s", Value::Null),
        ("feedback", Value::Null),
        ("followup", Value::Null),
        ("retry_of", Value::Null),
    ] {
        assert_eq!(history[0][key], value, "{key}");
    }
    client.ask_and_wait("And then?").await;
    let (_, request) = alpha.requests().pop().unwrap();
    let messages = request["messages"].as_array().unwrap();
    assert_eq!(
        string_fields(messages, "role"),
        ["system", "user", "assistant", "user"]
    );
    assert_eq!(
        string_fields(&messages[1..], "content"),
        ["What jumps?", TEXT, "And then?"]
    );
}

#[tokio::test]
async fn a_repeated_message_id_returns_the_same_turn() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(held_in_the_middle(&gate)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let id = unique_message_id();
    let first = client.ask_as(&id, "What jumps?").await;
    assert_eq!(
        (&first["duplicate"], &first["durable"]),
        (&json!(false), &json!(true))
    );
    let turn = first["turn"].as_str().unwrap().to_owned();
    client
        .wait_for_turn(&turn, |shown| !shown.text.is_empty())
        .await;

    // While the turn runs, over the same connection and over another one of the conversation.
    let again = client.ask_as(&id, "What jumps?").await;
    assert_eq!(
        (&again["duplicate"], &again["turn"]),
        (&json!(true), &first["turn"])
    );
    let mut other = WsClient::join(&app, &client.conversation).await;
    let again = other.ask_as(&id, "What jumps?").await;
    assert_eq!(
        (&again["duplicate"], &again["turn"]),
        (&json!(true), &first["turn"])
    );
    // The same id with another text is rejected.
    let refused = client.ask_as(&id, "What else?").await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("error"), &json!("bad_request"))
    );
    gate.let_one_through();
    assert_eq!(client.wait_for_done(&turn).await.text, TEXT);
    assert_eq!(other.wait_for_done(&turn).await.text, TEXT);

    // After the end, a client that has the answer gets no more of it; another one gets all of it.
    let again = client.ask_as(&id, "What jumps?").await;
    assert_eq!(
        (&again["duplicate"], &again["turn"]),
        (&json!(true), &first["turn"])
    );
    client.assert_no_pending_frame().await;
    let mut late = WsClient::join(&app, &client.conversation).await;
    let again = late.ask_as(&id, "What jumps?").await;
    assert_eq!(
        (&again["duplicate"], &again["turn"]),
        (&json!(true), &first["turn"])
    );
    assert_eq!(late.wait_for_done(&turn).await.text, TEXT);
    let refused = late.ask_as(&id, "What else?").await;
    assert_eq!(refused["code"], "bad_request");
    assert_eq!(alpha.question_count(), 1);

    // After a restart only the store knows the message.
    let conversation = client.conversation.clone();
    let folder = app.shut_down().await;
    let app = TestApp::start_in(test_settings(&[("alpha", &alpha)]), folder).await;
    let mut client = WsClient::join(&app, &conversation).await;
    let again = client.ask_as(&id, "What jumps?").await;
    assert_eq!(
        (&again["duplicate"], &again["turn"]),
        (&json!(true), &first["turn"])
    );
    assert_eq!(client.wait_for_done(&turn).await.text, TEXT);
    assert_eq!(
        client.ask_as(&id, "What else?").await["code"],
        "bad_request"
    );
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn send_returns_busy_while_a_turn_runs() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(held_in_the_middle(&gate)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What jumps?").await;
    let id = unique_message_id();
    let mut other = WsClient::join(&app, &client.conversation).await;
    for busy in [
        client.ask_as(&id, "And now?").await,
        other.ask_as(&id, "And now?").await,
    ] {
        assert_eq!(
            (&busy["type"], &busy["code"]),
            (&json!("error"), &json!("busy"))
        );
        assert!(busy["retry_after_s"].as_u64() > Some(0), "{busy}");
    }
    // Another conversation is not blocked.
    let mut stranger = WsClient::open(&app).await;
    let theirs = stranger.ask("What jumps?").await;
    gate.let_one_through();
    gate.let_one_through();
    stranger.wait_for_done(&theirs).await;
    client.wait_for_done(&turn).await;
    // The rejected message can be sent again with the same id, as a new turn.
    gate.let_one_through();
    let accepted = client.ask_as(&id, "And now?").await;
    assert_eq!(
        (&accepted["type"], &accepted["duplicate"]),
        (&json!("accepted"), &json!(false))
    );
    client
        .wait_for_done(accepted["turn"].as_str().unwrap())
        .await;
    assert_eq!(alpha.question_count(), 3);
}

#[tokio::test]
async fn two_clients_of_one_conversation_see_the_same_frames() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(held_in_the_middle(&gate)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut first = WsClient::open(&app).await;
    let mut second = WsClient::join(&app, &first.conversation).await;
    first
        .send_frame(&json!({ "type": "send", "client_msg_id": "x", "text": "What jumps?" }))
        .await;
    gate.let_one_through();
    let mut seen = Vec::new();
    for client in [&mut first, &mut second] {
        let mut frames = Vec::new();
        while frames
            .last()
            .is_none_or(|last: &Value| last["type"] != "done")
        {
            let frame = client.next_frame().await;
            if frame.get("seq").is_some() {
                frames.push(frame);
            }
        }
        seen.push(frames);
    }
    assert_eq!(seen[0], seen[1]);
    // Both clients see a turn whichever of them asks.
    gate.let_one_through();
    let turn = second.ask("And then?").await;
    assert_eq!(first.wait_for_done(&turn).await.question, "And then?");
    assert_eq!(second.wait_for_done(&turn).await.text, TEXT);
}

#[tokio::test]
async fn retry_starts_a_new_turn_for_the_same_message() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let first = client.ask("What jumps?").await;
    client.wait_for_done(&first).await;
    alpha.script_next(crate::harness::full_answer("The fox."));
    let id = unique_message_id();
    client
        .send_frame(&json!({ "type": "retry", "turn": first, "client_msg_id": id }))
        .await;
    let accepted = client
        .wait_for_frame(|frame| frame["type"] == "accepted")
        .await;
    let second = accepted["turn"].as_str().unwrap().to_owned();
    assert_ne!(second, first);
    let start = client
        .wait_for_frame(|frame| frame["type"] == "start")
        .await;
    assert_eq!(
        (&start["retry_of"], &start["text"]),
        (&json!(first), &json!("What jumps?"))
    );
    assert_eq!(client.wait_for_done(&second).await.text, "The fox.");
    // The prompt does not contain the rejected answer.
    let (_, request) = alpha.requests().pop().unwrap();
    assert_eq!(
        string_fields(request["messages"].as_array().unwrap(), "role"),
        ["system", "user"]
    );
    // The same retry again is the same turn.
    client
        .send_frame(&json!({ "type": "retry", "turn": first, "client_msg_id": id }))
        .await;
    let again = client
        .wait_for_frame(|frame| frame["type"] == "accepted")
        .await;
    assert_eq!(
        (&again["turn"], &again["duplicate"]),
        (&json!(second), &json!(true))
    );
    assert_eq!(alpha.question_count(), 2);
    let client = WsClient::join(&app, &client.conversation).await;
    let history = client.welcome["history"].as_array().unwrap();
    assert_eq!(string_fields(history, "retry_of"), ["", &first]);
}

/// Two tabs with a shared outbox send the same queued message at the same moment.
#[tokio::test]
async fn one_message_from_two_clients_at_once_is_one_turn() {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut first = WsClient::open(&app).await;
    let mut second = WsClient::join(&app, &first.conversation).await;
    for _ in 0..50 {
        let id = unique_message_id();
        let send = json!({ "type": "send", "client_msg_id": id, "text": "What jumps?" });
        tokio::join!(first.send_frame(&send), second.send_frame(&send));
        for client in [&mut first, &mut second] {
            let ended = client.wait_for_frame(|frame| frame["type"] == "done").await;
            assert_eq!(
                (&ended["finish"], &ended["text"]),
                (&json!("stop"), &json!(TEXT))
            );
        }
    }
    assert_eq!(alpha.question_count(), 50);
}
