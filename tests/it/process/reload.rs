//! SIGHUP: what is read anew, and what a mistake in it changes.

use std::path::Path;

use tempfile::TempDir;

use super::provider::{Manner, Provider, first, whole};
use super::service::Service;
use super::visitor::{Shown, Visitor};

const FILE: &str = "replies.toml";

fn write(folder: &Path, replies: &str) {
    std::fs::write(folder.join(FILE), replies).unwrap();
}

fn reply(text: &str) -> String {
    format!("[[reply]]\nmatch = [\"price\"]\ntext = \"{text}\"\n")
}

async fn asked_until(visitor: &mut Visitor, text: &str) {
    // Nothing tells a visitor that the rules were read; each answer is what they are at that moment.
    while visitor.ask("What is the price?").await.text != text {}
}

#[tokio::test]
async fn a_hangup_reloads_the_replies_and_bad_ones_change_nothing() {
    let folder = TempDir::new().unwrap();
    let provider =
        Provider::start(Manner::Refuse(401, serde_json::json!({ "error": { "message": "no" } }))).await;
    let config = format!("degradation.replies = \"{FILE}\"\n{}", provider.config());
    write(folder.path(), &reply("It is one."));
    let mut service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    asked_until(&mut visitor, "It is one.").await;

    write(folder.path(), &reply("It is two."));
    service.signal("HUP").await;
    super::within("the new reply", asked_until(&mut visitor, "It is two.")).await;

    let problems = |status: &serde_json::Value| status["problems"].to_string().contains("reply rules");
    write(folder.path(), "[[reply]]\nmatch = [\"price\"]\ntext = 3\n");
    service.signal("HUP").await;
    let status = service.status_when("the problem in the status", problems).await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is two.");
    assert!(!status["problems"].to_string().contains(FILE), "{status}");
    let logged = service.logged();
    assert!(logged.contains(&format!("{FILE}:3: reply[0].text: ")), "{logged}");

    std::fs::remove_file(folder.path().join(FILE)).unwrap();
    service.signal("HUP").await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is two.");

    write(folder.path(), &reply("It is three."));
    service.signal("HUP").await;
    service.status_when("the problem's end", |status| !problems(status)).await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is three.");
    assert!(!service.is_over());
}

#[tokio::test]
async fn a_hangup_leaves_an_answer_under_way_alone() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Pause).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitor = Visitor::new(service.port).await;
    let mut shown = Shown::default();
    visitor.send("slowly").await;
    visitor.read(&mut shown, first("slowly").len()).await;
    for _ in 0..5 {
        service.signal("HUP").await;
    }
    assert_eq!(service.get("/readyz").await.status, 200);
    provider.now(Manner::Answer);
    visitor.read(&mut shown, usize::MAX).await;
    assert_eq!((shown.text.as_str(), shown.end("finish").as_str()), (whole("slowly").as_str(), Some("stop")));
    assert_eq!(service.stop().await.code, Some(0));
}
