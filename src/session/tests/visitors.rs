//! Visitors with a token: whose conversation is opened, who is let in, who is shown out.

use super::*;
use crate::chat::At;
use crate::store::{ConversationRecord, Store as _};

fn token(subject: &str) -> String {
    sign(
        SECRET,
        &json!({"alg": "HS256"}),
        &json!({"sub": subject, "exp": 4_102_444_800_u64}),
    )
}

impl Tab {
    /// Says hello and hears the welcome's conversation.
    async fn opens(&mut self, conversation: Value, token: Option<String>) -> Value {
        self.say(json!({"type": "hello", "conversation": conversation, "token": token}))
            .await;
        let welcome = self.hear().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        welcome
    }

    async fn asks(&mut self, id: &str) {
        self.send(id, "?").await;
        while self.hear().await["type"] != "done" {}
    }
}

#[actix_rt::test(system = "Paused")]
async fn a_visitors_newest_conversation_is_opened_anywhere() {
    let hall = Hall::following([vec![says("One."), says("Two."), says("Three.")]]);
    // Begun long ago: the wall clock is the system's, and this test takes no time.
    let older = json!(conversation(9));
    let long_ago = ConversationRecord {
        began: At(1),
        subject: Some("ann".to_owned()),
    };
    hall.stage
        .store
        .begin(conversation(9), long_ago)
        .await
        .unwrap();
    let mut first = hall.tab();
    first.opens(Value::Null, Some(token("ann"))).await;
    first.asks("a").await;
    let mut second = hall.tab();
    second
        .opens(json!(conversation(2)), Some(token("ann")))
        .await;
    second.asks("b").await;

    let elsewhere = hall.tab().opens(Value::Null, Some(token("ann"))).await;
    assert_eq!(elsewhere["conversation"], json!(conversation(2)));
    assert_eq!(elsewhere["history"][0]["text"], "Two.");
    let back = hall.tab().opens(older.clone(), Some(token("ann"))).await;
    assert_eq!(back["history"][0]["text"], "One.");

    let bob = hall.tab().opens(Value::Null, Some(token("bob"))).await;
    assert!(
        bob["conversation"] != older && bob["history"] == json!([]),
        "{bob}"
    );
    let anonymous = hall.tab().opens(Value::Null, None).await;
    assert_eq!(anonymous["history"], json!([]));
}

#[actix_rt::test(system = "Paused")]
async fn a_visitors_conversation_is_for_that_visitor_alone() {
    let hall = Hall::following([vec![says("One."), says("Two.")]]);
    let mut ann = hall.tab();
    ann.opens(json!(conversation(1)), Some(token("ann"))).await;
    ann.asks("a").await;
    for other in [None, Some(token("bob")), Some(token("Ann"))] {
        let mut tab = hall.tab();
        tab.say(json!({"type": "hello", "conversation": conversation(1), "token": other}))
            .await;
        assert_eq!(tab.refused().await, "unauthorized");
    }
    // An anonymous one is for whoever has its id, and stays what it is.
    let mut anonymous = hall.tab();
    anonymous.opens(json!(conversation(2)), None).await;
    anonymous.asks("b").await;
    let entered = hall
        .tab()
        .opens(json!(conversation(2)), Some(token("bob")))
        .await;
    assert_eq!(entered["history"][0]["text"], "Two.");
    assert_eq!(hall.stage.store.newest_of("bob".into()).await, Ok(None));
}

#[actix_rt::test(system = "Paused")]
async fn a_bad_token_is_refused_and_the_socket_closed() {
    let hall = Hall::following([vec![]]);
    let good = token("ann");
    let expired = sign(
        SECRET,
        &json!({"alg": "HS256"}),
        &json!({"sub": "ann", "exp": -1}),
    );
    let forged = sign(
        "another secret",
        &json!({"alg": "HS256"}),
        &json!({"sub": "ann", "exp": 4_102_444_800_u64}),
    );
    let none = sign(
        SECRET,
        &json!({"alg": "none"}),
        &json!({"sub": "ann", "exp": 4_102_444_800_u64}),
    );
    for bad in [expired, forged, none, String::new(), format!("{good}x")] {
        let mut tab = hall.tab();
        tab.say(json!({"type": "hello", "token": bad})).await;
        assert_eq!(tab.refused().await, "unauthorized");
        assert_eq!(tab.next().await, json!({"close": 1008}));
    }
    assert_eq!(hall.stage.desk.rooms.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn without_a_secret_no_token_counts() {
    let hall = Hall::following([vec![]]);
    hall.stage
        .reload(|settings| settings.widget.identity_secret = None);
    let mut tab = hall.tab();
    tab.say(json!({"type": "hello", "token": token("ann")}))
        .await;
    assert_eq!(tab.refused().await, "unauthorized");
    assert_eq!(tab.next().await, json!({"close": 1008}));
    assert_eq!(
        hall.tab().opens(Value::Null, None).await["history"],
        json!([])
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_store_in_trouble_opens_a_new_conversation() {
    let hall = Hall::following([vec![]]);
    hall.stage.store.set(Trouble::Fails);
    assert_eq!(
        hall.tab().opens(Value::Null, Some(token("ann"))).await["history"],
        json!([])
    );
}

#[actix_rt::test(system = "Paused")]
async fn whose_a_conversation_is_is_not_guessed_while_the_store_does_not_say() {
    for trouble in [Trouble::Fails, Trouble::Slow(s(60))] {
        let hall = Hall::following([vec![says("One."), says("Two.")]]);
        let record = ConversationRecord {
            began: At(1),
            subject: Some("ann".to_owned()),
        };
        hall.stage
            .store
            .begin(conversation(1), record)
            .await
            .unwrap();
        hall.stage.store.set(trouble);
        for other in [None, Some(token("bob")), Some(token("ann"))] {
            let mut tab = hall.tab();
            tab.say(json!({"type": "hello", "conversation": conversation(1), "token": other}))
                .await;
            assert_eq!(tab.refused().await, "internal");
        }
        // A new one is nobody else's, whatever the store says.
        let mut tab = hall.tab();
        let opened = tab.opens(Value::Null, None).await["conversation"].clone();
        // And of a room that someone is in it is known whose it is.
        tab.asks("a").await;
        hall.tab().opens(opened.clone(), None).await;
        let mut ann = hall.tab();
        let hers = ann.opens(Value::Null, Some(token("ann"))).await["conversation"].clone();
        ann.asks("b").await;
        hall.tab().opens(hers.clone(), Some(token("ann"))).await;
        let mut other = hall.tab();
        other
            .say(json!({"type": "hello", "conversation": hers}))
            .await;
        assert_eq!(other.refused().await, "unauthorized");
        // Once it answers again, the conversation is hers.
        hall.stage.store.set(Trouble::None);
        hall.tab()
            .opens(json!(conversation(1)), Some(token("ann")))
            .await;
    }
}

#[actix_rt::test(system = "Paused")]
async fn where_nobody_has_a_token_a_store_in_trouble_stops_no_chat() {
    let hall = Hall::following([vec![]]);
    hall.stage
        .reload(|settings| settings.widget.identity_secret = None);
    hall.stage.store.set(Trouble::Fails);
    assert_eq!(
        hall.tab().opens(json!(conversation(1)), None).await["history"],
        json!([])
    );
}
