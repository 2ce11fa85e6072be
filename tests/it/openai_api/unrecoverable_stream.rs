//! A streamed answer that nobody can go on with: it ends with an error object and without an end mark, and what was sent stands.

use serde_json::json;

use crate::harness::{
    Act, Completion, Gate, ScriptedProvider, TestApp, answer, last_chunk, refusal, say, settings,
    spoken,
};

const SAID: &str = "The quick brown fox jumps over the lazy dog, and then it";

const LAST: &str = "fox jumps over the lazy dog, and then it";

/// The first one breaks after its text; the others, in order, do these things. Gives the answer to its end.
async fn broken(others: Vec<Vec<Act>>) -> (Completion, Vec<usize>) {
    let gate = Gate::default();
    let alpha = ScriptedProvider::start(vec![spoken([SAID]), gate.hold(), Act::Reset]).await;
    let mut all = vec![];
    for script in others {
        all.push(ScriptedProvider::start(script).await);
    }
    let names = ["beta", "gamma", "delta"];
    let mut providers = vec![("alpha", &alpha)];
    providers.extend(names.into_iter().zip(&all));
    let app = TestApp::of(&providers).await;
    let mut answer = app.stream("What?").await;
    answer.shows(SAID).await;
    gate.open();
    let answer = answer.ended().await;
    app.at_rest().await;
    assert_eq!(alpha.asked(), 1);
    (answer, all.iter().map(ScriptedProvider::asked).collect())
}

/// It ended in an error, with nothing after the first one's text.
#[track_caller]
fn torn(answer: &Completion) {
    assert_eq!((answer.text().as_str(), answer.done), (SAID, false));
    assert_eq!(answer.speakers(), ["alpha 1 ai"]);
    let error = answer.error.as_ref().unwrap();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("server_error"), &json!("stream_interrupted"))
    );
    assert_eq!(error["param"], json!(null));
}

#[tokio::test]
async fn nobody_left() {
    let (answer, _) = broken(vec![]).await;
    torn(&answer);
}

#[tokio::test]
async fn a_text_that_does_not_fit_is_not_shown() {
    for other in [
        "Sure! Here is the rest: sleeps.".to_owned(),
        "The quick red fox jumps over the lazy dog, and then it sleeps.".to_owned(),
        format!("\"{LAST}\" sleeps."),
        // It ends within the repeat.
        "fox jumps over the lazy".to_owned(),
        // And within what it begins again.
        "The quick brown fox jumps".to_owned(),
    ] {
        let (answer, asked) = broken(vec![crate::harness::answer(&other)]).await;
        torn(&answer);
        assert_eq!(asked, [1], "{other}");
    }
}

#[tokio::test]
async fn a_later_provider_may_fit() {
    for fault in [
        answer("Sure! Here is the rest: sleeps."),
        vec![Act::Reset],
        vec![refusal(503, "", "busy")],
        vec![spoken(["fox jumps over"]), say(&last_chunk())],
        // It cannot go on with an answer: that is not the caller's fault.
        vec![refusal(
            400,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"the last must be yours","type":"invalid_request_error"}}"#,
        )],
        vec![refusal(
            400,
            "content-type: application/json\r\n",
            r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
        )],
    ] {
        let (answer, asked) = broken(vec![fault.clone(), answer(&format!("{LAST} sleeps."))]).await;
        assert_eq!(
            (answer.text(), answer.finish()),
            (format!("{SAID} sleeps."), "stop".into()),
            "{fault:?}"
        );
        assert_eq!(asked[1], 1);
        let third = format!("gamma {} ai", asked[0] + 2);
        assert_eq!(answer.speakers(), ["alpha 1 ai".to_owned(), third]);
    }
}

#[tokio::test]
async fn a_degraded_answer_is_not_put_behind_text() {
    let (answer, asked) = broken(
        vec![
            vec![refusal(503, "", "busy")],
            vec![Act::Close],
            vec![Act::Silence],
        ]
        .into_iter()
        .take(2)
        .collect(),
    )
    .await;
    torn(&answer);
    assert_eq!(asked, [1, 2]);
}

#[tokio::test]
async fn a_turn_that_ends_by_the_clock_is_torn_too() {
    let alpha = ScriptedProvider::start(vec![spoken([SAID]), Act::Silence]).await;
    let mut settings = settings(&[("alpha", &alpha)]);
    settings.timeouts.turn = std::time::Duration::from_secs(1);
    let app = TestApp::start(settings).await;
    torn(&app.stream("What?").await.ended().await);
    app.at_rest().await;
}

#[tokio::test]
async fn a_service_that_stops_says_so() {
    let alpha = ScriptedProvider::start(vec![spoken([SAID]), Act::Silence]).await;
    let mut app = TestApp::of(&[("alpha", &alpha)]).await;
    let mut answer = app.stream("What?").await;
    answer.shows(SAID).await;
    app.stop();
    torn(&answer.ended().await);
}
