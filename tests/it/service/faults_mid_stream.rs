//! A provider fails after twenty tokens: the shown text becomes a draft, and the next one answers.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, full_answer, last_http_chunk,
    partial_answer, send_text, sse_event, stream_end, stream_head, test_settings, token_event,
};

const WHOLE: &str = "The whole answer of the second provider.";

const PAUSE: Duration = Duration::from_millis(20);

fn twenty() -> Vec<String> {
    (1..=20).map(|n| format!("{n}, ")).collect()
}

/// Breaks alpha with `fault` once twenty words are shown, and checks beta's answer.
async fn assert_next_answers(fault: Vec<ScriptStep>, reason: &str) {
    let gate = ScriptGate::default();
    let words = twenty();
    let mut script = vec![
        partial_answer(words.iter().map(String::as_str)),
        gate.wait_step(),
    ];
    script.extend(fault);
    let alpha = ScriptedProvider::start(script).await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[0].timeouts.stall = Duration::from_millis(300);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Count!").await;
    let shown_text = words.concat();
    client
        .wait_for_turn(&turn, |shown| shown.text == shown_text)
        .await;
    gate.let_one_through();
    let broken = Instant::now();
    let shown = client.wait_for_done(&turn).await;

    // A stall is noticed after its own limit, not after the longer one for first tokens.
    assert!(
        broken.elapsed() < Duration::from_secs(3),
        "the answer ended after {:?}",
        broken.elapsed()
    );
    assert_eq!(shown.text, WHOLE);
    assert_eq!(
        shown.provider_path(),
        [("alpha".into(), "".into()), ("beta".into(), reason.into())]
    );
    assert_eq!(shown.drafts, [("alpha".to_owned(), shown_text.clone())]);
    let [restart] = &shown.restarts[..] else {
        panic!("{} restarts", shown.restarts.len())
    };
    for (key, value) in [
        ("attempt", json!(2)),
        ("from", json!("alpha")),
        ("to", json!("beta")),
        ("reason", json!(reason)),
    ] {
        assert_eq!(restart[key], value, "{key}");
    }
    assert_eq!(shown.outcomes(), [reason, "ok"]);
    let done = shown.done.as_ref().unwrap();
    let drafts = json!([{ "attempt": 1, "provider": "alpha", "text": shown_text }]);
    assert_eq!(done["drafts"], drafts);
    assert_eq!(
        (&done["source"], &done["provider"]),
        (&json!("ai"), &json!("beta"))
    );
    client.assert_no_pending_frame().await;

    // A provider whose text was shown is not retried.
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    app.wait_until_idle().await;
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        provider_status["counts"],
        json!({ "success": 0, "failure": 1, "restarts": 1 })
    );
    alpha.wait_for(|counts| counts.in_flight == 0).await;
    // The draft is stored with the turn.
    let client = WsClient::join(&app, &client.conversation).await;
    let stored = &client.welcome["history"][0];
    assert_eq!(
        (&stored["text"], &stored["drafts"]),
        (&json!(WHOLE), &drafts)
    );
}

macro_rules! cases {
    ($($name:ident: $reason:literal, $fault:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            assert_next_answers($fault, $reason).await;
        }
    )+};
}

cases! {
    reset: "reset", vec![ScriptStep::Reset];
    connection_closed_without_the_last_chunk: "reset", vec![ScriptStep::Close];
    connection_closed_within_a_chunk: "reset", vec![send_text("40\r\ndata: {\"choices\""), ScriptStep::Close];
    stream_end_without_end_mark: "truncated", vec![send_text(&last_http_chunk())];
    stream_end_within_an_event: "malformed", vec![send_text(&(chunked("data: {\"cho") + &last_http_chunk()))];
    error_event: "server_error",
        vec![send_text(&sse_event(r#"{"error":{"message":"The server had an error","type":"server_error"}}"#))];
    overloaded_event: "overloaded",
        vec![send_text(&sse_event(r#"{"error":{"message":"Overloaded","type":"overloaded_error"}}"#))];
    rate_limit_event: "rate_limited",
        vec![send_text(&sse_event(r#"{"error":{"message":"Slow down","code":"rate_limit_exceeded"}}"#))];
    garbage: "malformed", vec![send_text(&sse_event(r#"{"choices": [{"del"#))];
    invalid_chunks: "malformed", vec![send_text("this is no chunk\r\n")];
    finish_reason_error: "server_error",
        vec![send_text(&sse_event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#))];
    silence: "stalled", vec![ScriptStep::Hang];
    keep_alives_for_ever: "stalled", vec![ScriptStep::Repeat(PAUSE, chunked(": keep-alive\n\n").into_bytes())];
    empty_deltas_for_ever: "stalled", vec![ScriptStep::Repeat(
        PAUSE,
        sse_event(r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#).into_bytes(),
    )];
    slow_bytes_of_an_endless_event: "stalled",
        vec![send_text(&chunked("data:")), ScriptStep::Repeat(PAUSE, chunked("x").into_bytes())];
}

fn chunked(text: &str) -> String {
    crate::harness::http_chunk(text)
}

/// Alpha says `first` and breaks; beta says `second`. Returns the client and the turn's id.
async fn merge_texts(first: &str, second: &str) -> (WsClient, String) {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(first.split_inclusive(' ')),
        gate.wait_step(),
        ScriptStep::Reset,
    ]);
    let alpha = alpha.await;
    let beta = ScriptedProvider::answering(second).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == first)
        .await;
    gate.let_one_through();
    assert_eq!(client.wait_for_done(&turn).await.text, second);
    client.assert_no_pending_frame().await;
    app.wait_until_idle().await;
    (client, turn)
}

#[tokio::test]
async fn a_second_text_with_the_same_beginning_continues_without_a_restart() {
    for second in [
        "One, two, three and four.",
        "One, two, three",
        "One, two, thr\u{e9}e and a half",
    ] {
        let (client, turn) = merge_texts("One, two, thr", second).await;
        let shown = client.page.turn(&turn);
        assert_eq!(
            (shown.restarts.len(), shown.drafts.len()),
            (0, 0),
            "{second}"
        );
        assert_eq!(shown.done.as_ref().unwrap()["provider"], "beta");
    }
}

#[tokio::test]
async fn a_second_text_equal_to_the_shown_one_causes_no_restart() {
    let (client, turn) = merge_texts("One, two, three.", "One, two, three.").await;
    let shown = client.page.turn(&turn);
    assert_eq!(
        (
            shown.restarts.len(),
            shown.drafts.len(),
            shown.attempts.len()
        ),
        (0, 0, 2)
    );
}

#[tokio::test]
async fn a_second_text_that_differs_or_is_shorter_causes_a_restart() {
    for second in ["One, two, free!", "One, two.", "One"] {
        let (client, turn) = merge_texts("One, two, three", second).await;
        let shown = client.page.turn(&turn);
        assert_eq!(
            shown.drafts,
            [("alpha".into(), "One, two, three".into())],
            "{second}"
        );
        assert_eq!(
            (&shown.restarts[0]["to"], &shown.restarts[0]["reason"]),
            (&json!("beta"), &json!("reset"))
        );
    }
}

#[tokio::test]
async fn without_another_provider_a_fallback_follows_and_the_draft_is_kept() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["A ", "torn ", "text"]),
        gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let beta = ScriptedProvider::start(vec![partial_answer([]), ScriptStep::Hang]).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    settings.providers[1].timeouts.first_token = vec![Duration::from_millis(300)];
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("Xyzzy?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "A torn text")
        .await;
    gate.let_one_through();
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(shown.text, "Later, please.");
    assert_eq!(shown.drafts, [("alpha".into(), "A torn text".into())]);
    let [restart] = &shown.restarts[..] else {
        panic!("{} restarts", shown.restarts.len())
    };
    for (key, value) in [
        ("attempt", json!(0)),
        ("from", json!("alpha")),
        ("to", json!(null)),
        ("reason", json!("reset")),
    ] {
        assert_eq!(restart[key], value, "{key}");
    }
    let done = shown.done.as_ref().unwrap();
    for (key, value) in [
        ("source", json!("fallback")),
        ("degraded", json!(true)),
        ("provider", json!(null)),
        ("model", json!(null)),
        ("attempts", json!(2)),
        ("finish", json!("stop")),
    ] {
        assert_eq!(done[key], value, "{key}");
    }
    assert_eq!(shown.outcomes(), ["reset", "timeout"]);
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
    app.wait_until_idle().await;
}

#[tokio::test]
async fn two_mid_stream_failures_leave_two_drafts() {
    let first_gate = ScriptGate::default();
    let second_gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer(["First ", "try"]),
        first_gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let beta = ScriptedProvider::start(vec![
        partial_answer(["Second ", "try"]),
        second_gate.wait_step(),
        send_text(&last_http_chunk()),
    ])
    .await;
    let gamma = ScriptedProvider::start(full_answer("Third time lucky.")).await;
    let app =
        TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta), ("gamma", &gamma)]).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    client
        .wait_for_turn(&turn, |shown| shown.text == "First try")
        .await;
    first_gate.let_one_through();
    client
        .wait_for_turn(&turn, |shown| shown.text == "Second try")
        .await;
    second_gate.let_one_through();
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(shown.text, "Third time lucky.");
    let drafts = [
        ("alpha".into(), "First try".into()),
        ("beta".into(), "Second try".into()),
    ];
    assert_eq!(shown.drafts, drafts);
    let reasons: Vec<_> = shown
        .restarts
        .iter()
        .map(|frame| frame["reason"].clone())
        .collect();
    assert_eq!(reasons, ["reset", "truncated"]);
}

#[tokio::test]
async fn unusual_but_complete_streams_are_accepted() {
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let text = stream_head() + &token_event("All ") + &token_event("is well.");
    for odd in [
        // Only one of finish and end mark.
        text.clone() + &sse_event(end) + &last_http_chunk(),
        text.clone() + &sse_event("[DONE]") + &last_http_chunk(),
        // A second end mark, or text after the end mark.
        text.clone()
            + &sse_event(end)
            + &sse_event("[DONE]")
            + &sse_event("[DONE]")
            + &last_http_chunk(),
        text.clone()
            + &sse_event(end)
            + &sse_event("[DONE]")
            + &token_event("No more!")
            + &last_http_chunk(),
        // Events without content.
        text.clone()
            + &sse_event(r#"{"choices":[],"x":null}"#)
            + &sse_event(r#"{"choices":[{"delta":null}]}"#)
            + &stream_end(),
        // The connection breaks after the end mark.
        text.clone() + &sse_event(end) + &sse_event("[DONE]"),
    ] {
        let alpha = ScriptedProvider::start(vec![send_text(&odd), ScriptStep::Close]).await;
        let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
        let mut client = WsClient::open(&app).await;
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(
            (shown.text.as_str(), shown.attempts.len()),
            ("All is well.", 1),
            "{odd}"
        );
        assert_eq!(shown.done.as_ref().unwrap()["source"], "ai");
        client.assert_no_pending_frame().await;
    }
}
