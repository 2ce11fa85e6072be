//! A page comes back, or comes late: it shows the whole answer, and nothing twice.

use serde_json::json;

use crate::harness::{
    Act, CutProxy, Gate, Heard, ScriptedProvider, TestApp, WsClient, answer, finish, say, settings,
    spoken, word,
};

/// A text of so many numbered words, all unlike.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("word{n} ")).collect()
}

/// These words with a gate before each part of them.
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
async fn five_cuts_in_one_answer_leave_no_trace() {
    const CUTS: usize = 5;
    let seed = getrandom::u64().unwrap();
    println!("cuts by seed {seed}");
    let mut chance = seed;
    let mut random = move |below: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % below
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
        // A part is one frame or forty: about 400 bytes at least. The end of the answer is still behind a gate.
        proxy.cut_after(random(300));
        gate.open();
        while let Heard::Frame(_) = client.hear().await {}
        client.reconnect(proxy.port).await;
        let told: String = words[..40 * cut].concat();
        client
            .shows(&turn, |shown| shown.text.len() >= told.len())
            .await;
        assert_eq!(client.page.turn(&turn).text, told);
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
        // Another tab is there before the answer goes on, or it would wait for an end that came before it.
        let mut other = WsClient::join(&app, &conversation).await;
        gate.open();
        other.done(&turn).await;
        let (_, seq) = page.resume().unwrap();
        let resume = json!({ "turn": turn, "seq": seq });
        let mut again = WsClient::connect(app.port).await;
        again.page = page;
        again
            .say_hello(&json!({ "conversation": conversation, "resume": resume }))
            .await;
        again
    };
    let shown = client.done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshots),
        ("The whole answer.", 0)
    );
    assert_eq!(shown.drafts, [("alpha".into(), "A torn text".into())]);
}

#[tokio::test]
async fn who_stands_at_nothing_or_comes_in_the_middle_gets_a_snapshot() {
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
        // The history has the turn as it runs; the snapshot is what the page shows.
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
    // One who has it all gets what follows, and no snapshot.
    let hello =
        json!({ "conversation": client.conversation, "resume": { "turn": turn, "seq": seq } });
    let mut level = WsClient::connect(app.port).await;
    level.page = std::mem::take(&mut client.page);
    level.say_hello(&hello).await;
    let mut late = WsClient::join(&app, &client.conversation).await;
    gate.open();
    gate.open();
    for (client, snapshots) in [(&mut level, 0), (&mut late, 1)] {
        let shown = client.done(&turn).await;
        assert_eq!(
            (shown.text.as_str(), shown.snapshots),
            (words.concat().as_str(), snapshots)
        );
    }
}

#[tokio::test]
async fn an_ended_turn_is_resumed_from_wherever_the_page_stands() {
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
    // Who has all but the end gets the end; who has all gets nothing.
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

    // From the store, when the log is gone.
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
    // One that never was.
    let never = json!({ "turn": "0".repeat(28), "seq": 0 });
    let mut client = WsClient::hello(
        app.port,
        &json!({ "conversation": conversation, "resume": never }),
    )
    .await;
    assert_eq!(client.next().await["code"], "not_found");
    client.quiet().await;
    assert_eq!(alpha.asked(), 1);
}

#[tokio::test]
async fn a_turn_goes_on_while_nobody_is_there() {
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
    // It ends with nobody following.
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
async fn a_turn_is_resumed_after_the_service_came_back() {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![spoken(["A ", "beginning"]), gate.hold()]).await;
    let app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .shows(&turn, |shown| shown.text == "A beginning")
        .await;
    let folder = app.stopped().await;
    // The drain was too short: it is told before the close, and kept.
    assert_eq!(
        client.done(&turn).await.done.as_ref().unwrap()["finish"],
        "interrupted"
    );
    assert_eq!(client.closed().await, Some(1001));

    alpha.usually(answer("The whole answer."));
    let app = TestApp::in_folder(settings(&[("alpha", &alpha)]), folder).await;
    let mut client = WsClient::join(&app, &client.conversation).await;
    let kept = client.welcome["history"][0].clone();
    assert_eq!(
        (&kept["state"], &kept["finish"]),
        (&json!("interrupted"), &json!("interrupted"))
    );
    assert_eq!(kept["text"], "A beginning");
    client
        .say(&json!({ "type": "retry", "turn": turn, "client_msg_id": "again" }))
        .await;
    let accepted = client.next().await;
    let again = accepted["turn"].as_str().expect("not accepted").to_owned();
    assert_eq!(client.done(&again).await.text, "The whole answer.");
}
