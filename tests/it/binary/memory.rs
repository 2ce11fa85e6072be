//! Many visitors: what an idle one costs, and what happens where there is no room for more.

use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::provider::{Manner, Provider, UNLIMITED, whole};
use super::service::Service;
use super::ws_client::Visitor;
use super::{alone, within};

/// How many idle visitors there are, where the system's limit of open files lets them be.
const VISITORS: usize = 2000;

/// How many the service has seen before it is measured: the first ones pay for what all use.
const FIRST: usize = 100;

/// The most that an idle visitor may cost, in bytes.
const MOST: usize = 40 * 1024;

/// How much memory of this process is in use, in bytes.
#[cfg(target_os = "linux")]
fn resident(pid: u32) -> usize {
    memory(pid, "VmRSS:")
}

/// The most memory that this process ever used, in bytes.
#[cfg(target_os = "linux")]
pub fn most_resident(pid: u32) -> usize {
    memory(pid, "VmHWM:")
}

#[cfg(target_os = "linux")]
fn memory(pid: u32, what: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .unwrap();
    line.trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// How many files a process may have open.
#[cfg(target_os = "linux")]
fn files() -> usize {
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

/// How many files a process has open.
#[cfg(target_os = "linux")]
fn open(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// So many visitors in conversations of their own.
pub async fn come(port: u16, count: usize) -> Vec<Visitor> {
    let coming = stream::iter(0..count)
        .map(|_| Visitor::new(port))
        .buffer_unordered(32);
    within("all visitors", coming.collect()).await
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn an_idle_visitor_costs_little_memory() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let service = Service::start(folder.path(), UNLIMITED).await;
    let count = VISITORS.min(files().saturating_sub(FIRST + 300));
    let first = come(service.port, FIRST).await;
    let before = resident(service.pid());
    let idle = come(service.port, count).await;
    // Each of them is there and served.
    assert_eq!(
        idle.iter()
            .filter(|visitor| visitor.welcome["protocol"] == 1)
            .count(),
        count
    );
    let each = resident(service.pid()).saturating_sub(before) / count;
    println!("{count} idle visitors cost {each} bytes each, over {before} with {FIRST}");
    assert!(each < MOST, "{each} bytes");
    let all = open(service.pid());
    assert!(all >= FIRST + count);
    drop((first, idle));
    // Each answer is one more look, and takes one file itself.
    let freed = async {
        while open(service.pid()) > all - FIRST - count + 8 {
            service.get("/healthz").await;
        }
    };
    within("the sockets of visitors who left to be closed", freed).await;
    assert_eq!(service.stop().await.code, Some(0));
}

/// The system's limit of open files is met long before the service's own limits: it neither ends nor stays deaf.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn without_files_to_open_it_waits_and_goes_on_when_there_are_some_again() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
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
        limit(&format!("{}:", open(service.pid()) + 8))
            .await
            .unwrap()
            .success()
    );
    // Accepted or waiting in the kernel's queue: nobody is told.
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(
            TcpStream::connect(("127.0.0.1", service.port))
                .await
                .unwrap(),
        );
    }
    // No connection to the provider can be had either: a labelled answer, over the socket that is open.
    let shown = visitor.ask("second").await;
    assert_eq!(*shown.end("finish"), "stop");
    drop(crowd);
    let mut other = Visitor::new(service.port).await;
    let shown = within("an answer by the provider", async {
        loop {
            let shown = other.ask("third").await;
            if *shown.end("source") == "ai" {
                return shown;
            }
        }
    });
    assert_eq!(shown.await.text, whole("third"));
    assert!(!service.is_over());
    assert_eq!(service.stop().await.code, Some(0));
}
