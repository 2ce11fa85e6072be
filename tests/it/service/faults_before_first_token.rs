//! A provider fails before its first token: the next one answers, and clients see only `attempt`
//! frames of the failure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer, last_http_chunk,
    partial_answer, send_text, sse_event, stream_head, test_settings,
};

const WHOLE: &str = "The whole answer of the second provider.";

/// A provider's faulty behaviour and the expected outcome.
struct Case {
    script: Vec<ScriptStep>,
    reason: &'static str,
    /// The number of calls to the provider in the turn.
    asked: usize,
    /// The state of its breaker after one turn.
    state: &'static str,
}

/// A fault that is not retried at the same provider.
fn once(script: Vec<ScriptStep>, reason: &'static str) -> Case {
    Case {
        script,
        reason,
        asked: 1,
        state: "closed",
    }
}

/// A transient fault, retried once at the same provider.
fn twice(script: Vec<ScriptStep>, reason: &'static str) -> Case {
    Case {
        asked: 2,
        ..once(script, reason)
    }
}

fn json_error(status: u16, headers: &str, body: &Value) -> Vec<ScriptStep> {
    let headers = format!("content-type: application/json\r\n{headers}");
    vec![error_response(
        status,
        &headers,
        &json!({ "error": body }).to_string(),
    )]
}

/// An event stream that ends cleanly after these events.
fn streamed(events: &[&str]) -> Vec<ScriptStep> {
    let events: String = events.iter().map(|data| sse_event(data)).collect();
    vec![send_text(&(stream_head() + &events + &last_http_chunk()))]
}

async fn assert_next_answers(case: Case) {
    let alpha = ScriptedProvider::start(case.script).await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let mut settings = test_settings(&[("alpha", &alpha), ("beta", &beta)]);
    let timeouts = &mut settings.providers[0].timeouts;
    timeouts.first_token = vec![Duration::from_millis(300)];
    timeouts.stall = Duration::from_millis(300);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;

    assert_eq!(shown.text, WHOLE, "{:?}", shown.done);
    assert_eq!((shown.restarts.len(), shown.drafts.len()), (0, 0));
    let mut path = vec![("alpha".to_owned(), String::new())];
    path.extend((1..case.asked).map(|_| ("alpha".to_owned(), case.reason.to_owned())));
    path.push(("beta".to_owned(), case.reason.to_owned()));
    assert_eq!(shown.provider_path(), path);
    for attempt in &shown.attempts[1..] {
        assert_eq!(attempt["after"]["provider"], "alpha");
    }
    let mut outcomes = vec![case.reason; case.asked];
    outcomes.push("ok");
    assert_eq!(shown.outcomes(), outcomes);
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["source"], &done["provider"], &done["finish"]),
        (&json!("ai"), &json!("beta"), &json!("stop"))
    );
    client.assert_no_pending_frame().await;

    assert_eq!(
        (alpha.question_count(), beta.question_count()),
        (case.asked, 1)
    );
    app.wait_until_idle().await;
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (&provider_status["state"], &provider_status["reason"]),
        (&json!(case.state), &json!(case.reason))
    );
    let counts = json!({ "success": 0, "failure": case.asked, "restarts": 0 });
    assert_eq!(
        (&provider_status["counts"], &provider_status["in_flight"]),
        (&counts, &json!(0))
    );
    assert_eq!(app.provider_status("beta").await["counts"]["success"], 1);
    alpha.wait_for(|counts| counts.in_flight == 0).await;
}

macro_rules! cases {
    ($($name:ident: $case:expr,)+) => {$(
        #[tokio::test]
        async fn $name() {
            assert_next_answers($case).await;
        }
    )+};
}

cases! {
    reset: twice(vec![ScriptStep::Reset], "reset"),
    closed_without_a_response: twice(vec![ScriptStep::Close], "reset"),
    reset_after_the_response_head: twice(vec![send_text(&stream_head()), ScriptStep::Reset], "reset"),
    empty_stream: once(streamed(&[]), "malformed"),
    stream_end_without_end_mark: once(
        streamed(&[r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#]),
        "truncated"
    ),
    error_event: twice(
        streamed(&[r#"{"error":{"message":"The server had an error","type":"server_error"}}"#]),
        "server_error"
    ),
    overloaded_event: once(
        streamed(&[r#"{"error":{"message":"Overloaded","type":"overloaded_error"}}"#]),
        "overloaded"
    ),
    garbage: once(streamed(&[r#"{"choices": [{"del"#]), "malformed"),
    not_http: once(vec![send_text("220 mail.example.com ESMTP\r\n"), ScriptStep::Close], "malformed"),
    silence: once(vec![ScriptStep::Hang], "timeout"),
    silence_after_the_response_head: once(vec![send_text(&stream_head()), ScriptStep::Hang], "timeout"),
    keep_alives_for_ever: once(
        vec![send_text(&stream_head()), ScriptStep::Repeat(Duration::from_millis(20), b"e\r\n: keep-alive\n\n\r\n".to_vec())],
        "timeout"
    ),
    empty_deltas_for_ever: once(
        vec![
            send_text(&stream_head()),
            ScriptStep::Repeat(
                Duration::from_millis(20),
                sse_event(r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#).into_bytes(),
            ),
        ],
        "timeout"
    ),
    slow_bytes_of_an_endless_event: once(
        vec![send_text(&(stream_head() + "5\r\ndata:\r\n")), ScriptStep::Repeat(Duration::from_millis(20), b"1\r\nx\r\n".to_vec())],
        "timeout"
    ),
    status_500: twice(json_error(500, "", &json!({ "message": "oops", "type": "server_error" })), "server_error"),
    status_502_with_html: twice(
        vec![error_response(502, "content-type: text/html\r\n", "<html>Bad Gateway</html>")],
        "server_error"
    ),
    status_504: twice(vec![error_response(504, "", "")], "server_error"),
    status_529: once(json_error(529, "", &json!({ "message": "Overloaded" })), "overloaded"),
    status_503: once(json_error(503, "", &json!({ "message": "busy" })), "overloaded"),
    status_404: once(
        json_error(404, "", &json!({ "message": "no such model", "code": "model_not_found" })),
        "refused"
    ),
    status_429_without_retry_after: once(
        json_error(429, "", &json!({ "message": "slow down", "type": "rate_limit" })),
        "rate_limited"
    ),
    status_401: Case {
        state: "blocked",
        ..once(json_error(401, "", &json!({ "message": "bad key", "code": "invalid_api_key" })), "refused")
    },
    status_402: Case {
        state: "blocked",
        ..once(json_error(402, "", &json!({ "message": "Payment required" })), "refused")
    },
    status_403: Case {
        state: "blocked",
        ..once(json_error(403, "", &json!({ "message": "not yours", "type": "permission_error" })), "refused")
    },
    status_429_with_spent_quota: Case {
        state: "blocked",
        ..once(json_error(429, "", &json!({ "message": "pay", "code": "insufficient_quota" })), "refused")
    },
    redirect: once(vec![error_response(307, "location: http://127.0.0.1:9/\r\n", "")], "refused"),
    html_with_status_200: once(
        vec![error_response(200, "content-type: text/html\r\n", "<!doctype html><p>Please log in")],
        "malformed"
    ),
    error_body_with_status_200: twice(
        json_error(200, "", &json!({ "message": "oops", "type": "server_error" })),
        "server_error"
    ),
    end_mark_without_text: once(streamed(&["[DONE]"]), "malformed"),
    finish_without_text: once(
        streamed(&[r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, "[DONE]"]),
        "malformed"
    ),
}

#[tokio::test]
async fn refused_connection() {
    let alpha = ScriptedProvider::start(vec![]).await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    alpha.stop_listening().await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!(shown.text, WHOLE);
    assert_eq!(
        shown.provider_path(),
        [
            ("alpha".into(), "".into()),
            ("beta".into(), "refused".into())
        ]
    );
    assert_eq!(app.provider_status("alpha").await["counts"]["failure"], 1);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_transient_fault_is_retried_once_at_the_same_provider() {
    for fault in [
        vec![ScriptStep::Reset],
        json_error(500, "", &json!({ "message": "oops" })),
    ] {
        let alpha = ScriptedProvider::answering("It passed.").await;
        alpha.script_next(fault);
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
        let mut client = WsClient::open(&app).await;
        assert_eq!(client.ask_and_wait("What?").await.text, "It passed.");
        assert_eq!((alpha.question_count(), beta.question_count()), (2, 0));
    }
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for() {
    let alpha = ScriptedProvider::answering("I have time now.").await;
    alpha.script_next(json_error(
        429,
        "retry-after-ms: 400\r\n",
        &json!({ "message": "slow down" }),
    ));
    let beta = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!(shown.text, "I have time now.");
    assert_eq!(
        shown.provider_path()[1],
        ("alpha".into(), "rate_limited".into())
    );
    let [(first, _), (second, _)] = &alpha.requests()[..] else {
        panic!("alpha was not called twice")
    };
    assert!(
        *second - *first >= Duration::from_millis(400),
        "asked again after {:?}",
        *second - *first
    );
    assert_eq!(beta.question_count(), 0);
}

#[tokio::test]
async fn a_long_retry_after_skips_the_provider_until_it_has_passed() {
    let limited = json_error(
        429,
        "retry-after: 30\r\n",
        &json!({ "message": "slow down" }),
    );
    let alpha = ScriptedProvider::start(limited).await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    for attempts in [2, 1] {
        let shown = client.ask_and_wait("What?").await;
        assert_eq!(
            (shown.text.as_str(), shown.attempts.len()),
            (WHOLE, attempts)
        );
    }
    assert_eq!(alpha.question_count(), 1);
    // The breaker stays closed; the status says when the provider may be called again.
    let provider_status = app.provider_status("alpha").await;
    assert_eq!(
        (&provider_status["state"], &provider_status["reason"]),
        (&json!("closed"), &json!("rate_limited"))
    );
    assert!(provider_status["retry_at"].is_string(), "{provider_status}");
}

#[tokio::test]
async fn a_rejected_key_is_not_retried() {
    let alpha = ScriptedProvider::start(json_error(
        401,
        "",
        &json!({ "message": "bad key sk-canary-key" }),
    ))
    .await;
    let beta = ScriptedProvider::answering(WHOLE).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    let mut client = WsClient::open(&app).await;
    for attempts in [2, 1, 1] {
        assert_eq!(client.ask_and_wait("What?").await.attempts.len(), attempts);
    }
    assert_eq!((alpha.question_count(), alpha.counts().probes), (1, 0));
    let status = app.status().await.to_string();
    assert!(
        !status.contains("sk-canary") && !status.contains("bad key"),
        "{status}"
    );
}

#[tokio::test]
async fn slow_tokens_within_the_stall_limit_are_not_a_fault() {
    let alpha = ScriptedProvider::start(vec![]).await;
    let mut script = vec![send_text(&stream_head())];
    // The words come 100 ms apart, within the stall limit of 300 ms.
    let gate = crate::harness::ScriptGate::default();
    for word in ["Slow ", "but ", "steady ", "words."] {
        script.extend([
            gate.wait_step(),
            send_text(&crate::harness::token_event(word)),
        ]);
    }
    script.push(send_text(&crate::harness::stream_end()));
    alpha.script_default(script);
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.providers[0].timeouts.stall = Duration::from_millis(300);
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let turn = client.ask("What?").await;
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..4 {
        beat.tick().await;
        gate.let_one_through();
    }
    let shown = client.wait_for_done(&turn).await;
    assert_eq!(
        (shown.text.as_str(), shown.attempts.len()),
        ("Slow but steady words.", 1)
    );
}

#[tokio::test]
async fn a_turn_makes_at_most_four_attempts_and_tries_each_provider_first() {
    let broken = || json_error(500, "", &json!({ "message": "oops" }));
    let [alpha, beta, gamma] = [broken(), broken(), broken()].map(ScriptedProvider::start);
    let (alpha, beta, gamma) = (alpha.await, beta.await, gamma.await);
    let delta = ScriptedProvider::start(full_answer(WHOLE)).await;
    let app = TestApp::with_providers(&[
        ("alpha", &alpha),
        ("beta", &beta),
        ("gamma", &gamma),
        ("delta", &delta),
    ])
    .await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!((shown.text.as_str(), shown.attempts.len()), (WHOLE, 4));
    assert_eq!(
        [
            alpha.question_count(),
            beta.question_count(),
            gamma.question_count(),
            delta.question_count()
        ],
        [1, 1, 1, 1]
    );
    // A single provider is retried once.
    let alone = ScriptedProvider::start(vec![partial_answer([]), ScriptStep::Reset]).await;
    let app = TestApp::with_providers(&[("alone", &alone)]).await;
    let mut client = WsClient::open(&app).await;
    let shown = client.ask_and_wait("What?").await;
    assert_eq!((alone.question_count(), shown.attempts.len()), (2, 2));
    assert_eq!(shown.done.as_ref().unwrap()["degraded"], true);
}
