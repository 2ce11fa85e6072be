//! Text of `/v1` calls is not stored.

use std::path::Path;

use crate::harness::{
    ScriptGate, ScriptStep, ScriptedProvider, TestApp, WsClient, full_answer, partial_answer,
    question_body,
};

#[tokio::test]
async fn api_calls_are_not_stored() {
    let gate = ScriptGate::default();
    let alpha = ScriptedProvider::answering("The canary-answer sings.").await;
    let app = TestApp::with_providers(&[("alpha", &alpha)]).await;
    for _ in 0..4 {
        app.completion_request(&question_body("Is the canary-question heard?"))
            .send()
            .await;
        app.stream_answer("Is the canary-question heard?")
            .await
            .read_to_end()
            .await;
    }
    // An answer that breaks, and one whose caller disconnects.
    alpha.script_next(vec![
        partial_answer(["The ", "canary-answer "]),
        ScriptStep::Reset,
    ]);
    app.stream_answer("Is the canary-question heard?")
        .await
        .read_to_end()
        .await;
    alpha.script_next(vec![
        partial_answer(["The ", "canary-answer "]),
        gate.wait_step(),
    ]);
    let mut abandoned = app.stream_answer("Is the canary-question heard?").await;
    abandoned.read_until_text("The canary-answer ").await;
    drop(abandoned);
    // A chat's question is stored, so the search below is known to find stored text.
    alpha.script_default(full_answer("Nothing sings."));
    WsClient::open(&app)
        .await
        .ask_and_wait("Is the visitor's question kept?")
        .await;
    app.wait_until_idle().await;
    let folder = app.shut_down().await;
    assert!(contains(folder.path(), b"visitor's question"));
    assert!(
        !contains(folder.path(), b"canary-"),
        "text of an API call was stored"
    );
}

/// Returns `true` if a file below `folder` contains `wanted`.
fn contains(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return contains(&path, wanted);
        }
        std::fs::read(&path)
            .unwrap()
            .windows(wanted.len())
            .any(|bytes| bytes == wanted)
    })
}
