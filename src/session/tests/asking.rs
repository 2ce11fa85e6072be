//! What becomes of a message, and of frames about one.

use super::*;
use crate::turn::desk::Phase;

fn endless() -> Vec<Script> {
    vec![vec![Act::Forever("ha".to_owned(), ms(500))]]
}

#[actix_rt::test(system = "Paused")]
async fn a_message_is_accepted_and_answered() {
    let hall = Hall::following([vec![says("Hi.")]]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m1", "Hello?").await;
    let mut kinds = Vec::new();
    let done = loop {
        let frame = tab.hear().await;
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
    tab.silent().await;
    let (_, welcome) = hall.enter().await;
    let turn = &welcome["history"][0];
    assert_eq!(
        (&turn["text"], &turn["question"], &turn["state"]),
        (&json!("Hi."), &json!("Hello?"), &json!("done"))
    );
}

#[actix_rt::test(system = "Paused")]
async fn what_is_wrong_with_a_message_is_said_about_it() {
    let hall = Hall::following([vec![]]);
    let (mut tab, _) = hall.enter().await;
    for (id, text, code) in [
        ("m", " \n ", "bad_request"),
        ("m", &"x".repeat(101), "message_too_long"),
        ("", "?", "bad_request"),
        (&"m".repeat(65), "?", "bad_request"),
    ] {
        tab.send(id, text).await;
        let error = tab.hear().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code))
        );
        assert_eq!(
            error["client_msg_id"].as_str().unwrap(),
            id.get(..64).unwrap_or(id)
        );
    }
    tab.say(
        json!({"type": "send", "client_msg_id": "m", "text": "?", "options": {"provider": "z"}}),
    )
    .await;
    assert_eq!(tab.refused().await, "bad_request");
    tab.send("m", &"é".repeat(100)).await;
    assert_eq!(
        tab.until("accepted").await["duplicate"],
        false,
        "the id was not used up"
    );
}

#[actix_rt::test(system = "Paused")]
async fn the_same_message_is_the_same_turn_while_it_runs_and_long_after() {
    let hall = Hall::following([vec![says_slowly("Hel", s(2), "lo.")]]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    let turn = tab.until("accepted").await["turn"].clone();
    let again = async |tab: &mut Tab| {
        tab.send("m", "?").await;
        let accepted = tab.until("accepted").await;
        assert_eq!(
            (&accepted["turn"], &accepted["duplicate"]),
            (&turn, &json!(true))
        );
    };
    again(&mut tab).await;
    tab.until("done").await;
    again(&mut tab).await;
    pass(s(6)).await;
    again(&mut tab).await;
    tab.silent().await;
    for text in ["!", "? "] {
        tab.send("m", text).await;
        assert_eq!(tab.refused().await, "bad_request");
    }
    // A page that does not have the answer gets it.
    let (mut other, _) = hall.enter().await;
    again(&mut other).await;
    assert_eq!(other.hear().await["type"], "snapshot");
    assert_eq!(other.hear().await["text"], "Hello.");
    assert_eq!(hall.stage.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn two_tabs_that_send_the_same_at_once_get_one_turn() {
    let hall = Hall::following([vec![says("Hi.")]]);
    hall.stage.store.set(Trouble::Slow(ms(100)));
    let ((mut one, _), (mut other, _)) = tokio::join!(hall.enter(), hall.enter());
    tokio::join!(one.send("m", "?"), other.send("m", "?"));
    let (first, second) = tokio::join!(one.until("accepted"), other.until("accepted"));
    assert_eq!(first["turn"], second["turn"]);
    assert_ne!(first["duplicate"], second["duplicate"]);
    tokio::join!(one.until("done"), other.until("done"));
    assert_eq!(hall.stage.calls(0).len(), 1);
}

#[actix_rt::test(system = "Paused")]
async fn of_a_conversation_that_was_made_just_now_nothing_is_read_until_some_of_it_is_in_the_store_alone()
 {
    let hall = Hall::following([vec![]]);
    let began = Instant::now();
    hall.stage.store.set(Trouble::Slow(ms(200)));
    let mut tab = hall.tab();
    tab.say(json!({"type": "hello"})).await;
    assert_eq!(tab.hear().await["type"], "welcome");
    assert_eq!(began.elapsed(), ms(0));
    for (n, message, pause, wait) in [
        (0, "m", ms(0), ms(0)),
        (1, "n", ms(0), ms(0)),
        (2, "o", s(6), ms(200 + 200)),
    ] {
        pass(pause).await;
        let sent = Instant::now();
        tab.send(message, &format!("{message}?")).await;
        tab.until("done").await;
        let call = &hall.stage.calls(0)[n];
        assert_eq!(
            call.at - sent,
            wait,
            "{message}: the message is looked for, then the history"
        );
        let said: Vec<_> = call
            .ask
            .messages
            .iter()
            .map(|message| message.text.to_string())
            .collect();
        let questions = ["m?", "Hello.", "n?", "Hello.", "o?"];
        assert_eq!(said, questions[..=2 * n], "{message}");
    }
    let again = Instant::now();
    tab.send("o", "o?").await;
    assert_eq!(tab.until("accepted").await["duplicate"], true);
    assert!(again.elapsed() <= ms(200));
}

#[actix_rt::test(system = "Paused")]
async fn another_message_meanwhile_is_busy() {
    let hall = Hall::following([endless()]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    let turn = tab.until("accepted").await["turn"].clone();
    tab.send("n", "?").await;
    assert_eq!(tab.until("error").await["code"], "busy");
    tab.say(json!({"type": "retry", "turn": turn, "client_msg_id": "r"}))
        .await;
    assert_eq!(tab.until("error").await["code"], "busy");
    tab.say(json!({"type": "feedback", "turn": turn, "value": "up"}))
        .await;
    assert_eq!(tab.until("error").await["code"], "busy");
    tab.say(json!({"type": "stop", "turn": turn})).await;
    assert_eq!(tab.until("done").await["finish"], "stopped");
    tab.send("n", "?").await;
    assert_eq!(tab.until("accepted").await["duplicate"], false);
}

#[actix_rt::test(system = "Paused")]
async fn a_retry_is_a_new_turn_and_knows_of_which() {
    let hall = Hall::following([vec![fails(Fault::Timeout), says("Hi.")]]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    let first = tab.until("done").await;
    assert_eq!(
        (&first["text"], &first["degraded"]),
        (&json!(FALLBACK), &json!(true))
    );
    let retry =
        |turn: &Value, id: &str| json!({"type": "retry", "turn": turn, "client_msg_id": id});
    tab.say(retry(&first["turn"], "m")).await;
    assert_eq!(
        tab.refused().await,
        "bad_request",
        "its own message is no retry"
    );
    tab.say(retry(&first["turn"], "r")).await;
    let start = tab.until("start").await;
    assert_eq!(
        (&start["retry_of"], &start["text"]),
        (&first["turn"], &json!("?"))
    );
    assert_eq!(tab.until("done").await["text"], "Hi.");
    tab.say(retry(&first["turn"], "r")).await;
    assert_eq!(tab.until("accepted").await["duplicate"], true);
    let nobody = json!("000000000001000000000000000a");
    tab.say(retry(&nobody, "q")).await;
    assert_eq!(tab.refused().await, "not_found");
    assert_eq!(hall.stage.calls(0).len(), 2);
}

#[actix_rt::test(system = "Paused")]
async fn a_thumb_is_kept_with_the_turn() {
    let hall = Hall::following([vec![says("Hi.")]]);
    let (mut tab, _) = hall.enter().await;
    tab.send("m", "?").await;
    let turn = tab.until("done").await["turn"].clone();
    let thumb = |value: &str| json!({"type": "feedback", "turn": turn, "value": value});
    for (value, wait) in [("up", 0), ("down", 10)] {
        pass(s(wait)).await;
        tab.say(thumb(value)).await;
        settled().await;
        let (_, welcome) = hall.enter().await;
        assert_eq!(welcome["history"][0]["feedback"], value);
    }
    hall.stage.store.set(Trouble::Fails);
    tab.say(thumb("up")).await;
    assert_eq!(tab.refused().await, "internal");
    tab.say(json!({"type": "stop", "turn": turn})).await;
    assert_eq!(tab.refused().await, "internal");
    hall.stage.store.set(Trouble::None);
    tab.say(json!({"type": "stop", "turn": turn})).await;
    tab.silent().await;
}

#[actix_rt::test(system = "Paused")]
async fn what_the_disk_did_not_confirm_is_said_so() {
    for (trouble, durable, wait) in [
        (Trouble::None, true, 0),
        (Trouble::Slow(ms(249)), true, 498),
        (Trouble::Slow(ms(400)), false, 650),
        (Trouble::Fails, false, 0),
    ] {
        let hall = Hall::following([vec![says("Hi.")]]);
        let (mut tab, _) = hall.enter().await;
        hall.stage.store.set(trouble);
        let begun = Instant::now();
        tab.send("m", "?").await;
        let accepted = tab.until("accepted").await;
        assert_eq!(
            (&accepted["durable"], begun.elapsed()),
            (&json!(durable), ms(wait)),
            "{trouble:?}"
        );
        assert_eq!(tab.until("done").await["text"], "Hi.");
    }
}

#[actix_rt::test(system = "Paused")]
async fn turns_that_the_store_missed_stand_in_their_place() {
    let hall = Hall::following([vec![says("Hi.")]]);
    let (mut tab, _) = hall.enter().await;
    for (name, trouble) in [
        ("1", Trouble::Fails),
        ("2", Trouble::None),
        ("3", Trouble::Fails),
    ] {
        hall.stage.store.set(trouble);
        tab.send(name, name).await;
        tab.until("done").await;
    }
    hall.stage.store.set(Trouble::None);
    let (_, welcome) = hall.enter().await;
    let questions: Vec<_> = welcome["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| &turn["question"])
        .collect();
    assert_eq!(questions, ["1", "2", "3"]);
}

#[actix_rt::test(system = "Paused")]
async fn a_service_that_goes_down_takes_no_more_and_says_good_bye_after_the_last_word() {
    let hall = Hall::following([vec![says_slowly("Hel", s(2), "lo.")]]);
    let (mut tab, _) = hall.enter().await;
    let (mut other, _) = hall.enter().await;
    tab.send("m", "?").await;
    tab.until("token").await;
    hall.stage.phase.send_replace(Phase::Draining);
    other.send("n", "?").await;
    assert_eq!(other.until("error").await["code"], "shutting_down");
    pass(s(2)).await;
    hall.stage.phase.send_replace(Phase::Closing);
    for tab in [&mut tab, &mut other] {
        assert_eq!(tab.until("done").await["text"], "Hello.");
        assert_eq!(tab.hear().await, json!({"close": 1001}));
        assert!(tab.hear().await.is_null());
    }
}
