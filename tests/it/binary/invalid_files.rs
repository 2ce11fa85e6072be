//! Files that will not do, each kind at once: they are named in the log and the status, and passed over; what is good beside them works.

use std::fs;

use failsoft::domain::Timestamp;
use failsoft::store::{self, CacheKey, CachedAnswer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{Manner, Provider};
use super::service::Service;
use super::within;
use super::ws_client::Visitor;

/// Two saved answers, the second as a later version of the program would write it.
async fn save(data: &std::path::Path) {
    let opened = store::open(data, Timestamp(0)).unwrap();
    for byte in [1, 2] {
        let (conversation, turn) = (None, None);
        let answer = CachedAnswer {
            text: "Saved.".into(),
            saved_at: Timestamp(0),
            conversation,
            turn,
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
async fn replies_documents_and_saved_answers_that_do_not_read_are_named_and_passed_over() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    save(&path("failsoft-data")).await;
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
    let refused = Manner::Refuse(401, json!({ "error": { "message": "no" } }));
    let provider = Provider::start(refused).await;
    let config = format!(
        "degradation = {{ replies = \"replies.toml\", knowledge = \"docs\" }}\n{}\n[cache]\nenabled = true\n",
        provider.config()
    );
    let mut service = Service::start(folder.path(), &config).await;
    let all = |status: &Value| {
        let problems = status["problems"].to_string();
        ["reply rules", "latin.txt", "saved answer"]
            .iter()
            .all(|what| problems.contains(what))
    };
    let status = service.status_when("all three in the status", all).await;
    println!("{}", status["problems"]);
    for secret in [
        "replies.toml",
        "failsoft-data",
        folder.path().to_str().unwrap(),
    ] {
        assert!(!status["problems"].to_string().contains(secret), "{status}");
    }
    // What is logged comes through a pipe, which is read beside this.
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
        within(line, logged).await;
    }
    // Nothing stops: the good document answers, and so do the built-in replies.
    let mut visitor = Visitor::new(service.port).await;
    let asking = async {
        while visitor.ask("When do I pour the tea?").await.end("source") != "extractive" {}
    };
    within("the good document", asking).await;
    assert_eq!(visitor.ask("Xyzzy?").await.end("degraded"), true);
    assert_eq!(service.get("/readyz").await.status, 200);
    assert!(!service.is_over());
}
