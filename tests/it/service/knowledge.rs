//! Answers without a provider: from the operator's documents, or a summary of the visitor's text.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    ScriptStep, ScriptedProvider, TestApp, WsClient, error_response, eventually, test_settings,
};

const TEA: &str = "# Kitchen\n\n## Tea\n\nPour the tea after four minutes.\n";

async fn service(folder: &TempDir) -> (ScriptedProvider, TestApp) {
    let busy: Vec<ScriptStep> = vec![error_response(
        503,
        "content-type: application/json\r\n",
        r#"{"error":{"message":"busy"}}"#,
    )];
    let alpha = ScriptedProvider::start(busy).await;
    let mut settings = test_settings(&[("alpha", &alpha)]);
    settings.degradation.knowledge = Some(folder.path().to_owned());
    settings.degradation.fallback = "Later, please.".into();
    let app = TestApp::start(settings).await;
    (alpha, app)
}

/// Asks until the answer is not the fixed fallback text, and returns its `done` frame.
async fn answer_from_documents(client: &mut WsClient, question: &str) -> Value {
    let asking = async {
        // No event tells a visitor that a document was indexed.
        loop {
            let done = client.ask_and_wait(question).await.done.clone().unwrap();
            if done["source"] != "fallback" {
                return done;
            }
        }
    };
    eventually("an answer from the documents", asking).await
}

#[tokio::test]
async fn questions_are_answered_from_documents_with_their_source() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("kitchen.md"), TEA).unwrap();
    let (_alpha, app) = service(&folder).await;
    let mut client = WsClient::open(&app).await;
    let done = answer_from_documents(&mut client, "When do I pour the tea?").await;
    assert_eq!(
        (&done["source"], &done["degraded"]),
        (&json!("extractive"), &json!(true))
    );
    assert_eq!(
        done["text"],
        "Pour the tea after four minutes.\n\n— Kitchen › Tea (kitchen.md)"
    );
    assert_eq!(done["provider"], Value::Null);
    assert_eq!(
        client.ask_and_wait("Who is the president?").await.text,
        "Later, please."
    );

    // A file that is added later is used too.
    fs::write(
        folder.path().join("cellar.txt"),
        "The wine lies in the cellar.",
    )
    .unwrap();
    let done = answer_from_documents(&mut client, "Where is the wine?").await;
    assert_eq!(done["text"], "The wine lies in the cellar.\n\n— cellar.txt");
    let asked = json!({ "message": "When do I pour the tea?" });
    let answer = app.request("POST", "/api/chat").json(&asked).send().await;
    assert_eq!(
        (answer.header("x-source"), answer.header("x-degraded")),
        ("extractive", "true")
    );
    assert_eq!(app.status().await["problems"], json!([]));
}

#[tokio::test]
async fn an_unreadable_file_is_reported_and_the_others_are_used() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("kitchen.md"), TEA).unwrap();
    fs::write(folder.path().join("latin.txt"), b"caf\xe9").unwrap();
    let (_alpha, app) = service(&folder).await;
    let mut client = WsClient::open(&app).await;
    answer_from_documents(&mut client, "When do I pour the tea?").await;
    let status = app.status().await;
    assert_eq!(
        status["problems"],
        json!(["Knowledge: latin.txt: not UTF-8 text."])
    );
    assert!(
        !status
            .to_string()
            .contains(&folder.path().display().to_string())
    );
}

#[tokio::test]
async fn a_text_in_the_question_is_summarised() {
    let folder = TempDir::new().unwrap();
    let (_alpha, app) = service(&folder).await;
    let text = "The harbour was dug in 1827. A canal links the harbour with the sea. The price of that was high.";
    let mut client = WsClient::open(&app).await;
    let shown = client
        .ask_and_wait(&format!("Please summarize this text:\n\n{text}"))
        .await;
    let done = shown.done.as_ref().unwrap();
    assert_eq!(
        (&done["source"], &done["degraded"]),
        (&json!("extractive"), &json!(true))
    );
    let expected =
        "Key sentences of your text, chosen without AI:\n\n- The harbour was dug in 1827.";
    assert_eq!(done["text"], expected);
}
