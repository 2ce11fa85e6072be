//! Clients that reconnect or join late: they show the whole answer, and nothing twice.

use serde_json::json;

use crate::harness::{
    ClientEvent, CuttingProxy, ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient,
    full_answer, partial_answer, send_text, stream_end, test_settings, token_event,
};

/// `count` different words.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("word{n} ")).collect()
}

/// A script that says the words in parts of `part` words, each held back by a gate.
fn in_parts(words: &[String], part: usize, gate: &ScriptGate) -> Vec<ScriptStep> {
    let mut script = vec![partial_answer([])];
    for words in words.chunks(part) {
        script.push(gate.wait_step());
        script.push(send_text(
            &words
                .iter()
                .map(|text| token_event(text))
                .collect::<String>(),
        ));
    }
    script.extend([gate.wait_step(), send_text(&stream_end())]);
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
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(in_parts(&words, 40, &gate)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let proxy = CuttingProxy::in_front_of(app.port).await;
    let mut client = WsClient::connect_with_hello(proxy.port, &json!({})).await;
    let turn = client.ask("Count!").await;
    client
        .wait_for_turn(&turn, |shown| !shown.attempts.is_empty())
        .await;
    for cut in 1..=CUTS {
        // A part arrives as one frame or as forty, at least 400 bytes in all, so the cut falls
        // within it. The end of the answer is still behind a gate.
        proxy.cut_after(random(300));
        gate.let_one_through();
        while let ClientEvent::Frame(_) = client.next_event().await {}
        client.reconnect(proxy.port).await;
        let expected: String = words[..40 * cut].concat();
        client
            .wait_for_turn(&turn, |shown| shown.text.len() >= expected.len())
            .await;
        assert_eq!(client.page.turn(&turn).text, expected);
    }
    gate.let_one_through();
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshot_frames),
        (words.concat().as_str(), 0)
    );
    assert_eq!(alpha.question_count(), 1);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_cut_in_a_failing_answer_keeps_restart_and_draft() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["A ", "torn ", "text"]),
        gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let beta = ScriptedProvider::answering("The whole answer.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A torn text")
        .await;
    let conversation = client.conversation.clone();
    let mut client = {
        let page = client.disconnect();
        // Another tab joins before the answer continues, so that it sees the end as a frame.
        let mut other = WsClient::join(&app, &conversation).await;
        gate.let_one_through();
        other.wait_for_done(&turn).await;
        let (_, seq) = page.resume_point().unwrap();
        let resume = json!({ "turn": turn, "seq": seq });
        let mut resumed = WsClient::connect(app.port).await;
        resumed.page = page;
        resumed
            .send_hello(&json!({ "conversation": conversation, "resume": resume }))
            .await;
        resumed
    };
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshot_frames),
        ("The whole answer.", 0)
    );
    assert_eq!(shown.drafts, [("alpha".into(), "A torn text".into())]);
}

#[tokio::test]
async fn clients_that_join_in_mid_answer_get_a_snapshot() {
    let words = numbered(20);
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(in_parts(&words, 10, &gate)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Count!").await;
    gate.let_one_through();
    let half = words[..10].concat();
    let seq = client
        .wait_for_turn(&turn, |shown| shown.text == half)
        .await
        .last_seq;
    for resume in [
        json!({ "turn": turn, "seq": 0 }),
        json!(null),
        json!({ "turn": turn, "seq": 9999 }),
    ] {
        let hello = json!({ "conversation": client.conversation, "resume": resume });
        let mut late = WsClient::connect_with_hello(app.port, &hello).await;
        // The history contains the running turn; the text comes with the snapshot.
        let running = late.welcome["history"][0].clone();
        assert_eq!(
            (&running["turn"], &running["state"]),
            (&json!(turn), &json!("running"))
        );
        let snapshot = late.next_frame().await;
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
        late.assert_no_pending_frame().await;
    }
    // A client that is up to date gets the following frames and no snapshot.
    let hello =
        json!({ "conversation": client.conversation, "resume": { "turn": turn, "seq": seq } });
    let mut current = WsClient::connect(app.port).await;
    current.page = std::mem::take(&mut client.page);
    current.send_hello(&hello).await;
    let mut late = WsClient::join(&app, &client.conversation).await;
    gate.let_one_through();
    gate.let_one_through();
    for (client, snapshots) in [(&mut current, 0), (&mut late, 1)] {
        let shown = client.wait_for_done(&turn).await;
        assert_eq!(
            (shown.text.as_str(), shown.snapshot_frames),
            (words.concat().as_str(), snapshots)
        );
    }
}

#[tokio::test]
async fn an_ended_turn_is_resumed_from_any_sequence_number() {
    let alpha = ScriptedProvider::start(full_answer("The whole answer.")).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    let last = client.wait_for_done(&turn).await.last_seq;
    let conversation = client.conversation.clone();
    let resumed = async |app: &TestApp, seq: u64| {
        let resume = json!({ "turn": turn, "seq": seq });
        let mut client = WsClient::connect_with_hello(
            app.port,
            &json!({ "conversation": conversation, "resume": resume }),
        )
        .await;
        let first = client.next_frame().await;
        if first["type"] == "snapshot" {
            client.wait_for_done(&turn).await;
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
    client.page.apply_frame(&json!({
        "type": "snapshot", "turn": turn, "seq": last - 1, "attempt": 1, "text": "The whole answer.", "drafts": [],
    }));
    client.send_hello(&hello).await;
    assert_eq!(client.wait_for_done(&turn).await.last_seq, last);
    let resume = json!({ "turn": turn, "seq": last });
    let mut client = WsClient::connect_with_hello(
        app.port,
        &json!({ "conversation": conversation, "resume": resume }),
    )
    .await;
    client.assert_no_pending_frame().await;

    // After a restart the log is gone, and turns are resumed from the store.
    let folder = app.shut_down().await;
    let app = TestApp::start_in(test_settings(&[("alpha", &alpha)]), folder).await;
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
    let mut client = WsClient::connect_with_hello(
        app.port,
        &json!({ "conversation": conversation, "resume": unknown }),
    )
    .await;
    assert_eq!(client.next_frame().await["code"], "not_found");
    client.assert_no_pending_frame().await;
    assert_eq!(alpha.question_count(), 1);
}

#[tokio::test]
async fn a_turn_continues_without_followers() {
    let words = numbered(20);
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(in_parts(&words, 10, &gate)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Count!").await;
    gate.let_one_through();
    client
        .wait_for_turn(&turn, |shown| shown.text == words[..10].concat())
        .await;
    let conversation = client.conversation.clone();
    let page = client.disconnect();
    gate.let_one_through();
    gate.let_one_through();
    // The turn ends without any follower.
    app.wait_until_idle().await;
    assert_eq!(alpha.counts().client_disconnects, 0);
    let (_, seq) = page.resume_point().unwrap();
    let mut client = WsClient::connect(app.port).await;
    client.page = page;
    let resume = json!({ "turn": turn, "seq": seq });
    client
        .send_hello(&json!({ "conversation": conversation, "resume": resume }))
        .await;
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.snapshot_frames),
        (words.concat().as_str(), 0)
    );
}

#[tokio::test]
async fn an_interrupted_turn_is_shown_and_retried_after_a_restart() {
    let gate = ScriptGate::default();
    let alpha =
        ScriptedProvider::start(vec![partial_answer(["A ", "beginning"]), gate.wait_step()]).await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A beginning")
        .await;
    let folder = app.shut_down().await;
    // The drain was too short: the interruption is sent before the close, and stored.
    assert_eq!(
        client.wait_for_done(&turn).await.done.as_ref().unwrap()["finish"],
        "interrupted"
    );
    assert_eq!(client.wait_for_close().await, Some(1001));

    alpha.script_default(full_answer("The whole answer."));
    let app = TestApp::start_in(test_settings(&[("alpha", &alpha)]), folder).await;
    let mut client = WsClient::join(&app, &client.conversation).await;
    let stored = client.welcome["history"][0].clone();
    assert_eq!(
        (&stored["state"], &stored["finish"]),
        (&json!("interrupted"), &json!("interrupted"))
    );
    assert_eq!(stored["text"], "A beginning");
    client
        .send_frame(&json!({ "type": "retry", "turn": turn, "client_msg_id": "again" }))
        .await;
    let accepted = client.next_frame().await;
    let again = accepted["turn"]
        .as_str()
        .expect("the retry was not accepted")
        .to_owned();
    assert_eq!(client.wait_for_done(&again).await.text, "The whole answer.");
}
