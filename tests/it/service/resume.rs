//! Clients that reconnect or join late: they show the whole answer, and nothing twice.

use serde_json::json;

use crate::harness::{
    Act, CutProxy, Gate, Heard, ScriptedProvider, TestApp, WsClient, answer, finish, say, settings,
    spoken, word,
};

/// `count` different words.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("word{n} ")).collect()
}

/// A script that says the words in parts of `part` words, each held back by a gate.
fn in_parts(words: &[String], part: usize, gate: &Gate) -> Vec<Act> {
    let mut script = vec![spoken([])];
    for words in words.chunks(part) {
        script.push(gate.hold());
        script.push(say(&words
            .iter()
            .map(|text| word(text))
            .collect::<String>()));
    }
    script.extend([gate.hold(), say(&finish())]);
    script
}

#[tokio::test]
async fn five_cuts_in_one_answer_leave_it_whole() {
    const CUTS: usize = 5;
    let seed = getrandom::u64().unwrap();
    println!("cuts by seed {seed}");
    let mut state = seed;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let words = numbered(40 * CUTS);
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(in_parts(&words, 40, &gate)).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let proxy = CutProxy::before(app.port).await;
    let mut client = WsClient::hello(proxy.port, &json!({})).await;
    let turn = client.ask("Count!").await;
    client
        .shows(&turn, |shown| !shown.attempts.is_empty())
        .await;
    for cut in 1..=CUTS {
        // A part arrives as one frame or as forty, at least 400 bytes in all, so the cut falls
        // within it. The end of the answer is still behind a gate.
        proxy.cut_after(random(300));
        gate.open();
        while let Heard::Frame(_) = client.hear().await {}
        client.reconnect(proxy.port).await;
        let expected: String = words[..40 * cut].concat();
        client
            .shows(&turn, |shown| shown.text.len() >= expected.len())
            .await;
        assert_eq!(client.page.turn(&turn).text, expected);
    }
    gate.open();
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshots),
        (words.concat().as_str(), 0)
    );
    assert_eq!(alpha.asked(), 1);
    app.at_rest().await;
}

#[tokio::test]
async fn a_cut_in_a_failing_answer_keeps_restart_and_draft() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![
        spoken(["A ", "torn ", "text"]),
        gate.hold(),
        Act::Reset,
    ])
    .await;
    let beta = ScriptedProvider::answering("The whole answer.").await;
    let app = TestApp::of(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .shows(&turn, |shown| shown.text == "A torn text")
        .await;
    let conversation = client.conversation.clone();
    let mut client = {
        let page = client.leave();
        // Another tab joins before the answer continues, so that it sees the end as a frame.
        let mut other = WsClient::join(&app, &conversation).await;
        gate.open();
        other.done(&turn).await;
        let (_, seq) = page.resume().unwrap();
        let resume = json!({ "turn": turn, "seq": seq });
        let mut resumed = WsClient::connect(app.port).await;
        resumed.page = page;
        resumed
            .say_hello(&json!({ "conversation": conversation, "resume": resume }))
            .await;
        resumed
    };
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshots),
        ("The whole answer.", 0)
    );
    assert_eq!(shown.drafts, [("alpha".into(), "A torn text".into())]);
}

#[tokio::test]
async fn clients_that_join_in_mid_answer_get_a_snapshot() {
    let words = numbered(20);
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(in_parts(&words, 10, &gate)).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Count!").await;
    gate.open();
    let half = words[..10].concat();
    let seq = client.shows(&turn, |shown| shown.text == half).await.seq;
    for resume in [
        json!({ "turn": turn, "seq": 0 }),
        json!(null),
        json!({ "turn": turn, "seq": 9999 }),
    ] {
        let hello = json!({ "conversation": client.conversation, "resume": resume });
        let mut late = WsClient::hello(app.port, &hello).await;
        // The history contains the running turn; the text comes with the snapshot.
        let running = late.welcome["history"][0].clone();
        assert_eq!(
            (&running["turn"], &running["state"]),
            (&json!(turn), &json!("running"))
        );
        let snapshot = late.next().await;
        for (key, value) in [
            ("type", json!("snapshot")),
            ("seq", json!(seq)),
            ("attempt", json!(1)),
            ("provider", json!("alpha")),
            ("model", json!("alpha-model")),
            ("text", json!(half)),
            ("drafts", json!([])),
            ("question", json!("Count!")),
        ] {
            assert_eq!(snapshot[key], value, "{key} after {resume}");
        }
        late.quiet().await;
    }
    // A client that is up to date gets the following frames and no snapshot.
    let hello =
        json!({ "conversation": client.conversation, "resume": { "turn": turn, "seq": seq } });
    let mut current = WsClient::connect(app.port).await;
    current.page = std::mem::take(&mut client.page);
    current.say_hello(&hello).await;
    let mut late = WsClient::join(&app, &client.conversation).await;
    gate.open();
    gate.open();
    for (client, snapshots) in [(&mut current, 0), (&mut late, 1)] {
        let shown = client.done(&turn).await;
        assert_eq!(
            (shown.text.as_str(), shown.snapshots),
            (words.concat().as_str(), snapshots)
        );
    }
}

#[tokio::test]
async fn an_ended_turn_is_resumed_from_any_sequence_number() {
    let alpha = ScriptedProvider::start(answer("The whole answer.")).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    let last = client.done(&turn).await.seq;
    let conversation = client.conversation.clone();
    let resumed = async |app: &TestApp, seq: u64| {
        let resume = json!({ "turn": turn, "seq": seq });
        let mut client = WsClient::hello(
            app.port,
            &json!({ "conversation": conversation, "resume": resume }),
        )
        .await;
        let first = client.next().await;
        if first["type"] == "snapshot" {
            client.done(&turn).await;
        }
        (first, client)
    };
    let (first, client) = resumed(&app, 0).await;
    assert_eq!(first["type"], "snapshot");
    assert_eq!(client.page.turn(&turn).text, "The whole answer.");
    // A client that lacks only the end gets the end; one that lacks nothing gets no frame.
    let resume = json!({ "turn": turn, "seq": last - 1 });
    let hello = json!({ "type": "hello", "conversation": conversation, "resume": resume });
    let mut client = WsClient::connect(app.port).await;
    client.page.apply(&json!({
        "type": "snapshot", "turn": turn, "seq": last - 1, "attempt": 1, "text": "The whole answer.", "drafts": [],
    }));
    client.say_hello(&hello).await;
    assert_eq!(client.done(&turn).await.seq, last);
    let resume = json!({ "turn": turn, "seq": last });
    let mut client = WsClient::hello(
        app.port,
        &json!({ "conversation": conversation, "resume": resume }),
    )
    .await;
    client.quiet().await;

    // After a restart the log is gone, and turns are resumed from the store.
    let folder = app.stopped().await;
    let app = TestApp::in_folder(settings(&[("alpha", &alpha)]), folder).await;
    for seq in [0, 2, last - 1] {
        let (first, client) = resumed(&app, seq).await;
        assert_eq!(first["type"], "snapshot", "from {seq}");
        assert!(first["seq"].as_u64() > Some(seq), "{first}");
        let shown = client.page.turn(&turn);
        assert_eq!(
            (shown.text.as_str(), shown.question.as_str()),
            ("The whole answer.", "What?")
        );
    }
    // An unknown turn.
    let unknown = json!({ "turn": "0".repeat(28), "seq": 0 });
    let mut client = WsClient::hello(
        app.port,
        &json!({ "conversation": conversation, "resume": unknown }),
    )
    .await;
    assert_eq!(client.next().await["code"], "not_found");
    client.quiet().await;
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn a_turn_continues_without_followers() {
    let words = numbered(20);
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(in_parts(&words, 10, &gate)).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Count!").await;
    gate.open();
    client
        .shows(&turn, |shown| shown.text == words[..10].concat())
        .await;
    let conversation = client.conversation.clone();
    let page = client.leave();
    gate.open();
    gate.open();
    // The turn ends without any follower.
    app.at_rest().await;
    assert_eq!(alpha.counts().left, 0);
    let (_, seq) = page.resume().unwrap();
    let mut client = WsClient::connect(app.port).await;
    client.page = page;
    let resume = json!({ "turn": turn, "seq": seq });
    client
        .say_hello(&json!({ "conversation": conversation, "resume": resume }))
        .await;
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshots),
        (words.concat().as_str(), 0)
    );
}

#[tokio::test]
async fn an_interrupted_turn_is_shown_and_retried_after_a_restart() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![spoken(["A ", "beginning"]), gate.hold()]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    let folder = app.stopped().await;
    // The drain was too short: the interruption is sent before the close, and stored.
    assert_eq!(
        client.done(&turn).await.done.as_ref().unwrap()["finish"],
        "interrupted"
    );
    assert_eq!(client.closed().await, Some(1001));

    alpha.usually(answer("The whole answer."));
    let app = TestApp::in_folder(settings(&[("alpha", &alpha)]), folder).await;
    let mut client = WsClient::join(&app, &client.conversation).await;
    let stored = client.welcome["history"][0].clone();
    assert_eq!(
        (&stored["state"], &stored["finish"]),
        (&json!("interrupted"), &json!("interrupted"))
    );
    assert_eq!(stored["text"], "A beginning");
    client
        .say(&json!({ "type": "retry", "turn": turn, "client_msg_id": "again" }))
        .await;
    let accepted = client.next().await;
    let again = accepted["turn"]
        .as_str()
        .expect("the retry was not accepted")
        .to_owned();
    assert_eq!(client.done(&again).await.text, "The whole answer.");
}
