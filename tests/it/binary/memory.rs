//! The memory that idle visitors cost, and a process without free file descriptors.

use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::provider::{Behavior, Provider, UNLIMITED, full_answer};
use super::service::Service;
use super::ws_client::Visitor;
use super::{exclusive, wait_for};

/// The number of idle visitors, if the system's limit of open files permits it.
const VISITORS: usize = 2000;

/// The number of visitors before the measurement: the first ones pay for shared structures.
const WARM_UP_VISITORS: usize = 100;

/// The maximum memory of an idle visitor, in bytes.
const MAX_BYTES_PER_VISITOR: usize = 40 * 1024;

/// The resident memory of a process, in bytes.
#[cfg(target_os = "linux")]
fn resident_bytes(pid: u32) -> usize {
    status_bytes(pid, "VmRSS:")
}

/// The peak resident memory of a process, in bytes.
#[cfg(target_os = "linux")]
pub fn peak_resident_bytes(pid: u32) -> usize {
    status_bytes(pid, "VmHWM:")
}

#[cfg(target_os = "linux")]
fn status_bytes(pid: u32, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// The limit of open files of this process.
#[cfg(target_os = "linux")]
fn max_open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    line.split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap_or(usize::MAX)
}

/// The number of files that a process has open.
#[cfg(target_os = "linux")]
fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Connects visitors, each in a new conversation.
pub async fn connect_visitors(port: u16, count: usize) -> Vec<Visitor> {
    let coming = stream::iter(0..count)
        .map(|_| Visitor::new(port))
        .buffer_unordered(32);
    wait_for("all visitors", coming.collect()).await
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn idle_visitors_use_little_memory() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let service = Service::start(folder.path(), UNLIMITED).await;
    let count = VISITORS.min(max_open_files().saturating_sub(WARM_UP_VISITORS + 300));
    let first = connect_visitors(service.port, WARM_UP_VISITORS).await;
    let before = resident_bytes(service.pid());
    let idle = connect_visitors(service.port, count).await;
    // Each of them was welcomed.
    assert_eq!(
        idle.iter()
            .filter(|visitor| visitor.welcome["protocol"] == 1)
            .count(),
        count
    );
    let each = resident_bytes(service.pid()).saturating_sub(before) / count;
    println!("{count} idle visitors cost {each} bytes each, over {before} with {WARM_UP_VISITORS}");
    assert!(each < MAX_BYTES_PER_VISITOR, "{each} bytes");
    let open_before = open_files(service.pid());
    assert!(open_before >= WARM_UP_VISITORS + count);
    drop((first, idle));
    // Each request takes one descriptor itself.
    let freed = async {
        while open_files(service.pid()) > open_before - WARM_UP_VISITORS - count + 8 {
            service.get("/healthz").await;
        }
    };
    wait_for("the sockets of visitors who left to be closed", freed).await;
    assert_eq!(service.stop().await.code, Some(0));
}

/// The system's limit of open files is reached before the service's own connection limits.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_service_recovers_from_running_out_of_file_descriptors() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let mut service = Service::start(folder.path(), &provider.config()).await;
    let mut visitor = Visitor::new(service.port).await;
    visitor.ask("first").await;
    let limit = |files: &str| {
        Command::new("prlimit")
            .args([
                &format!("--nofile={files}"),
                "--pid",
                &service.pid().to_string(),
            ])
            .status()
    };
    assert!(
        limit(&format!("{}:", open_files(service.pid()) + 8))
            .await
            .unwrap()
            .success()
    );
    // Accepted, or waiting in the kernel's queue: the clients see no difference.
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(
            TcpStream::connect(("127.0.0.1", service.port))
                .await
                .unwrap(),
        );
    }
    // The provider cannot be reached either: a labelled answer, over the open socket.
    let shown = visitor.ask("second").await;
    assert_eq!(*shown.done_field("finish"), "stop");
    drop(crowd);
    let mut other = Visitor::new(service.port).await;
    let shown = wait_for("an answer by the provider", async {
        loop {
            let shown = other.ask("third").await;
            if *shown.done_field("source") == "ai" {
                return shown;
            }
        }
    });
    assert_eq!(shown.await.text, full_answer("third"));
    assert!(!service.has_exited());
    assert_eq!(service.stop().await.code, Some(0));
}
