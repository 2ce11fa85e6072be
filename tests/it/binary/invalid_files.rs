//! Invalid files of each kind: they are named in the log and the status, and skipped; the valid
//! ones beside them are used.

use std::fs;

use failsoft::domain::Timestamp;
use failsoft::store::{self, CacheKey, CachedAnswer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Behavior, Provider};
use super::service::Service;
use super::wait_for;
use super::ws_client::Visitor;

/// Saves two answers, and marks the second as written by a later version of the program.
async fn save_answers(data: &std::path::Path) {
    let opened = store::open(data, Timestamp(0)).unwrap();
    for byte in [1, 2] {
        let answer = CachedAnswer {
            text: "Saved.".into(),
            saved_at: Timestamp(0),
            conversation: None,
            turn: None,
            is_context_free: true,
            asker_count: 0,
        };
        opened
            .store
            .put_answer(CacheKey([byte; 32]), answer)
            .await
            .unwrap();
    }
    drop(opened);
    fs::File::open(data.join("lock")).unwrap().lock().unwrap();
    let tree = sled::open(data.join("store")).unwrap();
    let key = format!("a/{}", CacheKey([2; 32]));
    let mut bytes = tree.get(&key).unwrap().unwrap().to_vec();
    bytes[0] += 1;
    tree.insert(&key, bytes).unwrap();
    tree.flush().unwrap();
}

#[tokio::test]
async fn invalid_replies_documents_and_saved_answers_are_reported_and_skipped() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    save_answers(&path("failsoft-data")).await;
    fs::write(
        path("replies.toml"),
        "[[reply]]\nmatch = [\"price\"]\ntext = 3\n",
    )
    .unwrap();
    fs::create_dir(path("docs")).unwrap();
    fs::write(
        path("docs/tea.md"),
        "# Tea\n\nPour the tea after four minutes.\n",
    )
    .unwrap();
    fs::write(path("docs/latin.txt"), b"caf\xe9").unwrap();
    let refused = Behavior::Refuse(401, json!({ "error": { "message": "no" } }));
    let provider = Provider::start(refused).await;
    let config = format!(
        "degradation = {{ replies = \"replies.toml\", knowledge = \"docs\" }}\n{}\n[cache]\nenabled = true\n",
        provider.config()
    );
    let mut service = Service::start(folder.path(), &config).await;
    let names_all = |status: &Value| {
        let problems = status["problems"].to_string();
        ["reply rules", "latin.txt", "saved answer"]
            .iter()
            .all(|what| problems.contains(what))
    };
    let status = service
        .wait_for_status("all three in the status", names_all)
        .await;
    println!("{}", status["problems"]);
    for secret in [
        "replies.toml",
        "failsoft-data",
        folder.path().to_str().unwrap(),
    ] {
        assert!(!status["problems"].to_string().contains(secret), "{status}");
    }
    // The log arrives through a pipe, which another task reads.
    for line in [
        "replies.toml:3: reply[0].text: ",
        "latin.txt: not UTF-8 text",
        "saved answers that this version does not read",
    ] {
        let logged = async {
            while !service.logged().contains(line) {
                tokio::task::yield_now().await;
            }
        };
        wait_for(line, logged).await;
    }
    // The service keeps working: the valid document answers, and so do the built-in replies.
    let mut visitor = Visitor::new(service.port).await;
    let asking = async {
        while visitor
            .ask("When do I pour the tea?")
            .await
            .done_field("source")
            != "extractive"
        {}
    };
    wait_for("the good document", asking).await;
    assert_eq!(visitor.ask("Xyzzy?").await.done_field("degraded"), true);
    assert_eq!(service.get("/readyz").await.status, 200);
    assert!(!service.has_exited());
}
