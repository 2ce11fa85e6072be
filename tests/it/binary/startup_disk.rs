//! The start on a damaged data folder, and on a large one.

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

use super::exclusive;
use super::provider::{Behavior, Provider, full_answer};
use super::service::{Service, ms};
use super::ws_client::Visitor;

const DATA_FOLDER: &str = "failsoft-data";

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

/// Overwrites every file of a folder with noise.
fn overwrite_with_noise(folder: &Path) {
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite_with_noise(&path)
        } else {
            fs::write(&path, &noise).unwrap()
        }
    }
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_reported() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitor = Visitor::new(service.port).await;
    visitor.ask("before").await;
    assert_eq!(
        service.get("/status.json").await.json()["problems"],
        serde_json::json!([])
    );
    service.stop().await;
    overwrite_with_noise(&folder.path().join(DATA_FOLDER).join("store"));

    let service = Service::start(folder.path(), &provider.config()).await;
    let status = service.get("/status.json").await.json();
    assert!(problems(&status).contains("damaged"), "{status}");
    assert!(
        !problems(&status).contains('/') && !problems(&status).contains(DATA_FOLDER),
        "{status}"
    );
    let aside = fs::read_dir(folder.path().join(DATA_FOLDER))
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
        (full_answer("after"), &Value::Bool(true))
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
async fn an_unusable_data_folder_is_reported_and_memory_is_used() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    fs::write(folder.path().join(DATA_FOLDER), "a file").unwrap();
    let service = Service::start(folder.path(), &provider.config()).await;
    let status = service.get("/status.json").await.json();
    assert!(problems(&status).contains("memory only"), "{status}");
    assert!(!problems(&status).contains(DATA_FOLDER), "{status}");
    let mut visitor = Visitor::new(service.port).await;
    assert_eq!(visitor.ask("hello").await.text, full_answer("hello"));
    let back = Visitor::back(service.port, visitor.conversation()).await;
    assert_eq!(back.history().len(), 1);
    assert_eq!(service.stop().await.code, Some(0));
}

/// The size of a large store: conversations, and turns of each.
const CONVERSATIONS: u8 = 120;
const TURNS: u64 = 100;

fn conversation(n: u8) -> ConversationId {
    ConversationId::from_random([n; 16])
}

fn turn(n: u8, at: u64) -> TurnRecord {
    // The last turn of some conversations was still running.
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

/// Writes conversations as a service does, and returns when the data folder is unlocked.
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

async fn start_timed(folder: &Path, config: &str) -> (Service, Duration) {
    let started = Instant::now();
    let service = Service::start(folder, config).await;
    (service, started.elapsed())
}

#[tokio::test]
async fn a_large_store_starts_within_30_seconds() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let config = provider.config();
    let (service, empty) = start_timed(folder.path(), &config).await;
    service.stop().await;
    fill(&folder.path().join(DATA_FOLDER)).await;
    let (service, closed) = start_timed(folder.path(), &config).await;
    let back = Visitor::back(service.port, &conversation(7).to_string()).await;
    assert_eq!(back.history().len(), usize::try_from(TURNS).unwrap());
    let back = Visitor::back(service.port, &conversation(8).to_string()).await;
    assert_eq!(back.history().last().unwrap()["state"], "interrupted");
    service.kill().await;
    let (mut service, crashed) = start_timed(folder.path(), &config).await;
    assert!(!service.has_exited());
    println!(
        "ready after {} on an empty store, {} on {} turns, {} on the same after a crash",
        ms(empty),
        ms(closed),
        u64::from(CONVERSATIONS) * TURNS,
        ms(crashed)
    );
    assert!(closed.max(crashed) < Duration::from_secs(30));
}
