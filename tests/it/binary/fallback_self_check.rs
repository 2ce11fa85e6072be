//! What answers without a provider is looked after while nobody needs it: a rung that breaks under the running service is said in the status,
//! and no longer once it is mended; what is left of it answers meanwhile.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Manner, Provider};
use super::service::Service;
use super::within;
use super::ws_client::Visitor;

const GOOD: &str = "[[reply]]\nmatch = [\"price\"]\ntext = \"It is one.\"\n";

/// Rules that are no mistake by themselves and take parts of a second for each message: thousands of repetitions, of which a message may have
/// begun as many as it has letters.
fn costly() -> String {
    let rule = |end: &str| {
        format!(
            "[[reply]]\npattern = '[a-z ](?-u:[\\x00-\\x7f]){{0,4000}}[@#%&*+=<>^~|{end}]'\ntext = \"It is two.\"\n"
        )
    };
    rule("$") + &rule("/")
}

async fn service(folder: &Path) -> (Provider, Service) {
    let refused = Manner::Refuse(401, json!({ "error": { "message": "no" } }));
    let provider = Provider::start(refused).await;
    let config = format!(
        "degradation = {{ replies = \"replies.toml\", knowledge = \"docs\", outbox = false }}\n{}",
        provider.config()
    );
    fs::write(folder.join("replies.toml"), GOOD).unwrap();
    fs::create_dir(folder.join("docs")).unwrap();
    fs::write(
        folder.join("docs/tea.md"),
        "# Tea\n\nPour the tea after four minutes.\n",
    )
    .unwrap();
    (provider, Service::start(folder, &config).await)
}

fn told(status: &Value, what: &str) -> bool {
    status["problems"].to_string().contains(what)
}

#[tokio::test]
async fn replies_that_take_too_long_are_said_with_their_rung_and_no_longer_once_they_are_mended() {
    let folder = TempDir::new().unwrap();
    let (_provider, service) = service(folder.path()).await;
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is one.");
    service
        .status_when("nothing wrong", |status| status["problems"] == json!([]))
        .await;

    fs::write(
        folder.path().join("replies.toml"),
        format!("{GOOD}{}", costly()),
    )
    .unwrap();
    service.signal("HUP").await;
    let slow = "Self-check: an answer without a provider took more than 100 ms; most of it went to the template replies; \
                look for a pattern that repeats much.";
    let status = service
        .status_when("the broken rung", |status| told(status, slow))
        .await;
    assert!(
        !status
            .to_string()
            .contains(&*folder.path().to_string_lossy()),
        "{status}"
    );
    // Slow as it is, it answers.
    assert_eq!(visitor.ask("What is the price?").await.text, "It is one.");
    assert_eq!(visitor.ask("What is a @?").await.text, "It is two.");

    fs::write(folder.path().join("replies.toml"), GOOD).unwrap();
    service.signal("HUP").await;
    service
        .status_when("the end of it", |status| status["problems"] == json!([]))
        .await;
    assert_ne!(visitor.ask("What is a @?").await.text, "It is two.");
}

#[tokio::test]
async fn a_folder_of_documents_that_goes_away_is_said_until_it_is_back_and_what_was_read_answers() {
    let folder = TempDir::new().unwrap();
    let (_provider, service) = service(folder.path()).await;
    let mut visitor = Visitor::new(service.port).await;
    let read = async {
        while visitor.ask("When do I pour the tea?").await.end("source") != "extractive" {}
    };
    within("the documents", read).await;

    let (docs, away) = (folder.path().join("docs"), folder.path().join("away"));
    fs::rename(&docs, &away).unwrap();
    service
        .status_when("the folder that is gone", |status| {
            told(status, "Knowledge: docs: cannot be read")
        })
        .await;
    assert_eq!(
        visitor.ask("When do I pour the tea?").await.end("source"),
        "extractive"
    );

    // A folder without a text is none that answers.
    fs::create_dir(&docs).unwrap();
    service
        .status_when("the empty folder", |status| {
            told(status, "holds no text that could answer")
        })
        .await;
    assert_eq!(
        visitor.ask("When do I pour the tea?").await.end("source"),
        "fallback"
    );

    fs::remove_dir(&docs).unwrap();
    fs::rename(&away, &docs).unwrap();
    service
        .status_when("the end of it", |status| status["problems"] == json!([]))
        .await;
    let read = async {
        while visitor.ask("When do I pour the tea?").await.end("source") != "extractive" {}
    };
    within("the documents again", read).await;
}
