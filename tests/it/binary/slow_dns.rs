//! Host names whose lookup hangs: the system's resolver waits for a DNS server that never answers,
//! for minutes, and cannot be cancelled. Only the calls to such a host wait, within their connect
//! timeout; nothing else is delayed, and the service still stops promptly.
#![cfg(target_os = "linux")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::process::Command;

use super::provider::{Behavior, Provider, full_answer};
use super::service::{Service, ms};
use super::ws_client::Visitor;
use super::{exclusive, wait_for};

/// Resolver options: the longest timeout and the most attempts that it accepts.
const RESOLVER_OPTIONS: &str = "options timeout:30 attempts:5";

/// The number of simultaneous questions whose first provider has a hanging name: more than a
/// worker has blocking threads.
const CROWD: usize = 600;

/// The connect timeout of the provider with the hanging name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of threads that look up one name.
const THREADS_PER_NAME: usize = 4;

/// The longest that the service may take to exit while only lookups run.
const MAX_STOP_TIME: Duration = Duration::from_secs(10);

/// A DNS server that receives queries and never answers.
struct SilentDnsServer {
    socket: UdpSocket,
    address: Ipv4Addr,
}

impl SilentDnsServer {
    /// Binds port 53. Returns `None` if the system does not permit it.
    async fn listen() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(53);
        let [.., high, low] = std::process::id().to_be_bytes();
        // A loopback address that no other test uses.
        let address = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low);
        Some(Self {
            socket: UdpSocket::bind((address, 53)).await.ok()?,
            address,
        })
    }

    /// Waits for a query of this name.
    async fn wait_for_query(&self, name: &str) {
        let label = name.split('.').next().unwrap().as_bytes();
        let asking = async {
            let mut question = [0; 512];
            loop {
                let length = self.socket.recv(&mut question).await.unwrap();
                if question[..length]
                    .windows(label.len())
                    .any(|part| part == label)
                {
                    return;
                }
            }
        };
        wait_for("the question for a name", asking).await;
    }

    /// A command line that runs the service with this DNS server, in its own mount namespace.
    ///
    /// Returns `None` if the system does not permit it.
    async fn service_command(&self, folder: &Path) -> Option<Command> {
        let file = folder.join("resolv.conf");
        std::fs::write(
            &file,
            format!("nameserver {}\n{RESOLVER_OPTIONS}\n", self.address),
        )
        .unwrap();
        // Other name services of the system are not asked.
        let sources = folder.join("nsswitch.conf");
        std::fs::write(&sources, "hosts: files dns\n").unwrap();
        let mounts = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/nsswitch.conf && shift 2";
        let in_namespace = |then: &str| format!("{mounts} && {then}");
        let command = |line: String| {
            let mut command = Command::new("/usr/bin/unshare");
            command
                .args(["--mount", "/bin/sh", "-c", &line, "sh"])
                .args([&file, &sources]);
            command
                .current_dir(folder)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .kill_on_drop(true);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command
        };
        let attempt = command(in_namespace("true")).output().await.ok()?;
        let mut serving = command(in_namespace("exec \"$@\""));
        serving.args([env!("CARGO_BIN_EXE_failsoft"), "--listen", "127.0.0.1:0"]);
        attempt.status.success().then_some(serving)
    }
}

/// Starts the service with a silent DNS server. Returns `None`, with a printed note, if the system
/// does not permit it.
async fn start_with_silent_dns(folder: &Path, config: &str) -> Option<(Service, SilentDnsServer)> {
    std::fs::write(folder.join("failsoft.toml"), config).unwrap();
    let started = async {
        let dns = SilentDnsServer::listen().await?;
        let command = dns.service_command(folder).await?;
        Some((Service::of(command).await, dns))
    };
    let started = started.await;
    if started.is_none() {
        println!(
            "NOT RUN: a server of names of our own, for one process alone, takes the rights of root"
        );
    }
    started
}

fn config(provider: &Provider) -> String {
    let working = provider.config();
    format!(
        r#"
server.workers = 1
[[providers]]
name = "nameless"
dialect = "openai"
base_url = "https://nameless.example/v1"
model = "nameless-1"
api_key = "a-key"
max_concurrent = 10000
timeouts = {{ connect = "{}ms", first_token = "60s" }}
breaker = {{ consecutive_failures = 1000000, min_calls = 1000000 }}
{working}
turns = 2000
[cache]
enabled = false
[chat]
visitor_options = true
"#,
        CONNECT_TIMEOUT.as_millis()
    )
}

/// The number of threads of a process.
fn thread_count(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn a_hanging_lookup_fails_over_within_the_connect_timeout_and_starves_nothing() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let Some((service, dns)) = start_with_silent_dns(folder.path(), &config(&provider)).await
    else {
        return;
    };
    let mut visitor = Visitor::new(service.port).await;
    let conversation = visitor.conversation().to_owned();
    let (shown, ()) = tokio::join!(visitor.ask("first"), dns.wait_for_query("nameless.example"));
    assert_eq!(shown.text, full_answer("first"));
    let tried = &shown.done_field("tried")[0];
    assert_eq!(
        (&tried["provider"], &tried["outcome"]),
        (&json!("nameless"), &json!("timeout"))
    );
    let waited = Duration::from_millis(tried["ms"].as_u64().unwrap());
    assert!(waited >= CONNECT_TIMEOUT, "given up after {waited:?}");
    let before = thread_count(service.pid());

    // Many visitors ask at the same time, on the only worker.
    let mut crowd = join_all((0..CROWD).map(|_| Visitor::new(service.port))).await;
    let started = Instant::now();
    let asked = join_all(crowd.iter_mut().enumerate().map(async |(n, visitor)| {
        let shown = visitor.ask(&format!("question {n}")).await;
        assert_eq!(shown.text, full_answer(&format!("question {n}")));
        assert_eq!(shown.done_field("tried")[0]["outcome"], "timeout");
    }));
    let others = async {
        // Meanwhile, questions that need no lookup are answered, and the disk is read.
        for n in 0..10 {
            let question = format!("by name {n}");
            let options = json!({ "provider": "scripted" });
            let body = json!({ "message": question, "options": options });
            let answer = service.post("/api/chat", body).await.json();
            assert_eq!(
                (&answer["message"], &answer["attempts"]),
                (&json!(full_answer(&question)), &json!(1))
            );
            assert_eq!(
                Visitor::back(service.port, &conversation)
                    .await
                    .history()
                    .len(),
                1
            );
        }
        started.elapsed()
    };
    let (_, others) = tokio::join!(asked, others);
    println!(
        "{CROWD} answers {} after a name hung, others' {}",
        ms(started.elapsed()),
        ms(others)
    );
    let max_threads = before + THREADS_PER_NAME;
    assert!(
        thread_count(service.pid()) <= max_threads,
        "{} threads, after {before}",
        thread_count(service.pid())
    );

    drop(crowd);
    assert_stops_promptly(service).await;
}

/// Stops the service while lookups still hang.
async fn assert_stops_promptly(service: Service) {
    let signalled = Instant::now();
    let ended = service.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    println!("gone {} after SIGTERM", ms(signalled.elapsed()));
    assert!(
        signalled.elapsed() < MAX_STOP_TIME,
        "{:?}",
        signalled.elapsed()
    );
}

#[tokio::test]
async fn a_hanging_redis_lookup_delays_neither_answers_nor_shutdown() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let shared = "store = { backend = \"redis\", redis_url = \"redis://redis.example:6379\" }\n";
    let config = format!("{shared}{}", provider.config());
    let Some((service, dns)) = start_with_silent_dns(folder.path(), &config).await else {
        return;
    };
    let mut visitor = Visitor::new(service.port).await;
    let (shown, ()) = tokio::join!(visitor.ask("alone"), dns.wait_for_query("redis.example"));
    assert_eq!(shown.text, full_answer("alone"));
    assert_stops_promptly(service).await;
}
