//! A thread of the service stands still for three seconds, as under a call that blocks, or all of it does, as on a machine that sleeps. Who is
//! served on another thread does not notice; who is not is answered after. Nothing is lost or torn, and no provider is blamed.
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

use super::many_connections::may_open;
use super::memory::come;
use super::provider::{END, Manner, Provider, UNLIMITED, WORD, first, question, read_request};
use super::service::{Service, ms};
use super::stopped_thread::{Held, threads};
use super::ws_client::{Shown, Visitor};
use super::{alone, within};

/// For how long it stands still.
const STILL: Duration = Duration::from_secs(3);

/// How long a provider may be silent: less than that.
const PATIENCE: &str = "1s";

/// From word to word of each answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers under way, and as many visitors who will ask.
const VISITORS: usize = 60;

/// Longer than a word takes however busy the machine, and less than the standstill.
const USUAL: Duration = Duration::from_secs(2);

/// What the threads of workers are called, by as much of it as the system keeps.
const WORKER: &str = "actix-rt|system";

/// Who asks at once: more than may wait for an actor.
const CROWD: usize = 1_200;

/// Files of this process or of the service.
const FILES: u64 = 2_000;

/// The n-th visitor, and their answer as far as they read it.
type Reading = (usize, Visitor, Shown);

/// A service with two workers, answers under way, and visitors who have not asked yet.
struct Scene {
    _folder: TempDir,
    provider: Provider,
    service: Service,
    reading: Vec<Reading>,
    idle: Vec<Visitor>,
}

impl Scene {
    async fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let provider = Provider::start(Manner::Drip(PAUSE)).await;
        let patience = format!("first_token = \"{PATIENCE}\", stall = \"{PATIENCE}\"");
        let config = provider
            .config()
            .replace("first_token = \"60s\", stall = \"60s\"", &patience);
        // It would open soon.
        let eager = "breaker = { consecutive_failures = 3, min_calls = 5 }\n[limits]";
        let config = format!("server.workers = 2\n{}", config.replace("[limits]", eager));
        let service = Service::start(folder.path(), &config).await;
        let reading = come(service.port, VISITORS).await.into_iter().enumerate();
        let reading = join_all(reading.map(|(n, visitor)| begin(n, visitor))).await;
        let idle = come(service.port, VISITORS).await;
        Self {
            _folder: folder,
            provider,
            service,
            reading,
            idle,
        }
    }

    /// Every answer is whole, by the first attempt; gives what becomes of the provider.
    async fn ends_well(&mut self) -> Value {
        self.provider.now(Manner::Answer);
        let ends = self.reading.iter_mut().map(async |(n, visitor, shown)| {
            visitor.read(shown, usize::MAX).await;
            let end = ["source", "finish", "attempts"].map(|field| shown.end(field).clone());
            assert_eq!(
                end,
                [json!("ai"), json!("stop"), json!(1)],
                "{n}: {shown:?}"
            );
            assert!(
                shown.text.starts_with(&first(&question(*n))) && shown.text.ends_with(END),
                "{n}"
            );
        });
        within("the answers", join_all(ends)).await;
        let quiet = |status: &Value| status["providers"][0]["in_flight"] == 0;
        let status = self.service.status_when("no call under way", quiet).await;
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

/// Asks, and reads the beginning of the answer.
async fn begin(n: usize, mut visitor: Visitor) -> Reading {
    let mut shown = Shown::default();
    visitor.send(&question(n)).await;
    visitor
        .read(&mut shown, first(&question(n)).len() + WORD.len())
        .await;
    (n, visitor, shown)
}

/// Reads on for as long as `held` is to stand still, and lets it go then. Gives how long each heard nothing, at the longest.
async fn read_on(reading: &mut [Reading], held: Held) -> Vec<Duration> {
    let begun = Instant::now();
    // The words of those who hear some are what tells that the time is over.
    let held = Mutex::new(Some(held));
    let on = reading.iter_mut().map(async |(_, visitor, shown)| {
        let (mut heard, mut silence) = (begun, Duration::ZERO);
        while begun.elapsed() < STILL {
            visitor.read(shown, shown.text.len() + 1).await;
            silence = silence.max(heard.elapsed());
            heard = Instant::now();
        }
        drop(held.lock().unwrap().take());
        silence
    });
    join_all(on).await
}

async fn hold(thread: i32) -> Option<Held> {
    let held = Held::hold(thread).await;
    if held.is_none() {
        println!("NOT RUN: the system does not permit to hold a thread");
    }
    held
}

#[tokio::test]
async fn a_worker_holds_up_its_own_and_no_provider_is_blamed() {
    let _alone = alone().await;
    let mut scene = Scene::open().await;
    let workers = threads(scene.service.pid(), WORKER);
    assert_eq!(workers.len(), 2, "{workers:?}");
    let Some(held) = hold(workers[0]).await else {
        return;
    };
    let begun = Instant::now();
    let idle = std::mem::take(&mut scene.idle).into_iter().enumerate();
    let asked =
        idle.map(async |(n, visitor)| (begin(VISITORS + n, visitor).await, begun.elapsed()));
    let (silences, asked) = tokio::join!(read_on(&mut scene.reading, held), join_all(asked));
    let first_words: Vec<_> = asked.iter().map(|(_, took)| *took).collect();
    scene
        .reading
        .extend(asked.into_iter().map(|(reading, _)| reading));
    for (what, times) in [("went on", silences), ("were begun", first_words)] {
        let (usual, late): (Vec<_>, Vec<_>) = times.into_iter().partition(|took| *took < USUAL);
        println!(
            "{} answers {what} while a worker stood still, and {} after",
            usual.len(),
            late.len()
        );
        // Each worker has its visitors in turn.
        assert!(
            usual.len() >= VISITORS / 3 && late.len() >= VISITORS / 3,
            "{usual:?} {late:?}"
        );
        assert!(late.iter().all(|took| *took < STILL + USUAL), "{late:?}");
    }
    let provider = scene.ends_well().await;
    assert_eq!(provider["counts"]["success"], 2 * VISITORS, "{provider}");
    let slowest = provider["latency_ms"]["first_token"]["p99"]
        .as_u64()
        .unwrap();
    assert!(
        u128::from(slowest) < STILL.as_millis(),
        "its first tokens are known as slow: {provider}"
    );
    assert_eq!(scene.service.stop().await.code, Some(0));
}

/// A provider with whom connections are kept, as with all real ones: whoever opened one, it is not others that wait for it.
#[tokio::test]
async fn a_connection_that_is_kept_is_of_the_worker_that_opened_it() {
    let _alone = alone().await;
    let folder = TempDir::new().unwrap();
    let config = format!(
        "server.workers = 2\n[[providers]]\nname = \"kept\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n\
         model = \"kept-1\"\napi_key = \"a-key\"\nmax_concurrent = 10000\n{UNLIMITED}",
        keeping().await
    );
    let service = Service::start(folder.path(), &config).await;
    let mut visitors = come(service.port, VISITORS).await;
    // Each worker has connections that are kept.
    join_all(visitors.iter_mut().map(|visitor| visitor.ask("before"))).await;
    let Some(held) = hold(threads(service.pid(), WORKER)[0]).await else {
        return;
    };
    let (begun, held) = (Instant::now(), Mutex::new(Some(held)));
    let (mut usual, mut late) = (0, 0);
    let asked = visitors.iter_mut().map(async |visitor| {
        visitor.ask("meanwhile").await;
        begun.elapsed()
    });
    let mut asked = asked.collect::<FuturesUnordered<_>>();
    loop {
        match tokio::time::timeout_at((begun + STILL).into(), asked.next()).await {
            Ok(Some(_)) => usual += 1,
            Ok(None) => break,
            Err(_) => {
                drop(held.lock().unwrap().take());
                late = asked.by_ref().collect::<Vec<_>>().await.len();
                break;
            }
        }
    }
    println!("{usual} visitors were answered while a worker stood still, and {late} after");
    assert_eq!((usual, late), (VISITORS / 2, VISITORS / 2));
}

/// Answers each question on every connection, and keeps it.
async fn keeping() -> u16 {
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
async fn without_the_actors_answers_go_on_and_new_ones_are_labelled() {
    let _alone = alone().await;
    let mut scene = Scene::open().await;
    // They are all on the thread on which the process began.
    let Some(held) = hold(i32::try_from(scene.service.pid()).unwrap()).await else {
        return;
    };
    let begun = Instant::now();
    let idle = std::mem::take(&mut scene.idle).into_iter().enumerate();
    let asked = idle.map(async |(n, mut visitor)| {
        let shown = visitor.ask(&question(VISITORS + n)).await;
        (visitor, shown, begun.elapsed())
    });
    let (silences, mut asked) = tokio::join!(read_on(&mut scene.reading, held), join_all(asked));
    assert!(
        silences.iter().all(|silence| *silence < USUAL),
        "{silences:?}"
    );
    for (_, shown, took) in &asked {
        assert_eq!(
            (shown.end("degraded"), shown.end("attempts")),
            (&json!(true), &json!(0)),
            "{shown:?}"
        );
        assert!(*took < USUAL, "a labelled answer after {took:?}");
    }
    let slowest = asked.iter().map(|(.., took)| *took).max().unwrap();
    println!(
        "labelled answers within {} while the actors stood still",
        ms(slowest)
    );
    scene.ends_well().await;
    let (visitor, ..) = &mut asked[0];
    assert_eq!(*visitor.ask("now").await.end("source"), "ai");
    assert_eq!(scene.service.stop().await.code, Some(0));
}

/// More ask than may wait for the RouterActor, while it hears nobody: each is told soon what can be told without it.
#[tokio::test]
async fn who_finds_an_actors_mailbox_full_gets_a_labelled_answer() {
    let _alone = alone().await;
    if !may_open(FILES).await {
        return;
    }
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    let service = Service::start(folder.path(), &provider.config()).await;
    let mut visitors = come(service.port, CROWD).await;
    let Some(held) = hold(i32::try_from(service.pid()).unwrap()).await else {
        return;
    };
    let asked = visitors
        .iter_mut()
        .enumerate()
        .map(async |(n, visitor)| visitor.ask(&question(n)).await);
    let answers = join_all(asked).await;
    drop(held);
    for shown in &answers {
        assert_eq!(
            (shown.end("degraded"), shown.end("attempts")),
            (&json!(true), &json!(0)),
            "{shown:?}"
        );
    }
    let slowest = answers
        .iter()
        .map(|shown| shown.end("total_ms").as_u64().unwrap())
        .max()
        .unwrap();
    println!("{CROWD} labelled answers without an actor, the slowest after {slowest} ms");
    assert!(slowest < 5_000, "{slowest} ms");
    let asking = async { while *visitors[0].ask("now").await.end("source") != "ai" {} };
    within("an answer by the provider", asking).await;
    assert_eq!(service.stop().await.code, Some(0));
}

#[tokio::test]
async fn all_of_it_goes_on_where_it_was() {
    let _alone = alone().await;
    let mut scene = Scene::open().await;
    scene.service.signal("STOP").await;
    // What was on its way comes, and then nothing any more.
    let begun = tokio::time::Instant::now();
    let silence = scene.reading.iter_mut().map(async |(_, visitor, shown)| {
        tokio::time::timeout_at(begun + STILL, visitor.read(shown, usize::MAX))
            .await
            .is_err()
    });
    assert!(join_all(silence).await.into_iter().all(|silent| silent));
    scene.service.signal("CONT").await;
    scene.ends_well().await;
    assert_eq!(scene.service.stop().await.code, Some(0));
}

/// A connect has a limit of its own, under which it had no time here: the next one answers, and the first is blamed only where it was waited for.
#[tokio::test]
async fn a_connect_that_had_no_time_is_no_fault_of_the_provider() {
    let folder = TempDir::new().unwrap();
    let provider = Provider::start(Manner::Answer).await;
    // It takes connections, and gets on with no handshake.
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[[providers]]\nname = \"stuck\"\ndialect = \"openai\"\nbase_url = \"https://127.0.0.1:{}/v1\"\nmodel = \"stuck-1\"\n\
         api_key = \"a-key\"\ntimeouts = {{ connect = \"2s\" }}\n{}",
        stuck.local_addr().unwrap().port(),
        provider.config()
    );
    let service = Service::start(folder.path(), &config).await;
    let mut visitor = Visitor::new(service.port).await;
    for (stands_still, failures) in [(true, 0), (false, 1)] {
        let mut shown = Shown::default();
        visitor.send("who answers?").await;
        let _connection = within("the connect", stuck.accept()).await.unwrap();
        if stands_still {
            service.signal("STOP").await;
            let silence = tokio::time::timeout(STILL, visitor.read(&mut shown, usize::MAX));
            assert!(silence.await.is_err(), "it answered while it stood still");
            service.signal("CONT").await;
        }
        visitor.read(&mut shown, usize::MAX).await;
        let outcome = &shown.end("tried")[0]["outcome"];
        assert_eq!(
            (outcome, shown.text.ends_with(END)),
            (&json!("timeout"), true),
            "{shown:?}"
        );
        let quiet = |status: &Value| status["providers"][0]["in_flight"] == 0;
        let status = service.status_when("no call under way", quiet).await;
        assert_eq!(
            status["providers"][0]["counts"]["failure"], failures,
            "{status}"
        );
    }
}
