//! The handshake.

use super::*;
use crate::domain::Timestamp;
use crate::store::{ConversationRecord, ConversationStore as _};

fn hello() -> Value {
    json!({"type": "hello", "conversation": conversation_id(1)})
}

#[actix_rt::test(system = "Paused")]
async fn missing_hello_closes_the_socket_after_five_seconds() {
    let chat = TestChat::with_providers([vec![]]);
    let started = Instant::now();
    let mut client = chat.client();
    assert_eq!(client.recv_any().await, json!({"close": 1008}));
    assert_eq!(started.elapsed(), s(5));
    assert!(client.recv_any().await.is_null());
    assert_eq!(chat.harness.turns.conversations.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn bad_hello_may_be_repeated_within_the_time_limit() {
    let chat = TestChat::with_providers([vec![]]);
    let started = Instant::now();
    let mut client = chat.client();
    for _ in 0..3 {
        advance(s(1)).await;
        client
            .send_frame(json!({"type": "hello", "conversation": "x"}))
            .await;
        assert_eq!(client.recv_error_code().await, "bad_request");
    }
    client.send_frame(hello()).await;
    assert_eq!(client.recv().await["type"], "welcome");
    let mut late = chat.client();
    late.send_text("{}").await;
    assert_eq!(late.recv_error_code().await, "bad_request");
    assert_eq!(late.recv_any().await, json!({"close": 1008}));
    assert_eq!(started.elapsed(), s(3 + 5));
}

#[actix_rt::test(system = "Paused")]
async fn other_first_frame_closes_the_socket() {
    let chat = TestChat::with_providers([vec![]]);
    let mut client = chat.client();
    client.send("m", "?").await;
    assert_eq!(client.recv_any().await, json!({"close": 1008}));
    assert!(chat.harness.calls(0).is_empty());
}

#[actix_rt::test(system = "Paused")]
async fn hello_without_a_conversation_starts_a_new_one() {
    let chat = TestChat::with_providers([vec![]]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut client = chat.client();
        client.send_frame(json!({"type": "hello"})).await;
        let welcome = client.recv().await;
        assert_eq!(
            (&welcome["protocol"], &welcome["heartbeat_s"]),
            (&json!(1), &json!(15))
        );
        assert_eq!(welcome["history"], json!([]));
        ids.push(welcome["conversation"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0].len(), 22);
    let mut known = chat.client();
    known
        .send_frame(json!({"type": "hello", "conversation": ids[0]}))
        .await;
    assert_eq!(known.recv().await["conversation"], json!(ids[0]));
    known.send_frame(hello()).await;
    assert_eq!(
        known.recv_error_code().await,
        "bad_request",
        "a second hello"
    );
}

#[actix_rt::test(system = "Paused")]
async fn conversation_of_another_visitor_is_denied() {
    let chat = TestChat::with_providers([vec![]]);
    let owned = ConversationRecord {
        started_at: Timestamp(0),
        subject: Some("someone".to_owned()),
    };
    chat.harness
        .store
        .create_conversation(conversation_id(1), owned)
        .await
        .unwrap();
    let mut client = chat.client();
    client.send_frame(hello()).await;
    assert_eq!(client.recv_error_code().await, "unauthorized");
    client.send_frame(json!({"type": "hello"})).await;
    assert_eq!(
        client.recv().await["type"],
        "welcome",
        "a new conversation may be started"
    );
}

#[actix_rt::test(system = "Paused")]
async fn failing_store_costs_the_history_and_at_most_two_seconds() {
    for (trouble, waits) in [(StoreFault::Failing, 0), (StoreFault::Slow(s(4)), 2)] {
        let chat = TestChat::with_providers([vec![]]);
        chat.harness.store_old_turns(3).await;
        // With a secret, access would be denied while the owner is unknown.
        chat.harness
            .reload(|settings| settings.widget.identity_secret = None);
        chat.harness.store.set_fault(trouble);
        let started = Instant::now();
        let (_, welcome) = chat.connect().await;
        assert_eq!(
            (started.elapsed(), &welcome["history"]),
            (s(waits), &json!([]))
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn welcome_has_the_last_hundred_turns_and_history_the_older_ones() {
    let chat = TestChat::with_providers([vec![]]);
    chat.harness.store_old_turns(120).await;
    let (mut client, welcome) = chat.connect().await;
    let turns = welcome["history"].as_array().unwrap();
    let ids = |turns: &[Value]| {
        [
            turns[0]["question"].clone(),
            turns[turns.len() - 1]["question"].clone(),
        ]
    };
    assert_eq!(
        (turns.len(), ids(turns)),
        (100, [json!("q21"), json!("q120")])
    );
    client
        .send_frame(json!({"type": "history", "before": turns[0]["turn"]}))
        .await;
    let older = client.recv_type("history").await;
    let turns = older["turns"].as_array().unwrap();
    assert_eq!((turns.len(), ids(turns)), (20, [json!("q1"), json!("q20")]));
}

#[actix_rt::test(system = "Paused")]
async fn server_sends_heartbeats_pongs_and_status_changes() {
    let chat = TestChat::with_providers([vec![]]);
    let (mut client, _) = chat.connect().await;
    let started = Instant::now();
    for beat in 1..=3 {
        assert_eq!(client.recv_any().await, json!({"type": "heartbeat"}));
        assert_eq!(started.elapsed(), s(15 * beat));
    }
    client.send_frame(json!({"type": "ping"})).await;
    assert_eq!(client.recv_any().await, json!({"type": "pong"}));
    chat.status.send_replace(view("Some trouble."));
    let status = client.recv_any().await;
    assert_eq!(
        (&status["type"], &status["message"]),
        (&json!("status"), &json!("Some trouble."))
    );
}

#[actix_rt::test(system = "Paused")]
async fn disconnected_session_leaves_nothing_behind() {
    let chat = TestChat::with_providers([vec![]]);
    let (client, _) = chat.connect().await;
    assert_eq!(chat.harness.turns.conversations.count(), 1);
    drop(client);
    run_until_idle().await;
    assert_eq!(chat.harness.turns.conversations.count(), 0);
    let silent = chat.client();
    drop(silent);
    advance(s(5)).await;
    assert_eq!(chat.harness.turns.conversations.count(), 0);
}
