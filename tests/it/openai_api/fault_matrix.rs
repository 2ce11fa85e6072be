//! Every fault of a provider, before its first token and after twenty, over `/ws` and `/v1`. The
//! caller gets a whole answer, and the provider is not called too often.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    CompletionStream, ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, full_answer,
    http_chunk, last_http_chunk, partial_answer, question_body, send_text, sse_event, stream_head,
    streaming_body, test_settings, token_event,
};

/// The answer of the second provider when it starts from the beginning.
pub(super) const WHOLE: &str = "The whole answer of the second provider.";

/// The rest of the answer when the second provider continues.
const REST: &str = " 21, 22 and no more.";

/// The time limit for the first token and between tokens.
const TOKEN_TIMEOUT: Duration = Duration::from_millis(300);

/// The pause between repeated writes.
const PAUSE: Duration = Duration::from_millis(5);

/// The maximum that is read of an endless event: its limit plus the socket buffers.
const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// The interface that a question is sent over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Interface {
    WebSocket,
    /// `/v1` with streaming.
    Stream,
    /// `/v1` without streaming.
    NonStream,
}

pub(super) const INTERFACES: [Interface; 3] = [
    Interface::WebSocket,
    Interface::Stream,
    Interface::NonStream,
];

/// The outcome of a question.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Text(String),
    /// Status and message of an error.
    Error(u16, String),
}

pub(super) async fn ask(app: &TestApp, interface: Interface) -> Outcome {
    match interface {
        Interface::WebSocket => Outcome::Text(
            WsClient::open(app)
                .await
                .ask_and_wait("What?")
                .await
                .text
                .clone(),
        ),
        Interface::NonStream => {
            let answer = app.completion_request(&question_body("What?")).send().await;
            let body = answer.json();
            match answer.status {
                200 => Outcome::Text(
                    body["choices"][0]["message"]["content"]
                        .as_str()
                        .unwrap()
                        .into(),
                ),
                status => Outcome::Error(status, body["error"]["message"].as_str().unwrap().into()),
            }
        }
        Interface::Stream => {
            let request = app.completion_request(&streaming_body("What?"));
            let answer = CompletionStream::open(request).await;
            assert_eq!(answer.status, 200);
            let answer = answer.read_to_end().await;
            assert_eq!((&answer.error, answer.has_end_mark), (&None, true));
            Outcome::Text(answer.text())
        }
    }
}

pub(super) async fn service(alpha: &ScriptedProvider, beta: &ScriptedProvider) -> TestApp {
    let mut settings = test_settings(&[("alpha", alpha), ("beta", beta)]);
    let timeouts = &mut settings.providers[0].timeouts;
    timeouts.first_token = vec![TOKEN_TIMEOUT];
    timeouts.stall = TOKEN_TIMEOUT;
    TestApp::start(settings).await
}

/// A fault instead of an answer. `calls` are alpha's requests after one and after two turns.
async fn check_before(fault: Vec<ScriptStep>, reason: &str, calls: [usize; 2]) {
    for interface in INTERFACES {
        let alpha = ScriptedProvider::start(fault.clone()).await;
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = service(&alpha, &beta).await;
        for calls in calls {
            assert_eq!(
                ask(&app, interface).await,
                Outcome::Text(WHOLE.into()),
                "{interface:?}"
            );
            assert_eq!(
                alpha.question_count(),
                calls,
                "{interface:?}: alpha's calls"
            );
        }
        assert_eq!(beta.question_count(), 2, "{interface:?}");
        assert_released(&app, &alpha, reason).await;
    }
}

/// Asserts that nothing is left of the call, that little was read, and that the reason is reported.
async fn assert_released(app: &TestApp, alpha: &ScriptedProvider, reason: &str) {
    app.wait_until_idle().await;
    let counts = alpha.wait_for(|counts| counts.in_flight == 0).await;
    let bytes_per_call = counts.repeated_bytes / alpha.question_count();
    assert!(
        bytes_per_call < MAX_READ_BYTES,
        "read {bytes_per_call} bytes"
    );
    assert_eq!(app.provider_status("alpha").await["reason"], reason);
}

fn twenty_words() -> Vec<String> {
    (1..=20)
        .map(|n| {
            if n < 20 {
                format!("{n}, ")
            } else {
                format!("{n},")
            }
        })
        .collect()
}

/// Repeats the last 40 characters of `shown`, as asked for, and continues.
fn continuation(shown: &str) -> Vec<ScriptStep> {
    let start = shown.char_indices().rev().nth(39).unwrap().0;
    full_answer(&format!("{}{REST}", &shown[start..]))
}

async fn check_after(fault: Vec<ScriptStep>, reason: &str) {
    for interface in INTERFACES {
        let words = twenty_words();
        let mut script = vec![partial_answer(words.iter().map(String::as_str))];
        script.extend(fault.clone());
        let shown = words.concat();
        let alpha = ScriptedProvider::start(script).await;
        let is_stream = interface == Interface::Stream;
        let beta = ScriptedProvider::start(if is_stream {
            continuation(&shown)
        } else {
            full_answer(WHOLE)
        })
        .await;
        let expected = if is_stream {
            shown.clone() + REST
        } else {
            WHOLE.into()
        };
        let app = service(&alpha, &beta).await;
        assert_eq!(
            ask(&app, interface).await,
            Outcome::Text(expected),
            "{interface:?}"
        );
        // A provider whose text was sent is not retried.
        assert_eq!(
            (alpha.question_count(), beta.question_count()),
            (1, 1),
            "{interface:?}"
        );
        assert_released(&app, &alpha, reason).await;
        assert_eq!(
            app.provider_status("alpha").await["counts"]["restarts"],
            1,
            "{interface:?}"
        );
    }
}

/// An event stream that ends cleanly after these events.
fn events(events: &[&str]) -> Vec<ScriptStep> {
    let events: String = events.iter().map(|data| sse_event(data)).collect();
    vec![send_text(&(stream_head() + &events + &last_http_chunk()))]
}

pub(super) fn error(status: u16, headers: &str, body: &Value) -> Vec<ScriptStep> {
    let headers = format!("content-type: application/json\r\n{headers}");
    vec![error_response(
        status,
        &headers,
        &json!({ "error": body }).to_string(),
    )]
}

fn server_error() -> Value {
    json!({ "message": "The server had an error", "type": "server_error" })
}

macro_rules! before {
    ($($name:ident: $reason:literal, $asked:expr, $script:expr;)+) => { mod before_the_first_token { use super::*; $(
        #[tokio::test]
        async fn $name() {
            check_before($script, $reason, $asked).await;
        }
    )+ } };
}

macro_rules! after {
    ($($name:ident: $reason:literal, $script:expr;)+) => { mod after_twenty_tokens { use super::*; $(
        #[tokio::test]
        async fn $name() {
            check_after($script, $reason).await;
        }
    )+ } };
}

/// An endless event in pieces of a mebibyte.
fn huge_event() -> ScriptStep {
    ScriptStep::Repeat(
        Duration::from_millis(1),
        http_chunk(&"x".repeat(1024 * 1024)).into_bytes(),
    )
}

/// An endless event, byte by byte.
fn slow_endless_event() -> [ScriptStep; 2] {
    [
        send_text(&http_chunk("data:")),
        ScriptStep::Repeat(PAUSE, http_chunk("x").into_bytes()),
    ]
}

before! {
    reset: "reset", [2, 4], vec![ScriptStep::Reset];
    reset_after_the_head: "reset", [2, 4], vec![send_text(&stream_head()), ScriptStep::Reset];
    stream_end_without_end_mark: "truncated", [1, 2], events(&[r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#]);
    error_event: "server_error", [2, 4], events(&[&json!({ "error": server_error() }).to_string()]);
    garbage: "malformed", [1, 2], events(&[r#"{"choices": [{"del"#]);
    stall: "timeout", [1, 2], vec![send_text(&stream_head()), ScriptStep::Hang];
    keep_alives_for_ever: "timeout", [1, 2], vec![send_text(&stream_head()), ScriptStep::Repeat(PAUSE, http_chunk(": keep-alive\n\n").into_bytes())];
    status_500: "server_error", [2, 4], error(500, "", &server_error());
    status_503: "overloaded", [1, 2], error(503, "", &json!({ "message": "busy" }));
    long_rate_limit: "rate_limited", [1, 1], error(429, "retry-after: 30\r\n", &json!({ "message": "slow down" }));
    unauthorized: "refused", [1, 1], error(401, "", &json!({ "message": "bad key", "code": "invalid_api_key" }));
    html_with_status_200: "malformed", [1, 2], vec![error_response(200, "content-type: text/html\r\n", "<!doctype html><p>Please log in")];
    empty_stream: "malformed", [1, 2], events(&[]);
    end_mark_without_text: "malformed", [1, 2], events(&["[DONE]"]);
    slow_bytes_of_an_endless_event: "timeout", [1, 2], [&[send_text(&stream_head())], &slow_endless_event()[..]].concat();
    huge_event: "malformed", [1, 2], vec![send_text(&(stream_head() + &http_chunk("data: "))), super::huge_event()];
}

after! {
    reset: "reset", vec![ScriptStep::Reset];
    connection_closed_within_a_chunk: "reset", vec![send_text("40\r\ndata: {\"choices\""), ScriptStep::Close];
    stream_end_without_end_mark: "truncated", vec![send_text(&last_http_chunk())];
    error_event: "server_error", vec![send_text(&sse_event(&json!({ "error": server_error() }).to_string()))];
    garbage: "malformed", vec![send_text(&sse_event(r#"{"choices": [{"del"#))];
    stall: "stalled", vec![ScriptStep::Hang];
    keep_alives_for_ever: "stalled", vec![ScriptStep::Repeat(PAUSE, http_chunk(": keep-alive\n\n").into_bytes())];
    slow_bytes_of_an_endless_event: "stalled", slow_endless_event().to_vec();
    huge_event: "malformed", vec![send_text(&http_chunk("data: ")), super::huge_event()];
}

#[tokio::test]
async fn refused_connection() {
    for interface in INTERFACES {
        let alpha = ScriptedProvider::start(vec![]).await;
        let beta = ScriptedProvider::answering(WHOLE).await;
        let app = service(&alpha, &beta).await;
        alpha.stop_listening().await;
        for _ in 0..2 {
            assert_eq!(
                ask(&app, interface).await,
                Outcome::Text(WHOLE.into()),
                "{interface:?}"
            );
        }
        assert_eq!(
            app.provider_status("alpha").await["counts"]["failure"],
            2,
            "{interface:?}: calls"
        );
    }
}

#[tokio::test]
async fn a_short_rate_limit_is_waited_for() {
    for interface in INTERFACES {
        let alpha = ScriptedProvider::answering(WHOLE).await;
        alpha.script_next(error(
            429,
            "retry-after-ms: 300\r\n",
            &json!({ "message": "slow down" }),
        ));
        let beta = ScriptedProvider::answering("Not needed.").await;
        let app = service(&alpha, &beta).await;
        assert_eq!(
            ask(&app, interface).await,
            Outcome::Text(WHOLE.into()),
            "{interface:?}"
        );
        let [(first, _), (second, _)] = &alpha.requests()[..] else {
            panic!("{interface:?}: alpha was not called twice")
        };
        assert!(
            *second - *first >= Duration::from_millis(300),
            "{interface:?}: called again after {:?}",
            *second - *first
        );
        assert_eq!(beta.question_count(), 0, "{interface:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_at_its_limit() {
    // The limit is a mebibyte; the event that exceeds it is still used.
    let words = "0123456789 abcde ghijk mnopq stuvw yzabc ef".repeat(256);
    let count = 1024 * 1024 / words.len() + 1;
    for interface in INTERFACES {
        let alpha = ScriptedProvider::start(vec![
            send_text(&stream_head()),
            ScriptStep::Repeat(PAUSE, token_event(&words).into_bytes()),
        ])
        .await;
        let shown = words.repeat(count);
        let is_stream = interface == Interface::Stream;
        let beta = ScriptedProvider::start(if is_stream {
            continuation(&shown)
        } else {
            full_answer(WHOLE)
        })
        .await;
        let app = service(&alpha, &beta).await;
        let Outcome::Text(text) = ask(&app, interface).await else {
            panic!("{interface:?}: an error")
        };
        let expected = if is_stream {
            shown + REST
        } else {
            WHOLE.into()
        };
        assert!(
            text == expected,
            "{interface:?}: {} bytes instead of {}",
            text.len(),
            expected.len()
        );
        assert_eq!(
            (alpha.question_count(), beta.question_count()),
            (1, 1),
            "{interface:?}"
        );
        app.wait_until_idle().await;
    }
}
