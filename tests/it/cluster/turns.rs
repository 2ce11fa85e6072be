//! A turn of one instance, as the others have to do with it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Instance, history, start_in, two};
use crate::binary::provider::{Manner, Provider, whole};
use crate::binary::ws_client::{Shown, Visitor};
use crate::harness::Redis;

const PACE: Duration = Duration::from_millis(20);

/// Comes to another instance with what a page has of a running turn.
async fn resumed(at: &Instance, conversation: &str, shown: &Shown) -> Visitor {
    let resume = json!({ "turn": shown.turn(), "seq": shown.seq });
    Visitor::enter(
        at.port(),
        json!({ "conversation": conversation, "resume": resume }),
    )
    .await
}

#[tokio::test]
async fn an_answer_is_followed_and_stopped_on_another_instance() {
    let (redis, provider) = (Redis::start(&[]), Provider::start(Manner::Drip(PACE)).await);
    let (one, other) = two(&provider, &redis).await;
    let (mut here, mut shown) = (Visitor::new(one.port()).await, Shown::default());
    here.send("Where?").await;
    here.read(&mut shown, 40).await;
    // A new tab gets what there is; the page that changed instances goes on with the next frame.
    let mut there = Visitor::back(other.port(), here.conversation()).await;
    let mut seen = Shown::default();
    there.read(&mut seen, shown.text.chars().count() + 20).await;
    assert!(
        seen.text.starts_with(&shown.text),
        "{}\n{}",
        seen.text,
        shown.text
    );
    let mut moved = resumed(&other, here.conversation(), &shown).await;
    let before = shown.text.chars().count();
    moved.read(&mut shown, before + 20).await;
    there
        .say(json!({ "type": "stop", "turn": seen.turn() }))
        .await;
    for (visitor, shown) in [(&mut there, &mut seen), (&mut moved, &mut shown)] {
        visitor.read(shown, usize::MAX).await;
        assert_eq!(*shown.end("finish"), "stopped");
        assert_eq!(*shown.end("text"), shown.text);
    }
    let mut rest = Shown {
        seq: 0,
        ..Shown::default()
    };
    let mut back = Visitor::enter(
        one.port(),
        json!({ "conversation": here.conversation(), "resume": { "turn": seen.turn(), "seq": 0 } }),
    )
    .await;
    back.read(&mut rest, usize::MAX).await;
    assert_eq!(rest.text, seen.text);
}

#[tokio::test]
async fn an_instance_killed_in_mid_answer_leaves_its_text_to_another_where_it_can_be_retried() {
    let (redis, provider) = (Redis::start(&[]), Provider::start(Manner::Drip(PACE)).await);
    let (one, other) = two(&provider, &redis).await;
    let (mut here, mut shown) = (Visitor::new(one.port()).await, Shown::default());
    here.send("Who?").await;
    here.read(&mut shown, 200).await;
    one.service.kill().await;
    let mut there = resumed(&other, here.conversation(), &shown).await;
    let (turn, before) = (shown.turn().to_owned(), shown.text.clone());
    there.read(&mut shown, usize::MAX).await;
    assert_eq!(*shown.end("finish"), "interrupted");
    // What was told in the last batch may be missing, no more than that and what a busy machine delays it by.
    assert!(
        shown.text.len() + 60 > before.len(),
        "{}\n{before}",
        shown.text
    );
    assert!(shown.text.starts_with(&before) || before.starts_with(&shown.text));
    provider.now(Manner::Answer);
    there
        .say(json!({ "type": "retry", "turn": turn, "client_msg_id": "again" }))
        .await;
    let again = there.answer().await;
    assert_eq!(again.start.as_ref().unwrap()["retry_of"], *turn);
    assert_eq!(
        (again.end("finish"), again.text.as_str()),
        (&json!("stop"), whole("Who?").as_str())
    );
    // Its own instance, when it is back, tells the same.
    let service = start_in(one.folder.path(), &provider, &redis.url()).await;
    let turns = history(service.port, here.conversation(), |turns| turns.len() == 2).await;
    assert_eq!(
        (&turns[0]["state"], &turns[1]["state"]),
        (&json!("interrupted"), &json!("done"))
    );
    assert!(turns[0]["text"].as_str().unwrap().len() + 60 > before.len());
}

#[tokio::test]
async fn what_a_dead_instance_owes_another_answers_late_and_once() {
    let (redis, provider) = (Redis::start(&[]), Provider::start(Manner::Drip(PACE)).await);
    let (one, other) = two(&provider, &redis).await;
    let third = Instance::start(&provider, &redis.url()).await;
    third.shares(true).await;
    let (mut here, mut shown) = (Visitor::new(one.port()).await, Shown::default());
    here.send("Who?").await;
    here.read(&mut shown, 40).await;
    let mut watching = Visitor::back(third.port(), here.conversation()).await;
    one.service.kill().await;
    provider.now(Manner::Answer);
    // Wherever it is answered, a tab on any instance hears of it.
    let late = watching.next("followup").await;
    assert_eq!(
        (&late["turn"], &late["text"]),
        (&json!(shown.turn()), &json!(whole("Who?")))
    );
    for port in [other.port(), third.port()] {
        let turns = history(port, here.conversation(), |turns| {
            turns[0]["followup"].is_object()
        })
        .await;
        assert_eq!(turns[0]["followup"]["text"], whole("Who?"));
    }
    assert_eq!(provider.requests().len(), 2, "asked once, and once late");
}

#[tokio::test]
async fn the_same_message_on_two_instances_is_one_turn_and_another_has_to_wait() {
    let (redis, provider) = (Redis::start(&[]), Provider::start(Manner::Pause).await);
    let (one, other) = two(&provider, &redis).await;
    let same = json!({ "type": "send", "client_msg_id": "same", "text": "Which?" });
    let mut tries = 0;
    let (mut here, mut there, asked) = loop {
        let mut here = Visitor::new(one.port()).await;
        let mut there = Visitor::back(other.port(), here.conversation()).await;
        let asked = provider.requests().len();
        here.say(same.clone()).await;
        there.say(same.clone()).await;
        let accepted = [here.next("accepted").await, there.next("accepted").await];
        if accepted[0]["turn"] == accepted[1]["turn"] {
            let duplicates: Vec<&Value> = accepted.iter().map(|one| &one["duplicate"]).collect();
            assert!(
                duplicates.contains(&&json!(true)) && duplicates.contains(&&json!(false)),
                "{accepted:?}"
            );
            break (here, there, asked);
        }
        // A busy machine held one of them up for longer than anybody waits for Redis, and it went on alone, as it should.
        tries += 1;
        assert!(tries < 5, "{accepted:?}");
        provider.now(Manner::Answer);
        here.next("done").await;
        there.next("done").await;
        provider.now(Manner::Pause);
        one.shares(true).await;
        other.shares(true).await;
    };
    there
        .say(json!({ "type": "send", "client_msg_id": "same", "text": "Another?" }))
        .await;
    there.next_error("bad_request").await;
    there
        .say(json!({ "type": "send", "client_msg_id": "other", "text": "More?" }))
        .await;
    there.next_error("busy").await;
    provider.now(Manner::Answer);
    for visitor in [&mut here, &mut there] {
        assert_eq!(visitor.next("done").await["text"], whole("Which?"));
    }
    assert_eq!(provider.requests().len(), asked + 1);
    // It has ended everywhere at once: the other instance takes the next one, and knows what was said before.
    there
        .say(json!({ "type": "send", "client_msg_id": "other", "text": "More?" }))
        .await;
    assert_eq!(there.next("done").await["text"], whole("More?"));
    assert!(
        provider.requests()[asked + 1].contains(&whole("Which?")),
        "the model sees what another instance answered"
    );
    assert_eq!(here.next("done").await["text"], whole("More?"));
}
