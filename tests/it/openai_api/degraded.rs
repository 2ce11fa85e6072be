//! No provider answers: callers get a marked degraded answer, or an error if they want none.

use std::time::Duration;

use failsoft::domain::ProviderState;
use serde_json::json;

use crate::harness::{
    CompletionStream, ScriptStep, ScriptedProvider, TestApp, TestResponse, error_response,
    eventually, question_body, streaming_body, test_settings,
};

const FALLBACK: &str = "Later, please.";

/// A service whose two providers fail in the same way.
async fn service(fault: &[ScriptStep]) -> (TestApp, [ScriptedProvider; 2]) {
    let providers = [
        ScriptedProvider::start(fault.to_vec()).await,
        ScriptedProvider::start(fault.to_vec()).await,
    ];
    let mut settings = test_settings(&[("alpha", &providers[0]), ("beta", &providers[1])]);
    settings.degradation.fallback = FALLBACK.into();
    for provider in &mut settings.providers {
        provider.timeouts.first_token = vec![Duration::from_millis(300)];
    }
    (TestApp::start(settings).await, providers)
}

fn busy() -> Vec<ScriptStep> {
    vec![error_response(503, "", "busy")]
}

#[tokio::test]
async fn degraded_answers_are_marked_in_headers_and_body() {
    for fault in [
        busy(),
        vec![ScriptStep::Hang],
        vec![ScriptStep::Reset],
        vec![error_response(401, "", "no")],
    ] {
        let (app, _providers) = service(&fault).await;
        // "Xyzzy" matches no template, a question for the price does.
        for (text, source) in [("Xyzzy?", "fallback"), ("What does it cost?", "template")] {
            let answer = app.completion_request(&question_body(text)).send().await;
            assert_eq!(answer.status, 200);
            let assert_headers = |header: &dyn Fn(&str) -> String| {
                for (name, value) in [
                    ("x-provider", "none"),
                    ("x-source", source),
                    ("x-degraded", "true"),
                ] {
                    assert_eq!(header(name), value, "{name} of {text}");
                }
                assert!(!header("x-request-id").is_empty());
            };
            assert_headers(&|name| answer.header(name).to_owned());
            let body = answer.json();
            let choice = &body["choices"][0];
            assert_eq!(
                (&choice["finish_reason"], &body["model"]),
                (&json!("stop"), &json!("failsoft"))
            );
            assert_eq!(
                body["failsoft"],
                json!({ "provider": null, "attempt": 0, "source": source })
            );
            let content = choice["message"]["content"].as_str().unwrap().to_owned();
            assert_eq!(content == FALLBACK, source == "fallback", "{content}");

            let answer = app.stream_answer(text).await;
            assert_eq!(answer.status, 200);
            assert_headers(&|name| answer.header(name).to_owned());
            let answer = answer.read_to_end().await;
            assert_eq!(
                (answer.text(), answer.finish_reason()),
                (content, "stop".into())
            );
            assert_eq!(answer.text_sources(), [format!("none 0 {source}")]);
            assert_eq!(answer.chunks.last().unwrap()["model"], "failsoft");
        }
        app.wait_until_idle().await;
    }
}

#[track_caller]
fn assert_unavailable(answer: &TestResponse) {
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("server_error"), &json!("unavailable"))
    );
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(
        (answer.header("x-source"), answer.header("x-degraded")),
        ("none", "false")
    );
}

#[tokio::test]
async fn degraded_answers_off_returns_an_error() {
    for fault in [
        busy(),
        vec![ScriptStep::Hang],
        vec![error_response(401, "", "no")],
    ] {
        let (app, _providers) = service(&fault).await;
        for _ in 0..3 {
            for body in [question_body("What?"), streaming_body("What?")] {
                assert_unavailable(
                    &app.completion_request(&body)
                        .header("x-degraded-answers", "off")
                        .send()
                        .await,
                );
            }
        }
        app.wait_until_idle().await;
    }
}

#[tokio::test]
async fn with_open_breakers_a_degraded_answer_comes_at_once() {
    let (app, providers) = service(&[ScriptStep::Hang]).await;
    let opened = async {
        while app
            .chat_service
            .turns
            .config()
            .providers
            .iter()
            .any(|provider| provider.status.borrow().state == ProviderState::Closed)
        {
            app.stream_answer("What?").await.read_to_end().await;
        }
    };
    eventually("the breakers to open", opened).await;
    let asked = providers.each_ref().map(ScriptedProvider::question_count);
    let started = std::time::Instant::now();
    let answer = app.stream_answer("Xyzzy?").await.read_to_end().await;
    assert_eq!(answer.text(), FALLBACK);
    assert!(
        started.elapsed() < Duration::from_millis(300),
        "the answer took {:?}",
        started.elapsed()
    );
    assert_eq!(
        providers.each_ref().map(ScriptedProvider::question_count),
        asked
    );
}

#[tokio::test]
async fn without_streaming_a_mid_stream_failure_is_replaced_by_a_degraded_answer() {
    // Without streaming, the text before the failure was never sent.
    let alpha = ScriptedProvider::start(vec![
        crate::harness::partial_answer(["Some ", "text"]),
        ScriptStep::Reset,
    ])
    .await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.degradation.fallback = FALLBACK.into();
    let app = TestApp::start(settings).await;
    let answer = app
        .completion_request(&question_body("Xyzzy?"))
        .send()
        .await;
    assert_eq!((answer.status, answer.header("x-degraded")), (200, "true"));
    assert_eq!(answer.json()["choices"][0]["message"]["content"], FALLBACK);
    let answer = app
        .completion_request(&question_body("Xyzzy?"))
        .header("x-degraded-answers", "OFF")
        .send()
        .await;
    assert_unavailable(&answer);
}

#[tokio::test]
async fn a_draining_service_rejects_new_requests() {
    let gate = crate::harness::ScriptGate::default();
    let script = vec![
        crate::harness::partial_answer(["One, "]),
        gate.wait_step(),
        crate::harness::send_text(&crate::harness::stream_end()),
    ];
    let alpha = ScriptedProvider::start(script).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.server.drain = Duration::from_secs(20);
    let mut app = TestApp::start(settings).await;
    let mut running: CompletionStream = app.stream_answer("What?").await;
    running.read_until_text("One, ").await;
    app.request_stop();
    let rejected = async {
        loop {
            let answer = app.completion_request(&question_body("And?")).send().await;
            if answer.status == 503 {
                return answer;
            }
        }
    };
    alpha.script_default(crate::harness::full_answer("Just in time."));
    assert_unavailable_shortly(&eventually("new questions to be rejected", rejected).await);
    gate.let_one_through();
    assert_eq!(running.read_to_end().await.text(), "One, ");
}

#[track_caller]
fn assert_unavailable_shortly(answer: &TestResponse) {
    assert_eq!(answer.json()["error"]["code"], "unavailable");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() < 10);
}

#[tokio::test]
async fn retry_after_is_the_shortest_wait_of_the_providers() {
    let limited = |seconds| {
        vec![error_response(
            429,
            &format!("retry-after: {seconds}\r\n"),
            "slow down",
        )]
    };
    let alpha = ScriptedProvider::start(limited(45)).await;
    let beta = ScriptedProvider::start(limited(30)).await;
    let app = TestApp::with_providers(&[("alpha", &alpha), ("beta", &beta)]).await;
    for body in [question_body("What?"), streaming_body("What?")] {
        let answer = app
            .completion_request(&body)
            .header("x-degraded-answers", "off")
            .send()
            .await;
        assert_unavailable(&answer);
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        // The 30 s began with the provider's response; the lower bound allows for a slow machine.
        assert!((15..=31).contains(&seconds), "{seconds} s");
    }
    assert_eq!((alpha.question_count(), beta.question_count()), (1, 1));
}
