//! SIGHUP: the files that are read again, and the effect of mistakes in them.

use std::path::Path;

use tempfile::TempDir;

use super::provider::{Behavior, Provider, answer_start, full_answer};
use super::service::Service;
use super::ws_client::{ShownTurn, Visitor};

const REPLIES_FILE: &str = "replies.toml";

fn write_replies(folder: &Path, replies: &str) {
    std::fs::write(folder.join(REPLIES_FILE), replies).unwrap();
}

fn reply(text: &str) -> String {
    format!("[[reply]]\nmatch = [\"price\"]\ntext = \"{text}\"\n")
}

async fn ask_until(visitor: &mut Visitor, text: &str) {
    // No event tells a visitor that the rules were reloaded; each answer shows the current ones.
    while visitor.ask("What is the price?").await.text != text {}
}

#[tokio::test]
async fn sighup_reloads_replies_and_keeps_the_old_ones_if_invalid() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Refuse(
        401,
        serde_json::json!({ "error": { "message": "no" } }),
    ))
    .await;
    let config = format!(
        "degradation.replies = \"{REPLIES_FILE}\"\n{}",
        provider.config()
    );
    write_replies(folder.path(), &reply("It is one."));
    let mut service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    ask_until(&mut visitor, "It is one.").await;

    write_replies(folder.path(), &reply("It is two."));
    service.signal("HUP").await;
    super::wait_for("the new reply", ask_until(&mut visitor, "It is two.")).await;

    let problems =
        |status: &serde_json::Value| status["problems"].to_string().contains("reply rules");
    write_replies(folder.path(), "[[reply]]\nmatch = [\"price\"]\ntext = 3\n");
    service.signal("HUP").await;
    let status = service
        .wait_for_status("the problem in the status", problems)
        .await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is two.");
    assert!(
        !status["problems"].to_string().contains(REPLIES_FILE),
        "{status}"
    );
    let logged = service.logged();
    assert!(
        logged.contains(&format!("{REPLIES_FILE}:3: reply[0].text: ")),
        "{logged}"
    );

    std::fs::remove_file(folder.path().join(REPLIES_FILE)).unwrap();
    service.signal("HUP").await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is two.");

    write_replies(folder.path(), &reply("It is three."));
    service.signal("HUP").await;
    service
        .wait_for_status("the problem's end", |status| !problems(status))
        .await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is three.");
    assert!(!service.has_exited());
}

#[tokio::test]
async fn sighup_does_not_disturb_running_answers() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Pause).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitor = Visitor::new(service.port).await;
    let mut shown = ShownTurn::default();
    visitor.send_message("slowly").await;
    visitor
        .read_at_least(&mut shown, answer_start("slowly").len())
        .await;
    for _ in 0..5 {
        service.signal("HUP").await;
    }
    assert_eq!(service.get("/readyz").await.status, 200);
    provider.set_behavior(Behavior::Answer);
    visitor.read_to_end(&mut shown).await;
    assert_eq!(
        (shown.text.as_str(), shown.done_field("finish").as_str()),
        (full_answer("slowly").as_str(), Some("stop"))
    );
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn sighup_uses_a_changed_key_for_new_calls_and_ignores_an_invalid_file() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-canary-one\n").unwrap();
    let provider = Provider::start(Behavior::Pause).await;
    let config = provider
        .config()
        .replace("\"scripted-key\"", "\"file:key\"");
    let mut service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    let mut shown = ShownTurn::default();
    visitor.send_message("slowly").await;
    visitor
        .read_at_least(&mut shown, answer_start("slowly").len())
        .await;

    // The configuration file is unchanged; the key file that it names has another key.
    std::fs::write(&key, "sk-canary-two").unwrap();
    service.signal("HUP").await;
    wait_for_log(&service, "configuration reloaded").await;
    let mut other = Visitor::new(service.port).await;
    let mut other_shown = ShownTurn::default();
    other.send_message("at once").await;
    other
        .read_at_least(&mut other_shown, answer_start("at once").len())
        .await;
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

    // The key file is missing: nothing changes.
    std::fs::remove_file(&key).unwrap();
    service.signal("HUP").await;
    wait_for_log(&service, "not reloaded: ").await;
    let mut third = Visitor::new(service.port).await;
    third.send_message("once more").await;
    third
        .read_at_least(&mut ShownTurn::default(), answer_start("once more").len())
        .await;
    assert_eq!(keys().last().map(String::as_str), Some("sk-canary-two"));

    // No answer was interrupted by any of this.
    provider.set_behavior(Behavior::Answer);
    visitor.read_to_end(&mut shown).await;
    other.read_to_end(&mut other_shown).await;
    for (shown, question) in [(&shown, "slowly"), (&other_shown, "at once")] {
        assert_eq!(
            (shown.text.as_str(), shown.done_field("finish").as_str()),
            (full_answer(question).as_str(), Some("stop"))
        );
        assert_eq!(shown.done_field("attempts"), 1);
    }
    assert!(!service.has_exited());
    let log = service.logged();
    assert!(
        !log.contains("canary") && !log.contains(&*folder.path().to_string_lossy()),
        "{log}"
    );
}

#[tokio::test]
async fn sighup_logs_the_keys_that_need_a_restart() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let more = "[server]\nworkers = 3\ndata_dir = \"elsewhere\"\n[telemetry]\notlp_endpoint = \"http://127.0.0.1:9\"\n";
    std::fs::write(
        folder.path().join("failsoft.toml"),
        format!("{}\n{more}", provider.config()),
    )
    .unwrap();
    service.signal("HUP").await;
    wait_for_log(
        &service,
        "\"server.workers\", \"server.data_dir\", \"telemetry.otlp_endpoint\"",
    )
    .await;
    assert_eq!(
        Visitor::new(service.port).await.ask("still?").await.text,
        full_answer("still?")
    );
    assert!(!folder.path().join("elsewhere").exists());
}

async fn wait_for_log(service: &Service, what: &str) {
    // The log arrives through a pipe, which another task reads.
    let logged = async {
        while !service.logged().contains(what) {
            tokio::task::yield_now().await;
        }
    };
    super::wait_for(what, logged).await;
}
