//! Ten thousand simultaneous connections: each is served or refused with 503, and again after a
//! restart of the service.
#![cfg(target_os = "linux")]

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::provider::{Behavior, Provider, full_answer};
use super::service::{Service, ms};
use super::ws_client::Visitor;
use super::{exclusive, wait_for};

const CROWD: usize = 10_000;

/// The number of connections that the service admits, besides the first visitor's.
const ADMITTED: usize = 9_000;

/// Open files that this process and the service need besides the connections.
const SPARE_FILES: u64 = 1_000;

/// The outcome of a connection attempt.
enum ConnectOutcome {
    /// A welcome, over a connection that is still open, and the conversation's id.
    Served(TcpStream, String),
    /// 503 with `Retry-After`, and the connection is closed.
    Refused,
}

/// A `hello` frame as masked text. The mask is all zeros, so the payload is unchanged.
fn frame(hello: &Value) -> Vec<u8> {
    let text = hello.to_string();
    let mut bytes = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    bytes.extend(text.as_bytes());
    bytes
}

async fn try_connect(port: u16, conversation: Option<&str>) -> ConnectOutcome {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let hello = frame(&json!({ "type": "hello", "conversation": conversation }));
    // A refused client may find the connection closed before it has sent everything.
    drop(stream.write_all(&[head.as_bytes(), &hello].concat()).await);
    let mut received = Vec::new();
    loop {
        let mut more = [0; 2048];
        let read = stream.read(&mut more).await.unwrap_or(0);
        received.extend(&more[..read]);
        let text = String::from_utf8_lossy(&received);
        let status_line = text.lines().next().unwrap_or_default();
        if status_line.starts_with("HTTP/1.1 503 ") && text.contains("\r\n\r\n") {
            assert!(
                text.to_ascii_lowercase().contains("\r\nretry-after: "),
                "{text}"
            );
            return ConnectOutcome::Refused;
        }
        if let Some(at) = text.find("\"conversation\":\"") {
            assert!(
                status_line.starts_with("HTTP/1.1 101 ") && text.contains("\"type\":\"welcome\""),
                "{text}"
            );
            let id = text[at..].split('"').nth(3).unwrap().to_owned();
            return ConnectOutcome::Served(stream, id);
        }
        assert!(read > 0, "closed without an answer: {text}");
    }
}

/// Opens all connections at once, and returns those that were served.
async fn connect_all(port: u16, conversations: &[Option<String>]) -> Vec<(TcpStream, String)> {
    let started = Instant::now();
    let coming = join_all(
        conversations
            .iter()
            .map(|id| try_connect(port, id.as_deref())),
    );
    let outcomes = wait_for("an answer for each of them", coming).await;
    let served: Vec<_> = outcomes
        .into_iter()
        .filter_map(|outcome| match outcome {
            ConnectOutcome::Served(stream, id) => Some((stream, id)),
            ConnectOutcome::Refused => None,
        })
        .collect();
    let refused = conversations.len() - served.len();
    println!(
        "{} served and {refused} refused after {}",
        served.len(),
        ms(started.elapsed())
    );
    served
}

/// Raises the limit of open files of this process and its future children to at least `files`.
/// Prints a note and returns `false` if the system does not permit it.
pub async fn raise_open_file_limit(files: u64) -> bool {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let soft = line
        .split_whitespace()
        .next()
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(u64::MAX);
    if soft >= files {
        return true;
    }
    let me = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args([&format!("--nofile={files}:"), "--pid", &me])
        .status()
        .await;
    let is_raised = raised.is_ok_and(|status| status.success());
    if !is_raised {
        println!("NOT RUN: the system's hard limit of open files is below {files}");
    }
    is_raised
}

#[tokio::test]
async fn ten_thousand_connections_are_served_or_refused_before_and_after_a_restart() {
    let _exclusive = exclusive().await;
    if !raise_open_file_limit(CROWD as u64 + SPARE_FILES).await {
        return;
    }
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let limits = format!("connections = {}\nconnections_per_ip = 20000", ADMITTED + 1);
    let config = provider
        .config()
        .replace("connections_per_ip = 10000", &limits);
    let service = Service::start(folder.path(), &config).await;
    let port = service.port;
    let mut first = Visitor::new(port).await;
    let strangers = vec![None; CROWD];
    let (served, shown) = tokio::join!(connect_all(port, &strangers), first.ask("in the crowd"));
    // The visitor who is connected already is answered by the provider meanwhile.
    assert_eq!(shown.text, full_answer("in the crowd"));
    assert_eq!(served.len(), ADMITTED);
    let ids: Vec<_> = served.iter().map(|(_, id)| Some(id.clone())).collect();
    // Kill the service; after the restart all come back at once, each to their conversation.
    service.kill().await;
    drop(served);
    let mut service = Service::start_on(folder.path(), &config, port).await;
    let served = connect_all(port, &ids).await;
    assert_eq!(served.len(), ADMITTED);
    assert!(
        served
            .iter()
            .zip(&ids)
            .all(|((_, id), known)| Some(id) == known.as_ref())
    );
    assert_eq!(
        Visitor::back(port, first.conversation())
            .await
            .history()
            .len(),
        1
    );
    drop(served);
    assert!(!service.has_exited());
    assert_eq!(service.stop().await.code, Some(0));
}
