//! Names whose look-up hangs: the system's resolver asks a server that says nothing, for minutes, and cannot be told to stop. Nobody waits for
//! that but who asked, within the time for connects; nothing else is starved by it, and the service still goes when it is told to.
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

use super::provider::{Manner, Provider, whole};
use super::service::{Service, ms};
use super::ws_client::Visitor;
use super::{alone, within};

/// How long a look-up goes on with nobody answering it: the longest that the resolver can be told to wait, and to ask again.
const OPTIONS: &str = "options timeout:30 attempts:5";

/// Questions at once whose first provider has a name that hangs: more than a worker has threads for what blocks.
const CROWD: usize = 600;

/// The time for connects.
const CONNECT: Duration = Duration::from_secs(1);

/// Threads of the service that such look-ups may take: so many for each name.
const THREADS: usize = 4;

/// How long the service may take to be gone once nothing is under way.
const GONE: Duration = Duration::from_secs(10);

/// A server of names that hears questions and says nothing.
struct Deaf {
    socket: UdpSocket,
    address: Ipv4Addr,
}

impl Deaf {
    /// None where the system does not let us be one: it takes a port below 1024.
    async fn listen() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(53);
        let [.., high, low] = std::process::id().to_be_bytes();
        // Of loopback, and of this test alone.
        let address = Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low);
        Some(Self {
            socket: UdpSocket::bind((address, 53)).await.ok()?,
            address,
        })
    }

    /// Waits until somebody asks for this name.
    async fn asked(&self, name: &str) {
        let first = name.split('.').next().unwrap().as_bytes();
        let asking = async {
            let mut question = [0; 512];
            loop {
                let length = self.socket.recv(&mut question).await.unwrap();
                if question[..length]
                    .windows(first.len())
                    .any(|part| part == first)
                {
                    return;
                }
            }
        };
        within("the question for a name", asking).await;
    }

    /// The service as it runs where this server is the system's: in a view of the files of its own. None where that is not permitted.
    async fn serves(&self, folder: &Path) -> Option<Command> {
        let file = folder.join("resolv.conf");
        std::fs::write(&file, format!("nameserver {}\n{OPTIONS}\n", self.address)).unwrap();
        // And nobody else is asked: some systems have a service for it.
        let sources = folder.join("nsswitch.conf");
        std::fs::write(&sources, "hosts: files dns\n").unwrap();
        let mounts = "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/nsswitch.conf && shift 2";
        let seen = |then: &str| format!("{mounts} && {then}");
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
        let tried = command(seen("true")).output().await.ok()?;
        let mut serving = command(seen("exec \"$@\""));
        serving.args([env!("CARGO_BIN_EXE_failsoft"), "--listen", "127.0.0.1:0"]);
        tried.status.success().then_some(serving)
    }
}

/// The service with this configuration, and the server of names that it asks in vain. None, and that is said, where it cannot be had.
async fn nameless(folder: &Path, config: &str) -> Option<(Service, Deaf)> {
    std::fs::write(folder.join("failsoft.toml"), config).unwrap();
    let started = async {
        let deaf = Deaf::listen().await?;
        let command = deaf.serves(folder).await?;
        Some((Service::of(command).await, deaf))
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
    let well = provider.config();
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
{well}
turns = 2000
[cache]
enabled = false
[chat]
visitor_options = true
"#,
        CONNECT.as_millis()
    )
}

/// How many threads a process has.
fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn the_next_answers_within_the_connect_limit_and_nothing_else_is_starved() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let Some((service, deaf)) = nameless(folder.path(), &config(&provider)).await else {
        return;
    };
    let mut visitor = Visitor::new(service.port).await;
    let conversation = visitor.conversation().to_owned();
    let (shown, ()) = tokio::join!(visitor.ask("first"), deaf.asked("nameless.example"));
    assert_eq!(shown.text, whole("first"));
    let tried = &shown.end("tried")[0];
    assert_eq!(
        (&tried["provider"], &tried["outcome"]),
        (&json!("nameless"), &json!("timeout"))
    );
    let waited = Duration::from_millis(tried["ms"].as_u64().unwrap());
    assert!(waited >= CONNECT, "given up after {waited:?}");
    let before = threads(service.pid());

    // A crowd is at it, all of them on one worker.
    let mut crowd = join_all((0..CROWD).map(|_| Visitor::new(service.port))).await;
    let begun = Instant::now();
    let asked = join_all(crowd.iter_mut().enumerate().map(async |(n, visitor)| {
        let shown = visitor.ask(&format!("question {n}")).await;
        assert_eq!(shown.text, whole(&format!("question {n}")));
        assert_eq!(shown.end("tried")[0]["outcome"], "timeout");
    }));
    let others = async {
        // Questions that need no name are answered meanwhile, and what is on the disk is read.
        for n in 0..10 {
            let question = format!("by name {n}");
            let options = json!({ "provider": "scripted" });
            let said = json!({ "message": question, "options": options });
            let answer = service.post("/api/chat", said).await.json();
            assert_eq!(
                (&answer["message"], &answer["attempts"]),
                (&json!(whole(&question)), &json!(1))
            );
            assert_eq!(
                Visitor::back(service.port, &conversation)
                    .await
                    .history()
                    .len(),
                1
            );
        }
        begun.elapsed()
    };
    let (_, others) = tokio::join!(asked, others);
    println!(
        "{CROWD} answers {} after a name hung, others' {}",
        ms(begun.elapsed()),
        ms(others)
    );
    let most = before + THREADS;
    assert!(
        threads(service.pid()) <= most,
        "{} threads, after {before}",
        threads(service.pid())
    );

    drop(crowd);
    goes(service).await;
}

/// Look-ups still hang, and hold nothing up.
async fn goes(service: Service) {
    let told = Instant::now();
    let ended = service.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    println!("gone {} after SIGTERM", ms(told.elapsed()));
    assert!(told.elapsed() < GONE, "{:?}", told.elapsed());
}

#[tokio::test]
async fn one_of_redis_keeps_neither_the_chat_nor_the_end_waiting() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let shared = "store = { backend = \"redis\", redis_url = \"redis://redis.example:6379\" }\n";
    let config = format!("{shared}{}", provider.config());
    let Some((service, deaf)) = nameless(folder.path(), &config).await else {
        return;
    };
    let mut visitor = Visitor::new(service.port).await;
    let (shown, ()) = tokio::join!(visitor.ask("alone"), deaf.asked("redis.example"));
    assert_eq!(shown.text, whole("alone"));
    goes(service).await;
}
