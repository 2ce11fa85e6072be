//! The self-check of the fallback chain: a stage that breaks while no visitor needs it appears in
//! the status until it is mended; the remaining stages answer meanwhile.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Behavior, Provider};
use super::service::Service;
use super::wait_for;
use super::ws_client::Visitor;

const GOOD_REPLIES: &str = "[[reply]]\nmatch = [\"price\"]\ntext = \"It is one.\"\n";

/// Reply rules that are valid, but take parts of a second for each message: thousands of
/// repetitions, which can start at each letter of the message.
fn slow_replies() -> String {
    let rule = |end: &str| {
        format!(
            "[[reply]]\npattern = '[a-z ](?-u:[\\x00-\\x7f]){{0,4000}}[@#%&*+=<>^~|{end}]'\ntext = \"It is two.\"\n"
        )
    };
    rule("$") + &rule("/")
}

async fn start_service(folder: &Path) -> (Provider, Service) {
    let refused = Behavior::Refuse(401, json!({ "error": { "message": "no" } }));
    let provider = Provider::start(refused).await;
    let config = format!(
        "degradation = {{ replies = \"replies.toml\", knowledge = \"docs\", outbox = false }}\n{}",
        provider.config()
    );
    fs::write(folder.join("replies.toml"), GOOD_REPLIES).unwrap();
    fs::create_dir(folder.join("docs")).unwrap();
    fs::write(
        folder.join("docs/tea.md"),
        "# Tea\n\nPour the tea after four minutes.\n",
    )
    .unwrap();
    (provider, Service::start(folder, &config).await)
}

fn has_problem(status: &Value, text: &str) -> bool {
    status["problems"].to_string().contains(text)
}

#[tokio::test]
async fn slow_reply_rules_are_reported_until_they_are_replaced() {
    let folder = TempDir::new().unwrap();
    let (_provider, service) = start_service(folder.path()).await;
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is one.");
    service
        .wait_for_status("nothing wrong", |status| status["problems"] == json!([]))
        .await;

    fs::write(
        folder.path().join("replies.toml"),
        format!("{GOOD_REPLIES}{}", slow_replies()),
    )
    .unwrap();
    service.signal("HUP").await;
    let slow = "Self-check: an answer without a provider took more than 100 ms; most of it went to the template replies; \
                look for a pattern that repeats much.";
    let status = service
        .wait_for_status("the broken rung", |status| has_problem(status, slow))
        .await;
    assert!(
        !status
            .to_string()
            .contains(&*folder.path().to_string_lossy()),
        "{status}"
    );
    // It still answers, slowly.
    assert_eq!(visitor.ask("What is the price?").await.text, "It is one.");
    assert_eq!(visitor.ask("What is a @?").await.text, "It is two.");

    fs::write(folder.path().join("replies.toml"), GOOD_REPLIES).unwrap();
    service.signal("HUP").await;
    service
        .wait_for_status("the end of it", |status| status["problems"] == json!([]))
        .await;
    assert_ne!(visitor.ask("What is a @?").await.text, "It is two.");
}

#[tokio::test]
async fn a_missing_document_folder_is_reported_while_its_index_still_answers() {
    let folder = TempDir::new().unwrap();
    let (_provider, service) = start_service(folder.path()).await;
    let mut visitor = Visitor::new(service.port).await;
    let indexed = async {
        while visitor
            .ask("When do I pour the tea?")
            .await
            .done_field("source")
            != "extractive"
        {}
    };
    wait_for("the documents", indexed).await;

    let docs = folder.path().join("docs");
    let away = folder.path().join("away");
    fs::rename(&docs, &away).unwrap();
    service
        .wait_for_status("the folder that is gone", |status| {
            has_problem(status, "Knowledge: docs: cannot be read")
        })
        .await;
    assert_eq!(
        visitor
            .ask("When do I pour the tea?")
            .await
            .done_field("source"),
        "extractive"
    );

    // A folder without any text cannot answer.
    fs::create_dir(&docs).unwrap();
    service
        .wait_for_status("the empty folder", |status| {
            has_problem(status, "holds no text that could answer")
        })
        .await;
    assert_eq!(
        visitor
            .ask("When do I pour the tea?")
            .await
            .done_field("source"),
        "fallback"
    );

    fs::remove_dir(&docs).unwrap();
    fs::rename(&away, &docs).unwrap();
    service
        .wait_for_status("the end of it", |status| status["problems"] == json!([]))
        .await;
    let indexed = async {
        while visitor
            .ask("When do I pour the tea?")
            .await
            .done_field("source")
            != "extractive"
        {}
    };
    wait_for("the documents again", indexed).await;
}
