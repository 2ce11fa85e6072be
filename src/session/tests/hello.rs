//! The first frame, and what it is answered by.

use super::*;
use crate::chat::At;
use crate::store::{ConversationRecord, Store as _};

fn hello() -> Value {
    json!({"type": "hello", "conversation": conversation(1)})
}

#[actix_rt::test(system = "Paused")]
async fn who_says_no_hello_within_five_seconds_is_shown_out() {
    let hall = Hall::following([vec![]]);
    let begun = Instant::now();
    let mut tab = hall.tab();
    assert_eq!(tab.next().await, json!({"close": 1008}));
    assert_eq!(begun.elapsed(), s(5));
    assert!(tab.next().await.is_null());
    assert_eq!(hall.stage.desk.rooms.count(), 0);
}

#[actix_rt::test(system = "Paused")]
async fn a_bad_hello_may_be_mended_but_gains_no_time() {
    let hall = Hall::following([vec![]]);
    let begun = Instant::now();
    let mut tab = hall.tab();
    for _ in 0..3 {
        pass(s(1)).await;
        tab.say(json!({"type": "hello", "conversation": "x"})).await;
        assert_eq!(tab.refused().await, "bad_request");
    }
    tab.say(hello()).await;
    assert_eq!(tab.hear().await["type"], "welcome");
    let mut late = hall.tab();
    late.say_text("{}").await;
    assert_eq!(late.refused().await, "bad_request");
    assert_eq!(late.next().await, json!({"close": 1008}));
    assert_eq!(begun.elapsed(), s(3 + 5));
}

#[actix_rt::test(system = "Paused")]
async fn another_frame_first_is_shown_out() {
    let hall = Hall::following([vec![]]);
    let mut tab = hall.tab();
    tab.send("m", "?").await;
    assert_eq!(tab.next().await, json!({"close": 1008}));
    assert!(hall.stage.calls(0).is_empty());
}

#[actix_rt::test(system = "Paused")]
async fn without_a_conversation_a_new_one_is_opened() {
    let hall = Hall::following([vec![]]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut tab = hall.tab();
        tab.say(json!({"type": "hello"})).await;
        let welcome = tab.hear().await;
        assert_eq!(
            (&welcome["protocol"], &welcome["heartbeat_s"]),
            (&json!(1), &json!(15))
        );
        assert_eq!(welcome["history"], json!([]));
        ids.push(welcome["conversation"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0].len(), 22);
    let mut known = hall.tab();
    known
        .say(json!({"type": "hello", "conversation": ids[0]}))
        .await;
    assert_eq!(known.hear().await["conversation"], json!(ids[0]));
    known.say(hello()).await;
    assert_eq!(known.refused().await, "bad_request", "a second hello");
}

#[actix_rt::test(system = "Paused")]
async fn a_conversation_of_another_is_not_entered() {
    let hall = Hall::following([vec![]]);
    let owned = ConversationRecord {
        began: At(0),
        subject: Some("someone".to_owned()),
    };
    hall.stage
        .store
        .begin(conversation(1), owned)
        .await
        .unwrap();
    let mut tab = hall.tab();
    tab.say(hello()).await;
    assert_eq!(tab.refused().await, "unauthorized");
    tab.say(json!({"type": "hello"})).await;
    assert_eq!(
        tab.hear().await["type"],
        "welcome",
        "a new one may be begun"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_store_in_trouble_costs_the_history_and_a_second_or_two() {
    for (trouble, waits) in [(Trouble::Fails, 0), (Trouble::Slow(s(4)), 2)] {
        let hall = Hall::following([vec![]]);
        hall.stage.remember(3).await;
        // Where visitors have tokens, whose it is must be known first.
        hall.stage
            .reload(|settings| settings.widget.identity_secret = None);
        hall.stage.store.set(trouble);
        let begun = Instant::now();
        let (_, welcome) = hall.enter().await;
        assert_eq!(
            (begun.elapsed(), &welcome["history"]),
            (s(waits), &json!([]))
        );
    }
}

#[actix_rt::test(system = "Paused")]
async fn the_welcome_has_the_last_hundred_turns_and_more_are_told_when_asked_for() {
    let hall = Hall::following([vec![]]);
    hall.stage.remember(120).await;
    let (mut tab, welcome) = hall.enter().await;
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
    tab.say(json!({"type": "history", "before": turns[0]["turn"]}))
        .await;
    let older = tab.until("history").await;
    let turns = older["turns"].as_array().unwrap();
    assert_eq!((turns.len(), ids(turns)), (20, [json!("q1"), json!("q20")]));
}

#[actix_rt::test(system = "Paused")]
async fn the_server_shows_that_it_lives() {
    let hall = Hall::following([vec![]]);
    let (mut tab, _) = hall.enter().await;
    let begun = Instant::now();
    for beat in 1..=3 {
        assert_eq!(tab.next().await, json!({"type": "heartbeat"}));
        assert_eq!(begun.elapsed(), s(15 * beat));
    }
    tab.say(json!({"type": "ping"})).await;
    assert_eq!(tab.next().await, json!({"type": "pong"}));
    hall.status.send_replace(view("Some trouble."));
    let status = tab.next().await;
    assert_eq!(
        (&status["type"], &status["message"]),
        (&json!("status"), &json!("Some trouble."))
    );
}

#[actix_rt::test(system = "Paused")]
async fn who_leaves_leaves_nothing() {
    let hall = Hall::following([vec![]]);
    let (tab, _) = hall.enter().await;
    assert_eq!(hall.stage.desk.rooms.count(), 1);
    drop(tab);
    settled().await;
    assert_eq!(hall.stage.desk.rooms.count(), 0);
    let silent = hall.tab();
    drop(silent);
    pass(s(5)).await;
    assert_eq!(hall.stage.desk.rooms.count(), 0);
}
