//! Visitor tokens: access to conversations with and without an owner.

use super::*;
use crate::domain::Timestamp;
use crate::store::{ConversationRecord, ConversationStore as _};

fn token(subject: &str) -> String {
    sign_token(
        SECRET,
        &json!({"alg": "HS256"}),
        &json!({"sub": subject, "exp": 4_102_444_800_u64}),
    )
}

impl TestClient {
    /// Sends `hello` and returns the `welcome` frame.
    async fn open(&mut self, conversation: Value, token: Option<String>) -> Value {
        self.send_frame(json!({"type": "hello", "conversation": conversation, "token": token}))
            .await;
        let welcome = self.recv().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        welcome
    }

    async fn ask(&mut self, id: &str) {
        self.send(id, "?").await;
        while self.recv().await["type"] != "done" {}
    }
}

#[actix_rt::test(system = "Paused")]
async fn token_opens_the_latest_conversation_on_any_device() {
    let chat = TestChat::with_providers([vec![reply("One."), reply("Two."), reply("Three.")]]);
    // Started long ago, since the wall clock does not advance during this test.
    let older = json!(conversation_id(9));
    let long_ago = ConversationRecord {
        started_at: Timestamp(1),
        subject: Some("ann".to_owned()),
    };
    chat.harness
        .store
        .create_conversation(conversation_id(9), long_ago)
        .await
        .unwrap();
    let mut first = chat.client();
    first.open(Value::Null, Some(token("ann"))).await;
    first.ask("a").await;
    let mut second = chat.client();
    second
        .open(json!(conversation_id(2)), Some(token("ann")))
        .await;
    second.ask("b").await;

    let elsewhere = chat.client().open(Value::Null, Some(token("ann"))).await;
    assert_eq!(elsewhere["conversation"], json!(conversation_id(2)));
    assert_eq!(elsewhere["history"][0]["text"], "Two.");
    let back = chat.client().open(older.clone(), Some(token("ann"))).await;
    assert_eq!(back["history"][0]["text"], "One.");

    let bob = chat.client().open(Value::Null, Some(token("bob"))).await;
    assert!(
        bob["conversation"] != older && bob["history"] == json!([]),
        "{bob}"
    );
    let anonymous = chat.client().open(Value::Null, None).await;
    assert_eq!(anonymous["history"], json!([]));
}

#[actix_rt::test(system = "Paused")]
async fn owned_conversation_is_denied_to_others() {
    let chat = TestChat::with_providers([vec![reply("One."), reply("Two.")]]);
    let mut ann = chat.client();
    ann.open(json!(conversation_id(1)), Some(token("ann")))
        .await;
    ann.ask("a").await;
    for other in [None, Some(token("bob")), Some(token("Ann"))] {
        let mut client = chat.client();
        client
            .send_frame(
                json!({"type": "hello", "conversation": conversation_id(1), "token": other}),
            )
            .await;
        assert_eq!(client.recv_error_code().await, "unauthorized");
    }
    // An anonymous conversation is open to anyone with its id, and stays anonymous.
    let mut anonymous = chat.client();
    anonymous.open(json!(conversation_id(2)), None).await;
    anonymous.ask("b").await;
    let entered = chat
        .client()
        .open(json!(conversation_id(2)), Some(token("bob")))
        .await;
    assert_eq!(entered["history"][0]["text"], "Two.");
    assert_eq!(
        chat.harness.store.latest_conversation("bob".into()).await,
        Ok(None)
    );
}

#[actix_rt::test(system = "Paused")]
async fn bad_token_is_rejected_and_closes_the_socket() {
    let chat = TestChat::with_providers([vec![]]);
    let good = token("ann");
    let expired = sign_token(
        SECRET,
        &json!({"alg": "HS256"}),
        &json!({"sub": "ann", "exp": -1}),
    );
    let forged = sign_token(
        "another secret",
        &json!({"alg": "HS256"}),
        &json!({"sub": "ann", "exp": 4_102_444_800_u64}),
    );
    let none = sign_token(
        SECRET,
        &json!({"alg": "none"}),
        &json!({"sub": "ann", "exp": 4_102_444_800_u64}),
    );
    for bad in [expired, forged, none, String::new(), format!("{good}x")] {
        let mut client = chat.client();
        client
            .send_frame(json!({"type": "hello", "token": bad}))
            .await;
        assert_eq!(client.recv_error_code().await, "unauthorized");
        assert_eq!(client.recv_any().await, json!({"close": 1008}));
    }
    assert_eq!(chat.harness.turns.conversations.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn tokens_are_rejected_without_a_secret() {
    let chat = TestChat::with_providers([vec![]]);
    chat.harness
        .reload(|settings| settings.widget.identity_secret = None);
    let mut client = chat.client();
    client
        .send_frame(json!({"type": "hello", "token": token("ann")}))
        .await;
    assert_eq!(client.recv_error_code().await, "unauthorized");
    assert_eq!(client.recv_any().await, json!({"close": 1008}));
    assert_eq!(
        chat.client().open(Value::Null, None).await["history"],
        json!([])
    );
}

#[actix_rt::test(system = "Paused")]
async fn failing_store_leads_to_a_new_conversation() {
    let chat = TestChat::with_providers([vec![]]);
    chat.harness.store.set_fault(StoreFault::Failing);
    assert_eq!(
        chat.client().open(Value::Null, Some(token("ann"))).await["history"],
        json!([])
    );
}

#[actix_rt::test(system = "Paused")]
async fn access_is_denied_while_the_owner_is_unknown() {
    for trouble in [StoreFault::Failing, StoreFault::Slow(s(60))] {
        let chat = TestChat::with_providers([vec![reply("One."), reply("Two.")]]);
        let record = ConversationRecord {
            started_at: Timestamp(1),
            subject: Some("ann".to_owned()),
        };
        chat.harness
            .store
            .create_conversation(conversation_id(1), record)
            .await
            .unwrap();
        chat.harness.store.set_fault(trouble);
        for other in [None, Some(token("bob")), Some(token("ann"))] {
            let mut client = chat.client();
            client
                .send_frame(
                    json!({"type": "hello", "conversation": conversation_id(1), "token": other}),
                )
                .await;
            assert_eq!(client.recv_error_code().await, "internal");
        }
        // A new conversation has no other owner, whatever the store says.
        let mut client = chat.client();
        let opened = client.open(Value::Null, None).await["conversation"].clone();
        // The owner of a conversation with a live session is known.
        client.ask("a").await;
        chat.client().open(opened.clone(), None).await;
        let mut ann = chat.client();
        let hers = ann.open(Value::Null, Some(token("ann"))).await["conversation"].clone();
        ann.ask("b").await;
        chat.client().open(hers.clone(), Some(token("ann"))).await;
        let mut other = chat.client();
        other
            .send_frame(json!({"type": "hello", "conversation": hers}))
            .await;
        assert_eq!(other.recv_error_code().await, "unauthorized");
        // Once the store answers again, the owner gets access.
        chat.harness.store.set_fault(StoreFault::None);
        chat.client()
            .open(json!(conversation_id(1)), Some(token("ann")))
            .await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn failing_store_does_not_stop_anonymous_chats() {
    let chat = TestChat::with_providers([vec![]]);
    chat.harness
        .reload(|settings| settings.widget.identity_secret = None);
    chat.harness.store.set_fault(StoreFault::Failing);
    assert_eq!(
        chat.client().open(json!(conversation_id(1)), None).await["history"],
        json!([])
    );
}
