//! SIGHUP: what is read anew, and what a mistake in it changes.

use std::path::Path;

use tempfile::TempDir;

use super::provider::{Manner, Provider, first, whole};
use super::service::Service;
use super::ws_client::{Shown, Visitor};

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
    let provider = Provider::start(Manner::Refuse(
        401,
        serde_json::json!({ "error": { "message": "no" } }),
    ))
    .await;
    let config = format!("degradation.replies = \"{FILE}\"\n{}", provider.config());
    write(folder.path(), &reply("It is one."));
    let mut service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    asked_until(&mut visitor, "It is one.").await;

    write(folder.path(), &reply("It is two."));
    service.signal("HUP").await;
    super::within("the new reply", asked_until(&mut visitor, "It is two.")).await;

    let problems =
        |status: &serde_json::Value| status["problems"].to_string().contains("reply rules");
    write(folder.path(), "[[reply]]\nmatch = [\"price\"]\ntext = 3\n");
    service.signal("HUP").await;
    let status = service
        .status_when("the problem in the status", problems)
        .await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is two.");
    assert!(!status["problems"].to_string().contains(FILE), "{status}");
    let logged = service.logged();
    assert!(
        logged.contains(&format!("{FILE}:3: reply[0].text: ")),
        "{logged}"
    );

    std::fs::remove_file(folder.path().join(FILE)).unwrap();
    service.signal("HUP").await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is two.");

    write(folder.path(), &reply("It is three."));
    service.signal("HUP").await;
    service
        .status_when("the problem's end", |status| !problems(status))
        .await;
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
    assert_eq!(
        (shown.text.as_str(), shown.end("finish").as_str()),
        (whole("slowly").as_str(), Some("stop"))
    );
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_hangup_takes_another_key_over_for_new_calls_and_a_bad_file_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-canary-one\n").unwrap();
    let provider = Provider::start(Manner::Pause).await;
    let config = provider
        .config()
        .replace("\"scripted-key\"", "\"file:key\"");
    let mut service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    let mut shown = Shown::default();
    visitor.send("slowly").await;
    visitor.read(&mut shown, first("slowly").len()).await;

    // The file of the configuration is as it was; what it names is not.
    std::fs::write(&key, "sk-canary-two").unwrap();
    service.signal("HUP").await;
    logged(&service, "configuration reloaded").await;
    let mut other = Visitor::new(service.port).await;
    let mut theirs = Shown::default();
    other.send("at once").await;
    other.read(&mut theirs, first("at once").len()).await;
    let keys = || -> Vec<String> {
        let asked = provider
            .requests()
            .into_iter()
            .filter(|request| request.contains("\"messages\""));
        let key = |request: String| {
            request
                .lines()
                .find_map(|line| line.split_once("Bearer "))
                .map(|(_, key)| key.to_owned())
        };
        asked.filter_map(key).collect()
    };
    assert_eq!(keys(), ["sk-canary-one", "sk-canary-two"]);

    // A key that is not there, and a word too many: nothing changes.
    std::fs::remove_file(&key).unwrap();
    service.signal("HUP").await;
    logged(&service, "not reloaded: ").await;
    let mut third = Visitor::new(service.port).await;
    third.send("once more").await;
    third
        .read(&mut Shown::default(), first("once more").len())
        .await;
    assert_eq!(keys().last().map(String::as_str), Some("sk-canary-two"));

    // And nothing of all that cut an answer.
    provider.now(Manner::Answer);
    visitor.read(&mut shown, usize::MAX).await;
    other.read(&mut theirs, usize::MAX).await;
    for (shown, question) in [(&shown, "slowly"), (&theirs, "at once")] {
        assert_eq!(
            (shown.text.as_str(), shown.end("finish").as_str()),
            (whole(question).as_str(), Some("stop"))
        );
        assert_eq!(shown.end("attempts"), 1);
    }
    assert!(!service.is_over());
    let log = service.logged();
    assert!(
        !log.contains("canary") && !log.contains(&*folder.path().to_string_lossy()),
        "{log}"
    );
}

#[tokio::test]
async fn what_a_hangup_cannot_change_is_named_in_the_log() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let more = "[server]\nworkers = 3\ndata_dir = \"elsewhere\"\n[telemetry]\notlp_endpoint = \"http://127.0.0.1:9\"\n";
    std::fs::write(
        folder.path().join("failsoft.toml"),
        format!("{}\n{more}", provider.config()),
    )
    .unwrap();
    service.signal("HUP").await;
    logged(
        &service,
        "\"server.workers\", \"server.data_dir\", \"telemetry.otlp_endpoint\"",
    )
    .await;
    assert_eq!(
        Visitor::new(service.port).await.ask("still?").await.text,
        whole("still?")
    );
    assert!(!folder.path().join("elsewhere").exists());
}

/// Waits until the log says this.
async fn logged(service: &Service, what: &str) {
    // What is logged comes through a pipe, which is read beside this.
    let logged = async {
        while !service.logged().contains(what) {
            tokio::task::yield_now().await;
        }
    };
    super::within(what, logged).await;
}
