//! Several clients of one conversation: late ones, resuming ones, slow ones.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn every_client_receives_every_frame() {
    let chat = TestChat::with_providers([
        vec![break_after("Hel", FaultKind::Stalled)],
        vec![reply("Good day.")],
    ]);
    let (mut sender, _) = chat.connect().await;
    let (mut watcher, _) = chat.connect().await;
    sender.send("m", "?").await;
    let frames = async |client: &mut TestClient| {
        let mut frames = Vec::new();
        loop {
            let frame = client.recv().await;
            let done = frame["type"] == "done";
            if frame["type"] != "accepted" {
                frames.push(frame);
            }
            if done {
                return frames;
            }
        }
    };
    let (first, other) = tokio::join!(frames(&mut sender), frames(&mut watcher));
    assert_eq!(first, other);
    let kinds: Vec<_> = first
        .iter()
        .map(|frame| frame["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "start", "attempt", "token", "attempt", "restart", "token", "done"
        ]
    );
}

#[actix_rt::test(system = "Paused")]
async fn client_joining_mid_turn_gets_a_snapshot_after_the_welcome() {
    let chat = TestChat::with_providers([vec![reply_slowly("Hel", s(4), "lo.")]]);
    let (client, _) = chat.connect().await;
    client.send("m", "?").await;
    advance(s(1)).await;
    let (mut late, welcome) = chat.connect().await;
    let running = &welcome["history"][0];
    assert_eq!(
        (&running["state"], &running["text"]),
        (&json!("running"), &json!("Hel"))
    );
    let snapshot = late.recv().await;
    assert_eq!(
        (&snapshot["type"], &snapshot["text"], &snapshot["seq"]),
        (&json!("snapshot"), &json!("Hel"), &json!(3))
    );
    assert_eq!(late.recv().await["text"], "lo.");
    assert_eq!(late.recv().await["type"], "done");
    late.expect_silence().await;
}

#[actix_rt::test(system = "Paused")]
async fn resumed_session_continues_after_the_given_frame() {
    let chat = TestChat::with_providers([vec![reply_slowly("Hel", s(4), "lo.")]]);
    let (mut client, _) = chat.connect().await;
    client.send("m", "?").await;
    let turn = client.recv_type("token").await["turn"].clone();
    drop(client);
    let (mut back, _) = chat.connect_resuming(json!({"turn": turn, "seq": 2})).await;
    let token = back.recv().await;
    assert_eq!(
        (&token["type"], &token["seq"], &token["text"]),
        (&json!("token"), &json!(3), &json!("Hel"))
    );
    assert_eq!(back.recv().await["text"], "lo.");
    assert_eq!(back.recv().await["type"], "done");
}

#[actix_rt::test(system = "Paused")]
async fn resume_replays_a_turn_without_log_from_the_store() {
    let chat = TestChat::with_providers([vec![reply("Hi.")]]);
    let (mut client, _) = chat.connect().await;
    client.send("m", "?").await;
    let turn = client.recv_type("done").await["turn"].clone();
    advance(s(6)).await;
    for seq in [0, 3, u64::MAX] {
        let (mut back, _) = chat
            .connect_resuming(json!({"turn": turn, "seq": seq}))
            .await;
        let snapshot = back.recv().await;
        let done = back.recv().await;
        assert_eq!(
            (&snapshot["type"], &snapshot["text"]),
            (&json!("snapshot"), &json!("Hi."))
        );
        assert_eq!(
            (&done["type"], &done["text"]),
            (&json!("done"), &json!("Hi."))
        );
        back.expect_silence().await;
    }
    let (mut back, _) = chat
        .connect_resuming(json!({"turn": "000000000001000000000000000a", "seq": 1}))
        .await;
    assert_eq!(back.recv_error_code().await, "not_found");
    chat.harness.store.set_fault(StoreFault::Failing);
    let (mut back, _) = chat.connect_resuming(json!({"turn": turn, "seq": 1})).await;
    assert_eq!(back.recv_error_code().await, "internal");
    back.send("n", "?").await;
    assert_eq!(
        back.recv_type("done").await["text"],
        "Hi.",
        "the session continues"
    );
}

#[actix_rt::test(system = "Paused")]
async fn turn_left_running_by_another_process_is_interrupted() {
    use crate::domain::{Timestamp, TurnId, TurnRecord};
    use crate::store::ConversationStore as _;
    let chat = TestChat::with_providers([vec![reply("Hi.")]]);
    let turn = TurnId::next_after(None, 5, 5);
    let mut record = TurnRecord::new(
        turn,
        "m".parse().unwrap(),
        Timestamp(5),
        "?".to_owned(),
        None,
    );
    record.text = "Hel".to_owned();
    chat.harness
        .store
        .write_turn(conversation_id(1), record)
        .await
        .unwrap();
    let (mut client, welcome) = chat.connect_resuming(json!({"turn": turn, "seq": 2})).await;
    assert_eq!(welcome["history"][0]["state"], "interrupted");
    assert_eq!(client.recv().await["type"], "snapshot");
    let done = client.recv().await;
    assert_eq!(
        (&done["finish"], &done["text"]),
        (&json!("interrupted"), &json!("Hel"))
    );
    client
        .send_frame(json!({"type": "retry", "turn": turn, "client_msg_id": "r"}))
        .await;
    assert_eq!(client.recv_type("done").await["text"], "Hi.");
}

#[actix_rt::test(system = "Paused")]
async fn slow_client_gets_the_history_when_it_reads_again() {
    let chat = TestChat::with_providers([vec![
        vec![ScriptStep::RepeatForever("x".to_owned(), ms(20))],
        reply("Two."),
        reply("Three."),
    ]]);
    let (mut slow, _) = chat.connect().await;
    let (mut client, _) = chat.connect().await;
    for name in ["1", "2", "3"] {
        client.send(name, name).await;
        let turn = client.recv_type("token").await["turn"].clone();
        advance(s(20)).await;
        client
            .send_frame(json!({"type": "stop", "turn": turn}))
            .await;
        client.recv_type("done").await;
        advance(s(6)).await;
    }
    // First the buffered frames, then the rest of the first turn, then the history it missed.
    let first = slow.recv_type("done").await;
    assert_eq!(first["finish"], "stopped");
    assert!(first["text"].as_str().unwrap().len() >= 1_000);
    let history = slow.recv_type("history").await;
    let texts: Vec<_> = history["turns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| turn["text"].clone())
        .collect();
    assert_eq!(texts[1..], ["Two.", "Three."]);
    slow.send("4", "4").await;
    assert_eq!(slow.recv_type("done").await["text"], "Three.");
    assert_eq!(client.recv_type("done").await["text"], "Three.");
}
