//! Several tabs, tabs that come late, tabs that do not read.

use super::*;

#[actix_rt::test(system = "Paused")]
async fn every_tab_sees_every_frame() {
    let hall = Hall::following([vec![breaks("Hel", Fault::Stalled)], vec![says("Good day.")]]);
    let (mut asks, _) = hall.enter().await;
    let (mut sees, _) = hall.enter().await;
    asks.send("m", "?").await;
    let frames = async |tab: &mut Tab| {
        let mut frames = Vec::new();
        loop {
            let frame = tab.hear().await;
            let done = frame["type"] == "done";
            if frame["type"] != "accepted" {
                frames.push(frame);
            }
            if done {
                return frames;
            }
        }
    };
    let (one, other) = tokio::join!(frames(&mut asks), frames(&mut sees));
    assert_eq!(one, other);
    let kinds: Vec<_> = one
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
async fn who_comes_in_the_middle_gets_the_running_turn_after_the_welcome() {
    let hall = Hall::following([vec![says_slowly("Hel", s(4), "lo.")]]);
    let (tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    pass(s(1)).await;
    let (mut late, welcome) = hall.enter().await;
    let running = &welcome["history"][0];
    assert_eq!(
        (&running["state"], &running["text"]),
        (&json!("running"), &json!("Hel"))
    );
    let snapshot = late.hear().await;
    assert_eq!(
        (&snapshot["type"], &snapshot["text"], &snapshot["seq"]),
        (&json!("snapshot"), &json!("Hel"), &json!(3))
    );
    assert_eq!(late.hear().await["text"], "lo.");
    assert_eq!(late.hear().await["type"], "done");
    late.silent().await;
}

#[actix_rt::test(system = "Paused")]
async fn who_resumes_goes_on_where_it_stands() {
    let hall = Hall::following([vec![says_slowly("Hel", s(4), "lo.")]]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    let turn = tab.until("token").await["turn"].clone();
    drop(tab);
    let (mut back, _) = hall.enter_at(json!({"turn": turn, "seq": 2})).await;
    let token = back.hear().await;
    assert_eq!(
        (&token["type"], &token["seq"], &token["text"]),
        (&json!("token"), &json!(3), &json!("Hel"))
    );
    assert_eq!(back.hear().await["text"], "lo.");
    assert_eq!(back.hear().await["type"], "done");
}

#[actix_rt::test(system = "Paused")]
async fn a_turn_whose_log_is_gone_is_told_from_the_store_wherever_the_page_stands() {
    let hall = Hall::following([vec![says("Hi.")]]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    let turn = tab.until("done").await["turn"].clone();
    pass(s(6)).await;
    for seq in [0, 3, u64::MAX] {
        let (mut back, _) = hall.enter_at(json!({"turn": turn, "seq": seq})).await;
        let (snapshot, done) = (back.hear().await, back.hear().await);
        assert_eq!(
            (&snapshot["type"], &snapshot["text"]),
            (&json!("snapshot"), &json!("Hi."))
        );
        assert_eq!(
            (&done["type"], &done["text"]),
            (&json!("done"), &json!("Hi."))
        );
        back.silent().await;
    }
    let (mut back, _) = hall
        .enter_at(json!({"turn": "000000000001000000000000000a", "seq": 1}))
        .await;
    assert_eq!(back.refused().await, "not_found");
    hall.stage.store.set(Trouble::Fails);
    let (mut back, _) = hall.enter_at(json!({"turn": turn, "seq": 1})).await;
    assert_eq!(back.refused().await, "internal");
    back.send("n", "?").await;
    assert_eq!(
        back.until("done").await["text"],
        "Hi.",
        "the session goes on"
    );
}

#[actix_rt::test(system = "Paused")]
async fn a_turn_that_another_process_left_running_is_interrupted() {
    use crate::chat::{At, TurnId, TurnRecord};
    use crate::store::Store as _;
    let hall = Hall::following([vec![says("Hi.")]]);
    let turn = TurnId::after(None, 5, 5);
    let mut record = TurnRecord::asked(turn, "m".parse().unwrap(), At(5), "?".to_owned(), None);
    record.text = "Hel".to_owned();
    hall.stage
        .store
        .write_turn(conversation(1), record)
        .await
        .unwrap();
    let (mut tab, welcome) = hall.enter_at(json!({"turn": turn, "seq": 2})).await;
    assert_eq!(welcome["history"][0]["state"], "interrupted");
    assert_eq!(tab.hear().await["type"], "snapshot");
    let done = tab.hear().await;
    assert_eq!(
        (&done["finish"], &done["text"]),
        (&json!("interrupted"), &json!("Hel"))
    );
    tab.say(json!({"type": "retry", "turn": turn, "client_msg_id": "r"}))
        .await;
    assert_eq!(tab.until("done").await["text"], "Hi.");
}

#[actix_rt::test(system = "Paused")]
async fn a_tab_that_does_not_read_costs_nothing_and_is_brought_up_to_date() {
    let hall = Hall::following([vec![
        vec![Act::Forever("x".to_owned(), ms(20))],
        says("Two."),
        says("Three."),
    ]]);
    let (mut deaf, _) = hall.enter().await;
    let (mut tab, _) = hall.enter().await;
    for name in ["1", "2", "3"] {
        tab.send(name, name).await;
        let turn = tab.until("token").await["turn"].clone();
        pass(s(20)).await;
        tab.say(json!({"type": "stop", "turn": turn})).await;
        tab.until("done").await;
        pass(s(6)).await;
    }
    // What waited for it, then the rest of the first turn as it stood at its end, then what it missed.
    let first = deaf.until("done").await;
    assert_eq!(first["finish"], "stopped");
    assert!(first["text"].as_str().unwrap().len() >= 1_000);
    let history = deaf.until("history").await;
    let texts: Vec<_> = history["turns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| turn["text"].clone())
        .collect();
    assert_eq!(texts[1..], ["Two.", "Three."]);
    deaf.send("4", "4").await;
    assert_eq!(deaf.until("done").await["text"], "Three.");
    assert_eq!(tab.until("done").await["text"], "Three.");
}
