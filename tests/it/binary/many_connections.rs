//! Ten thousand connections at once: each is served or told that there is no room; and all of them again when the service comes back.
#![cfg(target_os = "linux")]

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::provider::{Manner, Provider, whole};
use super::service::{Service, ms};
use super::ws_client::Visitor;
use super::{alone, within};

/// How many come.
const CROWD: usize = 10_000;

/// For how many there is room, beside the one who is there already.
const ROOM: usize = 9_000;

/// Files that this process, and the service, need besides.
const BESIDES: u64 = 1_000;

/// What comes of one who comes.
enum Came {
    /// A welcome, over a connection that is still open, to this conversation.
    Served(TcpStream, String),
    /// 503 with the time to come back at, and the end of the connection.
    Refused,
}

/// A hello as a masked frame of text. The mask is of zeros: it changes nothing, and is a mask.
fn frame(hello: &Value) -> Vec<u8> {
    let text = hello.to_string();
    let mut bytes = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    bytes.extend(text.as_bytes());
    bytes
}

async fn comes(port: u16, conversation: Option<&str>) -> Came {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let hello = frame(&json!({ "type": "hello", "conversation": conversation }));
    // Who is refused may find the connection closed before all is said.
    drop(stream.write_all(&[head.as_bytes(), &hello].concat()).await);
    let mut heard = Vec::new();
    loop {
        let mut more = [0; 2048];
        let read = stream.read(&mut more).await.unwrap_or(0);
        heard.extend(&more[..read]);
        let text = String::from_utf8_lossy(&heard);
        let begins = text.lines().next().unwrap_or_default();
        if begins.starts_with("HTTP/1.1 503 ") && text.contains("\r\n\r\n") {
            assert!(
                text.to_ascii_lowercase().contains("\r\nretry-after: "),
                "{text}"
            );
            return Came::Refused;
        }
        if let Some(at) = text.find("\"conversation\":\"") {
            assert!(
                begins.starts_with("HTTP/1.1 101 ") && text.contains("\"type\":\"welcome\""),
                "{text}"
            );
            let id = text[at..].split('"').nth(3).unwrap().to_owned();
            return Came::Served(stream, id);
        }
        assert!(read > 0, "cut off without a word: {text}");
    }
}

/// All of them at once; gives those who were served.
async fn crowd(port: u16, conversations: &[Option<String>]) -> Vec<(TcpStream, String)> {
    let begun = Instant::now();
    let coming = join_all(conversations.iter().map(|id| comes(port, id.as_deref())));
    let came = within("an answer for each of them", coming).await;
    let served: Vec<_> = came
        .into_iter()
        .filter_map(|one| match one {
            Came::Served(stream, id) => Some((stream, id)),
            Came::Refused => None,
        })
        .collect();
    let refused = conversations.len() - served.len();
    println!(
        "{} served and {refused} refused after {}",
        served.len(),
        ms(begun.elapsed())
    );
    served
}

/// Lets this process, and those that it starts, have so many files open. False, and that is said, where the system forbids it.
pub async fn may_open(files: u64) -> bool {
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
    let may = raised.is_ok_and(|status| status.success());
    if !may {
        println!("NOT RUN: the system's hard limit of open files is below {files}");
    }
    may
}

#[tokio::test]
async fn ten_thousand_at_once_are_served_or_refused_and_so_they_are_when_they_come_back() {
    let _alone = alone().await;
    if !may_open(CROWD as u64 + BESIDES).await {
        return;
    }
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let limits = format!("connections = {}\nconnections_per_ip = 20000", ROOM + 1);
    let config = provider
        .config()
        .replace("connections_per_ip = 10000", &limits);
    let service = Service::start(folder.path(), &config).await;
    let port = service.port;
    let mut first = Visitor::new(port).await;
    let strangers = vec![None; CROWD];
    let (served, shown) = tokio::join!(crowd(port, &strangers), first.ask("in the crowd"));
    // Who is there already is answered meanwhile, by the provider.
    assert_eq!(shown.text, whole("in the crowd"));
    assert_eq!(served.len(), ROOM);
    let ids: Vec<_> = served.iter().map(|(_, id)| Some(id.clone())).collect();
    // It dies; when it is back all come back at the same moment, each to their conversation.
    service.kill().await;
    drop(served);
    let mut service = Service::start_on(folder.path(), &config, port).await;
    let served = crowd(port, &ids).await;
    assert_eq!(served.len(), ROOM);
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
    assert!(!service.is_over());
    assert_eq!(service.stop().await.code, Some(0));
}
