//! What is on the disk when the service starts: rubbish, or a lot.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use failsoft::domain::{
    AnswerSource, ConversationId, FinishReason, Timestamp, TurnId, TurnRecord, TurnState,
};
use failsoft::store;
use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;

use super::alone;
use super::provider::{Manner, Provider, whole};
use super::service::{Service, ms};
use super::ws_client::Visitor;

const DATA: &str = "failsoft-data";

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

/// Overwrites every file of a folder with bytes that nobody wrote.
fn ruin(folder: &Path) {
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            ruin(&path)
        } else {
            fs::write(&path, &noise).unwrap()
        }
    }
}

#[tokio::test]
async fn on_a_ruined_store_it_starts_says_so_and_keeps_what_there_was() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitor = Visitor::new(service.port).await;
    visitor.ask("before").await;
    assert_eq!(
        service.get("/status.json").await.json()["problems"],
        serde_json::json!([])
    );
    service.stop().await;
    ruin(&folder.path().join(DATA).join("store"));

    let service = Service::start(folder.path(), &provider.config()).await;
    let status = service.get("/status.json").await.json();
    assert!(problems(&status).contains("damaged"), "{status}");
    assert!(
        !problems(&status).contains('/') && !problems(&status).contains(DATA),
        "{status}"
    );
    let aside = fs::read_dir(folder.path().join(DATA))
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> = aside
        .filter(|name| name.to_string_lossy().starts_with("store.damaged-"))
        .collect();
    assert_eq!(aside.len(), 1);
    let mut back = Visitor::back(service.port, visitor.conversation()).await;
    assert_eq!(back.history(), [] as [Value; 0]);
    let shown = back.ask("after").await;
    assert_eq!(
        (shown.text, &shown.accepted.unwrap()["durable"]),
        (whole("after"), &Value::Bool(true))
    );
    service.kill().await;

    let service = Service::start(folder.path(), &provider.config()).await;
    assert_eq!(
        service.get("/status.json").await.json()["problems"],
        serde_json::json!([])
    );
    let back = Visitor::back(service.port, visitor.conversation()).await;
    assert_eq!(back.history()[0]["question"], "after");
}

#[tokio::test]
async fn without_a_folder_to_write_to_it_chats_from_memory_and_says_so() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    fs::write(folder.path().join(DATA), "a file").unwrap();
    let service = Service::start(folder.path(), &provider.config()).await;
    let status = service.get("/status.json").await.json();
    assert!(problems(&status).contains("memory only"), "{status}");
    assert!(!problems(&status).contains(DATA), "{status}");
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.ask("hello").await.text, whole("hello"));
    let back = Visitor::back(service.port, visitor.conversation()).await;
    assert_eq!(back.history().len(), 1);
    assert_eq!(service.stop().await.code, Some(0));
}

/// How much a service in use has to read: conversations, and the turns of each.
const CONVERSATIONS: u8 = 120;
const TURNS: u64 = 100;

fn conversation(n: u8) -> ConversationId {
    ConversationId::from_random([n; 16])
}

fn turn(n: u8, at: u64) -> TurnRecord {
    // Some of a conversation's last turns were under way when it ended.
    let state = if at == TURNS && n.is_multiple_of(4) {
        TurnState::Running
    } else {
        TurnState::Done
    };
    let ended = state == TurnState::Done;
    TurnRecord {
        state,
        text: "A sentence of an answer as long as answers are. ".repeat(12),
        source: ended.then_some(AnswerSource::Ai),
        finish: ended.then_some(FinishReason::Stop),
        ..TurnRecord::new(
            TurnId::next_after(None, at, u64::from(n)),
            format!("m{at}").parse().unwrap(),
            Timestamp(at),
            format!("Question {at} of {n}"),
            None,
        )
    }
}

/// Writes conversations as a service does, and returns when the folder is free again.
async fn fill(data: &Path) {
    let opened = store::open(data, Timestamp(0)).unwrap();
    assert_eq!(opened.problems, [""; 0]);
    for n in 1..=CONVERSATIONS {
        let written = (1..=TURNS).map(|at| opened.store.write_turn(conversation(n), turn(n, at)));
        for result in join_all(written).await {
            result.unwrap();
        }
    }
    drop(opened);
    fs::File::open(data.join("lock")).unwrap().lock().unwrap();
}

async fn timed(folder: &Path, config: &str) -> (Service, Duration) {
    let began = Instant::now();
    let service = Service::start(folder, config).await;
    (service, began.elapsed())
}

#[tokio::test]
async fn on_a_large_store_it_starts_in_moderate_time() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let config = provider.config();
    let (service, empty) = timed(folder.path(), &config).await;
    service.stop().await;
    fill(&folder.path().join(DATA)).await;
    let (service, closed) = timed(folder.path(), &config).await;
    let back = Visitor::back(service.port, &conversation(7).to_string()).await;
    assert_eq!(back.history().len(), usize::try_from(TURNS).unwrap());
    let back = Visitor::back(service.port, &conversation(8).to_string()).await;
    assert_eq!(back.history().last().unwrap()["state"], "interrupted");
    service.kill().await;
    let (mut service, crashed) = timed(folder.path(), &config).await;
    assert!(!service.is_over());
    println!(
        "ready after {} on an empty store, {} on {} turns, {} on the same after a crash",
        ms(empty),
        ms(closed),
        u64::from(CONVERSATIONS) * TURNS,
        ms(crashed)
    );
    assert!(closed.max(crashed) < Duration::from_secs(30));
}
