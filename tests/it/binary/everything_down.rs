//! Every dependency is dead at once: no provider can be reached, the disk is full, the store is
//! broken, and the operator's files are gone. Visitors still get a labelled answer within 100 ms.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::provider::UNLIMITED;
use super::service::{Service, failsoft_with_file_limit};
use super::wait_for;
use super::ws_client::Visitor;

/// The maximum size of each file, in blocks of 512 bytes. It simulates a full disk and needs no
/// privileges.
const MAX_FILE_BLOCKS: u32 = 4096;

/// Providers with a name that does not resolve, an address that does not answer, and a port that
/// refuses connections.
fn config(port: u16) -> String {
    let provider = |name: &str, address: &str| {
        format!(
            r#"
[[providers]]
name = "{name}"
dialect = "openai"
base_url = "http://{address}/v1"
model = "{name}-1"
api_key = "a-key"
timeouts = {{ connect = "300ms", first_token = "300ms" }}
breaker = {{ consecutive_failures = 1, open_for = "60s", open_max = "60s" }}
"#
        )
    };
    format!(
        "degradation = {{ replies = \"replies.toml\", knowledge = \"docs\", fallback = \"Later, please.\" }}\n{}{}{}{UNLIMITED}\n[cache]\nenabled = true\n",
        provider("nameless", "nowhere.invalid"),
        provider("silent", "192.0.2.1"),
        provider("refusing", &format!("127.0.0.1:{port}")),
    )
}

fn write_files(folder: &Path) {
    fs::create_dir(folder.join("docs")).unwrap();
    fs::write(
        folder.join("docs").join("tea.md"),
        "# Tea\n\nPour the tea after four minutes.\n",
    )
    .unwrap();
    fs::write(
        folder.join("replies.toml"),
        "[[reply]]\nmatch = [\"price\"]\ntext = \"It is one.\"\n",
    )
    .unwrap();
}

#[tokio::test]
async fn without_network_store_and_disk_the_fallback_answers_within_100_ms() {
    let folder = TempDir::new().unwrap();
    write_files(folder.path());
    // A port on which nothing listens any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    fs::write(folder.path().join("failsoft.toml"), config(port)).unwrap();
    let mut service = Service::of(failsoft_with_file_limit(
        folder.path(),
        &["--listen", "127.0.0.1:0"],
        MAX_FILE_BLOCKS,
    ))
    .await;
    let mut visitor = Visitor::new(service.port).await;
    let warm = async {
        // Until the documents are indexed and every breaker is open.
        while visitor
            .ask("When do I pour the tea?")
            .await
            .done_field("source")
            != "extractive"
        {}
    };
    wait_for("the documents", warm).await;
    assert_eq!(visitor.ask("What is the price?").await.text, "It is one.");
    let status = service.get("/status.json").await.json();
    assert_eq!(status["problems"], json!([]));

    // Fill the disk under the store.
    let filling = async {
        let long = "z".repeat(7_900);
        while service.get("/status.json").await.json()["problems"] == json!([]) {
            visitor.ask(&long).await;
        }
    };
    wait_for("the disk to be full", filling).await;
    // Delete the service's files as well.
    fs::remove_dir_all(folder.path().join("failsoft-data")).unwrap();
    fs::remove_dir_all(folder.path().join("docs")).unwrap();
    fs::remove_file(folder.path().join("replies.toml")).unwrap();
    service.signal("HUP").await;

    let mut times = Vec::new();
    let asks = [
        (
            "When do I pour the tea?",
            "extractive",
            "Pour the tea after four minutes.\n\n— Tea (tea.md)",
        ),
        ("What is the price?", "template", "It is one."),
        ("Xyzzy?", "fallback", "Later, please."),
    ];
    for round in 0..10 {
        // A visitor who connects now is served too.
        if round % 3 == 0 {
            visitor = Visitor::new(service.port).await;
        }
        for (question, source, text) in asks {
            let asked = Instant::now();
            let shown = visitor.ask(question).await;
            times.push(asked.elapsed());
            assert_eq!(
                (shown.done_field("source"), shown.text.as_str()),
                (&json!(source), text)
            );
            assert_eq!(
                (shown.done_field("degraded"), shown.done_field("attempts")),
                (&json!(true), &json!(0))
            );
            assert_eq!(shown.accepted.unwrap()["durable"], false);
        }
    }
    times.sort();
    println!(
        "a labelled answer: median {:?}, slowest {:?}",
        times[15], times[29]
    );
    assert!(
        times[15] < Duration::from_millis(100),
        "the median is {:?}",
        times[15]
    );
    // The status names the problems, and the process keeps running.
    let status = service.get("/status.json").await.json();
    assert_eq!(status["active"], json!(null));
    assert!(
        status["problems"].as_array().unwrap().len() >= 2,
        "{status}"
    );
    assert_eq!(service.get("/healthz").await.status, 200);
    assert!(!service.has_exited());
    let logged = service.logged();
    assert!(!logged.contains("panicked"), "{logged}");
}
