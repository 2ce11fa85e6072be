//! A failing store never stops the chat; `accepted` and the status report it.

use std::fs;
use std::sync::Arc;

use failsoft::config::Settings;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{ScriptedProvider, TestApp, WsClient, test_settings, unique_message_id};

const TEXT: &str = "All is well.";

async fn provider() -> (ScriptedProvider, Settings) {
    let alpha = ScriptedProvider::answering(TEXT).await;
    let settings = test_settings(&[("alpha", &alpha)]);
    (alpha, settings)
}

/// The problems in the status. Asserts that they name no path.
async fn problems(app: &TestApp) -> String {
    let status = app.status().await;
    let problems = status["problems"].to_string();
    assert!(
        !problems.contains(&app.root_dir().display().to_string()),
        "{problems}"
    );
    problems
}

#[tokio::test]
async fn without_a_data_folder_the_chat_runs_in_memory() {
    let (_alpha, settings) = provider().await;
    let folder = Arc::new(TempDir::new().unwrap());
    fs::write(
        folder.path().join("data"),
        "a file where the folder should be",
    )
    .unwrap();
    let app = TestApp::start_in(settings, folder).await;
    assert!(problems(&app).await.contains("memory only"));
    let mut client = WsClient::open(&app).await;
    let id = unique_message_id();
    let accepted = client.ask_as(&id, "What?").await;
    assert_eq!(
        (&accepted["type"], &accepted["durable"]),
        (&json!("accepted"), &json!(false))
    );
    let turn = accepted["turn"].as_str().unwrap().to_owned();
    assert_eq!(client.wait_for_done(&turn).await.text, TEXT);
    // The conversation is kept in memory while the process runs.
    let client = WsClient::join(&app, &client.conversation).await;
    assert_eq!(client.welcome["history"][0]["text"], TEXT);
    assert_eq!(app.request("GET", "/readyz").send().await.status, 200);
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_replaced_by_a_new_one() {
    let (alpha, first) = provider().await;
    let app = TestApp::start(first).await;
    let mut client = WsClient::open(&app).await;
    client.ask_and_wait("What?").await;
    assert_eq!(problems(&app).await, "[]");
    let conversation = client.conversation.clone();
    let folder = app.shut_down().await;
    let data = folder.path().join("data");
    fs::write(data.join("store").join("conf"), [0xa5; 64]).unwrap();

    let app = TestApp::start_in(test_settings(&[("alpha", &alpha)]), folder).await;
    assert!(problems(&app).await.contains("set aside"));
    let was_set_aside = fs::read_dir(&data).unwrap().any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("store.damaged-")
    });
    assert!(was_set_aside, "the damaged store was not preserved");
    let mut client = WsClient::join(&app, &conversation).await;
    assert_eq!(client.welcome["history"], json!([]));
    let accepted = client.ask_as(&unique_message_id(), "Again?").await;
    assert_eq!(accepted["durable"], true);
    assert_eq!(
        client
            .wait_for_done(accepted["turn"].as_str().unwrap())
            .await
            .text,
        TEXT
    );
}

#[tokio::test]
async fn a_store_failing_at_run_time_costs_durability_but_no_answer() {
    let (_alpha, mut settings) = provider().await;
    settings.chat.max_message_chars = 3_000_000;
    settings.limits.frame_bytes = 4_000_000;
    let app = TestApp::start(settings).await;
    let mut client = WsClient::open(&app).await;
    let accepted = client.ask_as(&unique_message_id(), "Well?").await;
    assert_eq!(accepted["durable"], true);
    client
        .wait_for_done(accepted["turn"].as_str().unwrap())
        .await;

    // Without its folder, the database cannot store a record that needs a file of its own.
    fs::remove_dir_all(app.root_dir().join("data").join("store")).unwrap();
    for text in ["x".repeat(2_000_000), "And now?".into(), "And now?".into()] {
        let accepted = client.ask_as(&unique_message_id(), &text).await;
        assert_eq!(
            (&accepted["type"], &accepted["durable"]),
            (&json!("accepted"), &json!(false))
        );
        assert_eq!(
            client
                .wait_for_done(accepted["turn"].as_str().unwrap())
                .await
                .text,
            TEXT
        );
        assert_ne!(problems(&app).await, "[]");
    }
    assert_eq!(app.request("GET", "/readyz").send().await.status, 200);
    // New visitors are answered too.
    let mut other = WsClient::open(&app).await;
    assert_eq!(other.ask_and_wait("And me?").await.text, TEXT);
}
