//! One thread of the service stops for three seconds, as under a blocking call. Visitors on other
//! threads do not notice, the others are answered afterwards. No answer is lost or torn, and no
//! breaker counts a failure.
#![cfg(target_os = "linux")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::many_connections::raise_open_file_limit;
use super::memory::connect_visitors;
use super::provider::{
    ANSWER_END, Behavior, DRIPPED_WORD, Provider, UNLIMITED, answer_start, question, read_request,
};
use super::service::{Service, ms};
use super::stopped_thread::{StoppedThread, threads_named};
use super::ws_client::{ShownTurn, Visitor};
use super::{exclusive, wait_for};

/// The time for which a thread or the process is stopped.
pub const STOPPED_FOR: Duration = Duration::from_secs(3);

/// The provider timeouts: shorter than [`STOPPED_FOR`].
const PROVIDER_TIMEOUT: &str = "1s";

/// The pause between two words of an answer.
const PAUSE: Duration = Duration::from_millis(200);

/// The number of running answers, and of further visitors who ask later.
const VISITORS: usize = 60;

/// Longer than a word takes on a busy machine, and shorter than [`STOPPED_FOR`].
const NORMAL_DELAY: Duration = Duration::from_secs(2);

/// The name of the worker threads, as far as the system stores it (15 characters).
const WORKER_THREAD: &str = "actix-rt|system";

/// The number of simultaneous questions: more than an actor's mailbox admits.
const CROWD: usize = 1_200;

/// Open files that this process and the service each need.
const OPEN_FILES: u64 = 2_000;

/// A visitor's number, the visitor, and their answer as far as they have read it.
pub type Reading = (usize, Visitor, ShownTurn);

/// A service with two workers, running answers, and visitors who have not asked yet.
pub struct Setup {
    _folder: TempDir,
    provider: Provider,
    pub service: Service,
    pub reading: Vec<Reading>,
    idle: Vec<Visitor>,
}

impl Setup {
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let provider = Provider::start(Behavior::Drip(PAUSE)).await;
        let timeouts =
            format!("first_token = \"{PROVIDER_TIMEOUT}\", stall = \"{PROVIDER_TIMEOUT}\"");
        let config = provider
            .config()
            .replace("first_token = \"60s\", stall = \"60s\"", &timeouts);
        // A breaker that opens after few failures.
        let sensitive = "breaker = { consecutive_failures = 3, min_calls = 5 }\n[limits]";
        let config = format!(
            "server.workers = 2\n{}",
            config.replace("[limits]", sensitive)
        );
        let service = Service::start(folder.path(), &config).await;
        let reading = connect_visitors(service.port, VISITORS)
            .await
            .into_iter()
            .enumerate();
        let reading = join_all(reading.map(|(n, visitor)| start_answer(n, visitor))).await;
        let idle = connect_visitors(service.port, VISITORS).await;
        Self {
            _folder: folder,
            provider,
            service,
            reading,
            idle,
        }
    }

    /// Asserts that every answer completes by its first attempt. Returns the provider's status.
    pub async fn assert_all_answers_complete(&mut self) -> Value {
        self.provider.set_behavior(Behavior::Answer);
        let ends = self.reading.iter_mut().map(async |(n, visitor, shown)| {
            visitor.read_to_end(shown).await;
            let end = ["source", "finish", "attempts"].map(|field| shown.done_field(field).clone());
            assert_eq!(
                end,
                [json!("ai"), json!("stop"), json!(1)],
                "{n}: {shown:?}"
            );
            assert!(
                shown.text.starts_with(&answer_start(&question(*n)))
                    && shown.text.ends_with(ANSWER_END),
                "{n}"
            );
        });
        wait_for("the answers", join_all(ends)).await;
        let is_idle = |status: &Value| status["providers"][0]["in_flight"] == 0;
        let status = self
            .service
            .wait_for_status("no running call", is_idle)
            .await;
        let provider = &status["providers"][0];
        assert_eq!(provider["counts"]["failure"], 0, "{provider}");
        assert_eq!(
            (&provider["state"], &provider["retry_at"]),
            (&json!("closed"), &Value::Null),
            "{provider}"
        );
        provider.clone()
    }
}

/// Asks a question and reads the start of the answer.
async fn start_answer(n: usize, mut visitor: Visitor) -> Reading {
    let mut shown = ShownTurn::default();
    visitor.send_message(&question(n)).await;
    visitor
        .read_at_least(
            &mut shown,
            answer_start(&question(n)).len() + DRIPPED_WORD.len(),
        )
        .await;
    (n, visitor, shown)
}

/// Reads on for [`STOPPED_FOR`], then resumes the thread. Returns each visitor's longest silence.
async fn read_while_stopped(reading: &mut [Reading], stopped: StoppedThread) -> Vec<Duration> {
    let started = Instant::now();
    // The visitors who still receive words notice when the time is over.
    let stopped = Mutex::new(Some(stopped));
    let reads = reading.iter_mut().map(async |(_, visitor, shown)| {
        let mut last_read = started;
        let mut silence = Duration::ZERO;
        while started.elapsed() < STOPPED_FOR {
            visitor.read_at_least(shown, shown.text.len() + 1).await;
            silence = silence.max(last_read.elapsed());
            last_read = Instant::now();
        }
        drop(stopped.lock().unwrap().take());
        silence
    });
    join_all(reads).await
}

async fn stop_thread(thread: i32) -> Option<StoppedThread> {
    let stopped = StoppedThread::stop(thread).await;
    if stopped.is_none() {
        println!("NOT RUN: the system does not permit to stop a thread");
    }
    stopped
}

#[tokio::test]
async fn a_blocked_worker_delays_only_its_own_visitors_and_trips_no_breaker() {
    let _exclusive = exclusive().await;
    let mut setup = Setup::start().await;
    let workers = threads_named(setup.service.pid(), WORKER_THREAD);
    assert_eq!(workers.len(), 2, "{workers:?}");
    let Some(stopped) = stop_thread(workers[0]).await else {
        return;
    };
    let started = Instant::now();
    let idle = std::mem::take(&mut setup.idle).into_iter().enumerate();
    let asked = idle
        .map(async |(n, visitor)| (start_answer(VISITORS + n, visitor).await, started.elapsed()));
    let (silences, asked) = tokio::join!(
        read_while_stopped(&mut setup.reading, stopped),
        join_all(asked)
    );
    let first_words: Vec<_> = asked.iter().map(|(_, took)| *took).collect();
    setup
        .reading
        .extend(asked.into_iter().map(|(reading, _)| reading));
    for (what, times) in [("went on", silences), ("were started", first_words)] {
        let (on_time, late): (Vec<_>, Vec<_>) =
            times.into_iter().partition(|took| *took < NORMAL_DELAY);
        println!(
            "{} answers {what} while a worker was stopped, and {} after",
            on_time.len(),
            late.len()
        );
        // Actix assigns connections to the workers in turn.
        assert!(
            on_time.len() >= VISITORS / 3 && late.len() >= VISITORS / 3,
            "{on_time:?} {late:?}"
        );
        assert!(
            late.iter().all(|took| *took < STOPPED_FOR + NORMAL_DELAY),
            "{late:?}"
        );
    }
    let provider = setup.assert_all_answers_complete().await;
    assert_eq!(provider["counts"]["success"], 2 * VISITORS, "{provider}");
    let slowest = provider["latency_ms"]["first_token"]["p99"]
        .as_u64()
        .unwrap();
    assert!(
        u128::from(slowest) < STOPPED_FOR.as_millis(),
        "its first tokens are known as slow: {provider}"
    );
    assert_eq!(setup.service.stop().await.code, Some(0));
}

/// Real providers keep connections alive. Each worker has a pool of its own, so that no visitor
/// waits for a connection of a stopped worker.
#[tokio::test]
async fn a_blocked_worker_keeps_no_connections_from_other_workers() {
    let _exclusive = exclusive().await;
    let folder = TempDir::new().unwrap();
    let config = format!(
        "server.workers = 2\n[[providers]]\nname = \"kept\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n\
         model = \"kept-1\"\napi_key = \"a-key\"\nmax_concurrent = 10000\n{UNLIMITED}",
        start_keep_alive_provider().await
    );
    let service = Service::start(folder.path(), &config).await;
    let mut visitors = connect_visitors(service.port, VISITORS).await;
    // Makes each worker open connections that it keeps alive.
    join_all(visitors.iter_mut().map(|visitor| visitor.ask("before"))).await;
    let Some(stopped) = stop_thread(threads_named(service.pid(), WORKER_THREAD)[0]).await else {
        return;
    };
    let started = Instant::now();
    let stopped = Mutex::new(Some(stopped));
    let mut on_time = 0;
    let mut late = 0;
    let asked = visitors.iter_mut().map(async |visitor| {
        visitor.ask("meanwhile").await;
        started.elapsed()
    });
    let mut asked = asked.collect::<FuturesUnordered<_>>();
    loop {
        match tokio::time::timeout_at((started + STOPPED_FOR).into(), asked.next()).await {
            Ok(Some(_)) => on_time += 1,
            Ok(None) => break,
            Err(_) => {
                drop(stopped.lock().unwrap().take());
                late = asked.by_ref().collect::<Vec<_>>().await.len();
                break;
            }
        }
    }
    println!("{on_time} visitors were answered while a worker was stopped, and {late} after");
    assert_eq!((on_time, late), (VISITORS / 2, VISITORS / 2));
}

/// Starts a provider that answers each question and keeps its connections alive. Returns its port.
async fn start_keep_alive_provider() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Ok(Some(_)) = read_request(&mut stream).await {
                    let body = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Yes.\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {length}\r\n\r\n{body}"
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn with_blocked_actors_running_answers_continue_and_new_ones_are_labelled() {
    let _exclusive = exclusive().await;
    let mut setup = Setup::start().await;
    // The actors run on the main thread, whose id is that of the process.
    let Some(stopped) = stop_thread(i32::try_from(setup.service.pid()).unwrap()).await else {
        return;
    };
    let started = Instant::now();
    let idle = std::mem::take(&mut setup.idle).into_iter().enumerate();
    let asked = idle.map(async |(n, mut visitor)| {
        let shown = visitor.ask(&question(VISITORS + n)).await;
        (visitor, shown, started.elapsed())
    });
    let (silences, mut asked) = tokio::join!(
        read_while_stopped(&mut setup.reading, stopped),
        join_all(asked)
    );
    assert!(
        silences.iter().all(|silence| *silence < NORMAL_DELAY),
        "{silences:?}"
    );
    for (_, shown, took) in &asked {
        assert_eq!(
            (shown.done_field("degraded"), shown.done_field("attempts")),
            (&json!(true), &json!(0)),
            "{shown:?}"
        );
        assert!(*took < NORMAL_DELAY, "a labelled answer after {took:?}");
    }
    let slowest = asked.iter().map(|(.., took)| *took).max().unwrap();
    println!(
        "labelled answers within {} while the actors was stopped",
        ms(slowest)
    );
    setup.assert_all_answers_complete().await;
    let (visitor, ..) = &mut asked[0];
    assert_eq!(*visitor.ask("now").await.done_field("source"), "ai");
    assert_eq!(setup.service.stop().await.code, Some(0));
}

/// More visitors ask than the RouterActor's mailbox admits, while the actors' thread is stopped.
#[tokio::test]
async fn a_full_actor_mailbox_leads_to_labelled_answers() {
    let _exclusive = exclusive().await;
    if !raise_open_file_limit(OPEN_FILES).await {
        return;
    }
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Behavior::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitors = connect_visitors(service.port, CROWD).await;
    let Some(stopped) = stop_thread(i32::try_from(service.pid()).unwrap()).await else {
        return;
    };
    let asked = visitors
        .iter_mut()
        .enumerate()
        .map(async |(n, visitor)| visitor.ask(&question(n)).await);
    let answers = join_all(asked).await;
    drop(stopped);
    for shown in &answers {
        assert_eq!(
            (shown.done_field("degraded"), shown.done_field("attempts")),
            (&json!(true), &json!(0)),
            "{shown:?}"
        );
    }
    let slowest = answers
        .iter()
        .map(|shown| shown.done_field("total_ms").as_u64().unwrap())
        .max()
        .unwrap();
    println!("{CROWD} labelled answers without an actor, the slowest after {slowest} ms");
    assert!(slowest < 5_000, "{slowest} ms");
    let asking = async { while *visitors[0].ask("now").await.done_field("source") != "ai" {} };
    wait_for("an answer by the provider", asking).await;
    assert_eq!(service.stop().await.code, Some(0));
}
