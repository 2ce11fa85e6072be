//! Streamed answers that cannot be continued: they end with an error object and without an end
//! mark, and the sent text stays.

use serde_json::json;

use crate::harness::{
    CompletionStream, ScriptGate, ScriptStep, ScriptedProvider, TestApp, error_response,
    full_answer, last_http_chunk, partial_answer, send_text, test_settings,
};

const SENT: &str = "The quick brown fox jumps over the lazy dog, and then it";

/// The last 40 characters of [`SENT`].
const OVERLAP: &str = "fox jumps over the lazy dog, and then it";

/// Breaks alpha after its text; the other providers run these scripts in order. Returns the
/// completed stream and the number of calls to each of the others.
async fn break_after_text(others: Vec<Vec<ScriptStep>>) -> (CompletionStream, Vec<usize>) {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::start(vec![
        partial_answer([SENT]),
        gate.wait_step(),
        ScriptStep::Reset,
    ])
    .await;
    let mut others_started = vec![];
    for script in others {
        others_started.push(ScriptedProvider::start(script).await);
    }
    let names = ["beta", "gamma", "delta"];
    let mut providers = vec![("alpha", &alpha)];
    providers.extend(names.into_iter().zip(&others_started));
    let app = TestApp::with_providers(&providers).await;
    let mut answer = app.stream_answer("What?").await;
    answer.read_until_text(SENT).await;
    gate.let_one_through();
    let answer = answer.read_to_end().await;
    app.wait_until_idle().await;
    assert_eq!(alpha.question_count(), 1);
    (
        answer,
        others_started
            .iter()
            .map(ScriptedProvider::question_count)
            .collect(),
    )
}

/// Asserts that the stream ended with an error right after alpha's text.
#[track_caller]
fn assert_interrupted(answer: &CompletionStream) {
    assert_eq!((answer.text().as_str(), answer.has_end_mark), (SENT, false));
    assert_eq!(answer.text_sources(), ["alpha 1 ai"]);
    let error = answer.error.as_ref().unwrap();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("server_error"), &json!("stream_interrupted"))
    );
    assert_eq!(error["param"], json!(null));
}

#[tokio::test]
async fn without_another_provider_the_stream_ends_with_an_error() {
    let (answer, _) = break_after_text(vec![]).await;
    assert_interrupted(&answer);
}

#[tokio::test]
async fn a_continuation_that_does_not_fit_is_not_sent() {
    for other in [
        "Sure! Here is the rest: sleeps.".to_owned(),
        "The quick red fox jumps over the lazy dog, and then it sleeps.".to_owned(),
        format!("\"{OVERLAP}\" sleeps."),
        // This one ends within the overlap.
        "fox jumps over the lazy".to_owned(),
        // This one starts over and ends within the sent text.
        "The quick brown fox jumps".to_owned(),
    ] {
        let (answer, asked) = break_after_text(vec![crate::harness::full_answer(&other)]).await;
        assert_interrupted(&answer);
        assert_eq!(asked, [1], "{other}");
    }
}

#[tokio::test]
async fn a_later_provider_can_continue_the_stream() {
    for fault in [
        full_answer("Sure! Here is the rest: sleeps."),
        vec![ScriptStep::Reset],
        vec![error_response(503, "", "busy")],
        vec![
            partial_answer(["fox jumps over"]),
            send_text(&last_http_chunk()),
        ],
        // The provider rejects a started answer, which is not the caller's fault.
        vec![error_response(
            400,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"the last must be yours","type":"invalid_request_error"}}"#,
        )],
        vec![error_response(
            400,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
        )],
    ] {
        let (answer, asked) = break_after_text(vec![
            fault.clone(),
            full_answer(&format!("{OVERLAP} sleeps.")),
        ])
        .await;
        assert_eq!(
            (answer.text(), answer.finish_reason()),
            (format!("{SENT} sleeps."), "stop".into()),
            "{fault:?}"
        );
        assert_eq!(asked[1], 1);
        let last_speaker = format!("gamma {} ai", asked[0] + 2);
        assert_eq!(
            answer.text_sources(),
            ["alpha 1 ai".to_owned(), last_speaker]
        );
    }
}

#[tokio::test]
async fn no_degraded_answer_is_appended_to_text() {
    let (answer, asked) = break_after_text(
        vec![
            vec![error_response(503, "", "busy")],
            vec![ScriptStep::Close],
            vec![ScriptStep::Hang],
        ]
        .into_iter()
        .take(2)
        .collect(),
    )
    .await;
    assert_interrupted(&answer);
    assert_eq!(asked, [1, 2]);
}

#[tokio::test]
async fn a_turn_timeout_interrupts_the_stream() {
    let alpha = ScriptedProvider::start(vec![partial_answer([SENT]), ScriptStep::Hang]).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.timeouts.turn = std::time::Duration::from_secs(1);
    let app = TestApp::start(settings).await;
    assert_interrupted(&app.stream_answer("What?").await.read_to_end().await);
    app.wait_until_idle().await;
}

#[tokio::test]
async fn a_shutdown_interrupts_the_stream() {
    let alpha = ScriptedProvider::start(vec![partial_answer([SENT]), ScriptStep::Hang]).await;
    let mut app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    let mut answer = app.stream_answer("What?").await;
    answer.read_until_text(SENT).await;
    app.request_stop();
    assert_interrupted(&answer.read_to_end().await);
}
