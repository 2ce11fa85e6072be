//! Messages, and the frames that refer to one.

use super::*;
use crate::turn::deps::ShutdownPhase;

fn endless() -> Vec<Script> {
    vec![vec![ScriptStep::RepeatForever("ha".to_owned(), ms(500))]]
}

#[actix_rt::test(system = "Paused")]
async fn message_is_accepted_and_answered() {
    let chat = TestChat::with_providers([vec![reply("Hi.")]]);
    let (mut client, _) = chat.connect().await;
    client.send("m1", "Hello?").await;
    let mut kinds = Vec::new();
    let done = loop {
        let frame = client.recv().await;
        kinds.push(frame["type"].as_str().unwrap().to_owned());
        if frame["type"] == "done" {
            break frame;
        }
    };
    kinds.sort();
    assert_eq!(kinds, ["accepted", "attempt", "done", "start", "token"]);
    assert_eq!(
        (&done["text"], &done["source"]),
        (&json!("Hi."), &json!("ai"))
    );
    client.expect_silence().await;
    let (_, welcome) = chat.connect().await;
    let turn = &welcome["history"][0];
    assert_eq!(
        (&turn["text"], &turn["question"], &turn["state"]),
        (&json!("Hi."), &json!("Hello?"), &json!("done"))
    );
}

#[actix_rt::test(system = "Paused")]
async fn rejected_message_gets_an_error_with_its_id() {
    let chat = TestChat::with_providers([vec![]]);
    let (mut client, _) = chat.connect().await;
    for (id, text, code) in [
        ("m", " \n ", "bad_request"),
        ("m", &"x".repeat(101), "message_too_long"),
        ("", "?", "bad_request"),
        (&"m".repeat(65), "?", "bad_request"),
    ] {
        client.send(id, text).await;
        let error = client.recv().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code))
        );
        assert_eq!(
            error["client_msg_id"].as_str().unwrap(),
            id.get(..64).unwrap_or(id)
        );
    }
    client.send_frame(
        json!({"type": "send", "client_msg_id": "m", "text": "?", "options": {"provider": "z"}}),
    )
    .await;
    assert_eq!(client.recv_error_code().await, "bad_request");
    client.send("m", &"é".repeat(100)).await;
    assert_eq!(
        client.recv_type("accepted").await["duplicate"],
        false,
        "the id was not used up"
    );
}

#[actix_rt::test(system = "Paused")]
async fn duplicate_message_maps_to_the_same_turn_during_and_after_it() {
    let chat = TestChat::with_providers([vec![reply_slowly("Hel", s(2), "lo.")]]);
    let (mut client, _) = chat.connect().await;
    client.send("m", "?").await;
    let turn = client.recv_type("accepted").await["turn"].clone();
    let again = async |client: &mut TestClient| {
        client.send("m", "?").await;
        let accepted = client.recv_type("accepted").await;
        assert_eq!(
            (&accepted["turn"], &accepted["duplicate"]),
            (&turn, &json!(true))
        );
    };
    again(&mut client).await;
    client.recv_type("done").await;
    again(&mut client).await;
    advance(s(6)).await;
    again(&mut client).await;
    client.expect_silence().await;
    for text in ["!", "? "] {
        client.send("m", text).await;
        assert_eq!(client.recv_error_code().await, "bad_request");
    }
    // A client without the answer receives it.
    let (mut other, _) = chat.connect().await;
    again(&mut other).await;
    assert_eq!(other.recv().await["type"], "snapshot");
    assert_eq!(other.recv().await["text"], "Hello.");
    assert_eq!(chat.harness.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn two_clients_sending_the_same_message_share_one_turn() {
    let chat = TestChat::with_providers([vec![reply("Hi.")]]);
    chat.harness.store.set_fault(StoreFault::Slow(ms(100)));
    let ((mut one, _), (mut other, _)) = tokio::join!(chat.connect(), chat.connect());
    tokio::join!(one.send("m", "?"), other.send("m", "?"));
    let (first, second) = tokio::join!(one.recv_type("accepted"), other.recv_type("accepted"));
    assert_eq!(first["turn"], second["turn"]);
    assert_ne!(first["duplicate"], second["duplicate"]);
    tokio::join!(one.recv_type("done"), other.recv_type("done"));
    assert_eq!(chat.harness.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn new_conversation_reads_no_history_while_all_its_logs_are_live() {
    let chat = TestChat::with_providers([vec![]]);
    let started = Instant::now();
    chat.harness.store.set_fault(StoreFault::Slow(ms(200)));
    let mut client = chat.client();
    client.send_frame(json!({"type": "hello"})).await;
    assert_eq!(client.recv().await["type"], "welcome");
    assert_eq!(started.elapsed(), ms(0));
    for (n, message, pause, wait) in [
        (0, "m", ms(0), ms(0)),
        (1, "n", ms(0), ms(0)),
        (2, "o", s(6), ms(200 + 200)),
    ] {
        advance(pause).await;
        let sent = Instant::now();
        client.send(message, &format!("{message}?")).await;
        client.recv_type("done").await;
        let call = &chat.harness.calls(0)[n];
        assert_eq!(
            call.started_at - sent,
            wait,
            "{message}: one read for the message, one for the history"
        );
        let texts: Vec<_> = call
            .request
            .messages
            .iter()
            .map(|message| message.text.to_string())
            .collect();
        let questions = ["m?", "Hello.", "n?", "Hello.", "o?"];
        assert_eq!(texts, questions[..=2 * n], "{message}");
    }
    let again = Instant::now();
    client.send("o", "o?").await;
    assert_eq!(client.recv_type("accepted").await["duplicate"], true);
    assert!(again.elapsed() <= ms(200));
}

#[actix_rt::test(system = "Paused")]
async fn send_retry_and_feedback_return_busy_while_a_turn_runs() {
    let chat = TestChat::with_providers([endless()]);
    let (mut client, _) = chat.connect().await;
    client.send("m", "?").await;
    let turn = client.recv_type("accepted").await["turn"].clone();
    client.send("n", "?").await;
    assert_eq!(client.recv_type("error").await["code"], "busy");
    client
        .send_frame(json!({"type": "retry", "turn": turn, "client_msg_id": "r"}))
        .await;
    assert_eq!(client.recv_type("error").await["code"], "busy");
    client
        .send_frame(json!({"type": "feedback", "turn": turn, "value": "up"}))
        .await;
    assert_eq!(client.recv_type("error").await["code"], "busy");
    client
        .send_frame(json!({"type": "stop", "turn": turn}))
        .await;
    assert_eq!(client.recv_type("done").await["finish"], "stopped");
    client.send("n", "?").await;
    assert_eq!(client.recv_type("accepted").await["duplicate"], false);
}

#[actix_rt::test(system = "Paused")]
async fn retry_starts_a_new_turn_that_refers_to_the_old_one() {
    let chat = TestChat::with_providers([vec![fail_with(FaultKind::Timeout), reply("Hi.")]]);
    let (mut client, _) = chat.connect().await;
    client.send("m", "?").await;
    let first = client.recv_type("done").await;
    assert_eq!(
        (&first["text"], &first["degraded"]),
        (&json!(FALLBACK_TEXT), &json!(true))
    );
    let retry =
        |turn: &Value, id: &str| json!({"type": "retry", "turn": turn, "client_msg_id": id});
    client.send_frame(retry(&first["turn"], "m")).await;
    assert_eq!(
        client.recv_error_code().await,
        "bad_request",
        "the id of the original message"
    );
    client.send_frame(retry(&first["turn"], "r")).await;
    let start = client.recv_type("start").await;
    assert_eq!(
        (&start["retry_of"], &start["text"]),
        (&first["turn"], &json!("?"))
    );
    assert_eq!(client.recv_type("done").await["text"], "Hi.");
    client.send_frame(retry(&first["turn"], "r")).await;
    assert_eq!(client.recv_type("accepted").await["duplicate"], true);
    let nobody = json!("000000000001000000000000000a");
    client.send_frame(retry(&nobody, "q")).await;
    assert_eq!(client.recv_error_code().await, "not_found");
    assert_eq!(chat.harness.calls(0).len(), 2);
}

#[actix_rt::test(system = "Paused")]
async fn feedback_is_stored_with_the_turn() {
    let chat = TestChat::with_providers([vec![reply("Hi.")]]);
    let (mut client, _) = chat.connect().await;
    client.send("m", "?").await;
    let turn = client.recv_type("done").await["turn"].clone();
    let thumb = |value: &str| json!({"type": "feedback", "turn": turn, "value": value});
    for (value, wait) in [("up", 0), ("down", 10)] {
        advance(s(wait)).await;
        client.send_frame(thumb(value)).await;
        run_until_idle().await;
        let (_, welcome) = chat.connect().await;
        assert_eq!(welcome["history"][0]["feedback"], value);
    }
    chat.harness.store.set_fault(StoreFault::Failing);
    client.send_frame(thumb("up")).await;
    assert_eq!(client.recv_error_code().await, "internal");
    client
        .send_frame(json!({"type": "stop", "turn": turn}))
        .await;
    assert_eq!(client.recv_error_code().await, "internal");
    chat.harness.store.set_fault(StoreFault::None);
    client
        .send_frame(json!({"type": "stop", "turn": turn}))
        .await;
    client.expect_silence().await;
}

#[actix_rt::test(system = "Paused")]
async fn accepted_says_whether_the_message_is_durable() {
    for (trouble, durable, wait) in [
        (StoreFault::None, true, 0),
        (StoreFault::Slow(ms(249)), true, 498),
        (StoreFault::Slow(ms(400)), false, 650),
        (StoreFault::Failing, false, 0),
    ] {
        let chat = TestChat::with_providers([vec![reply("Hi.")]]);
        let (mut client, _) = chat.connect().await;
        chat.harness.store.set_fault(trouble);
        let started = Instant::now();
        client.send("m", "?").await;
        let accepted = client.recv_type("accepted").await;
        assert_eq!(
            (&accepted["durable"], started.elapsed()),
            (&json!(durable), ms(wait)),
            "{trouble:?}"
        );
        assert_eq!(client.recv_type("done").await["text"], "Hi.");
    }
}

#[actix_rt::test(system = "Paused")]
async fn history_keeps_unstored_turns_in_order() {
    let chat = TestChat::with_providers([vec![reply("Hi.")]]);
    let (mut client, _) = chat.connect().await;
    for (name, trouble) in [
        ("1", StoreFault::Failing),
        ("2", StoreFault::None),
        ("3", StoreFault::Failing),
    ] {
        chat.harness.store.set_fault(trouble);
        client.send(name, name).await;
        client.recv_type("done").await;
    }
    chat.harness.store.set_fault(StoreFault::None);
    let (_, welcome) = chat.connect().await;
    let questions: Vec<_> = welcome["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| &turn["question"])
        .collect();
    assert_eq!(questions, ["1", "2", "3"]);
}

#[actix_rt::test(system = "Paused")]
async fn shutdown_rejects_messages_and_closes_after_the_last_answer() {
    let chat = TestChat::with_providers([vec![reply_slowly("Hel", s(2), "lo.")]]);
    let (mut client, _) = chat.connect().await;
    let (mut other, _) = chat.connect().await;
    client.send("m", "?").await;
    client.recv_type("token").await;
    chat.harness.phase.send_replace(ShutdownPhase::Draining);
    other.send("n", "?").await;
    assert_eq!(other.recv_type("error").await["code"], "shutting_down");
    advance(s(2)).await;
    chat.harness.phase.send_replace(ShutdownPhase::Closing);
    for client in [&mut client, &mut other] {
        assert_eq!(client.recv_type("done").await["text"], "Hello.");
        assert_eq!(client.recv().await, json!({"close": 1001}));
        assert!(client.recv().await.is_null());
    }
}
