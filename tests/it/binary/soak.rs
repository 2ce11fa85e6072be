//! The binary under random traffic for minutes: conversations, faults of providers, cuts of lines, stops, pages that leave, reloads, outage drills.
//! At the end all is as it was at the start, and every question has its one answer, none of them torn.
//!
//! Run by `tests/soak.sh MINUTES`.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::interval;

use super::alone;
use super::http::{Answer, request};
use super::provider::{Manner, Provider, UNLIMITED, whole};
use super::service::Service;
use super::within;
use super::ws_client::{Shown, Visitor};

/// Who asks at once.
const VISITORS: u64 = 24;

/// How long each waits between two of its turns.
const PAUSE: Duration = Duration::from_millis(40);

/// What is left over may be so much: what the allocator keeps for its threads once they were busy, and what the store caches. It is
/// reached within the first 50,000 questions and hardly grows from there.
const MEMORY_KIB: u64 = 48 * 1024;

/// On top of that the store keeps in memory where each record lies, about 150 bytes a question: a KiB for so many.
const INDEXED: u64 = 8;

/// Who may order drills.
const TOKEN: &str = "admin-canary";

/// What a drill can do, all of it.
const DRILLED: [&str; 8] = [
    "down",
    "rate_limit",
    "unauthorized",
    "timeout",
    "stall",
    "cut",
    "garbage",
    "slow",
];

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

struct Chance(u64);

impl Chance {
    fn of(&mut self, count: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

fn config(providers: &[Provider]) -> String {
    let entries = NAMES.iter().zip(providers).map(|(name, provider)| {
        format!(
            r#"
[[providers]]
name = "{name}"
dialect = "openai"
base_url = "{}"
model = "{name}-1"
api_key = "a-key"
timeouts = {{ connect = "1s", first_token = "1s", stall = "1s" }}
breaker = {{ open_for = "500ms", open_max = "1s", blocked_for = "1s" }}
"#,
            provider.base_url()
        )
    });
    // Late answers would be turns that nobody counted.
    format!(
        "server.admin_token = \"{TOKEN}\"\ndegradation = {{ outbox = false }}\n{}{UNLIMITED}",
        entries.collect::<String>()
    )
}

/// What the process has in its hands.
#[derive(Debug)]
struct Level {
    descriptors: usize,
    threads: u64,
    memory_kib: u64,
}

fn level(service: &Service) -> Level {
    let process = format!("/proc/{}", service.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap_or_else(|| line.trim())
            .parse()
            .unwrap_or_else(|_| {
                line.split_whitespace()
                    .find_map(|word| word.parse().ok())
                    .unwrap()
            })
    };
    Level {
        descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
        threads: field("Threads:"),
        memory_kib: field("VmRSS:"),
    }
}

/// The sum over all lines of a metric.
async fn metric(service: &Service, name: &str) -> f64 {
    let text = service.get("/metrics").await.body;
    let values = text.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
    });
    values
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[derive(Default)]
struct Done {
    asked: u64,
    ai: u64,
    degraded: u64,
    stopped: u64,
    cuts: u64,
    left: u64,
    drafts: usize,
    /// Each conversation, and how many questions it was asked.
    conversations: Vec<(String, usize)>,
}

/// One visitor, until the time is over.
async fn visits(port: u16, mut chance: Chance, until: Instant) -> Done {
    let mut done = Done::default();
    let mut visitor = Visitor::new(port).await;
    let mut asked = 0;
    let mut every = interval(PAUSE);
    while Instant::now() < until {
        every.tick().await;
        let question = format!("question {} of {}", done.asked, chance.of(u64::MAX >> 33));
        visitor.send(&question).await;
        (done.asked, asked) = (done.asked + 1, asked + 1);
        let mut shown = Shown::default();
        match chance.of(10) {
            0 => {
                visitor.read(&mut shown, 1).await;
                let turn = shown.turn().to_owned();
                visitor.say(json!({ "type": "stop", "turn": turn })).await;
            }
            1 | 2 => {
                // The line is cut in mid-answer, and the page comes back to where it stands.
                visitor.read(&mut shown, 1).await;
                done.cuts += 1;
                if shown.done.is_none() {
                    let resume = json!({ "turn": shown.turn(), "seq": shown.seq });
                    let hello = json!({ "conversation": visitor.conversation(), "resume": resume });
                    visitor = Visitor::enter(port, hello).await;
                }
            }
            _ => {}
        }
        visitor.read(&mut shown, usize::MAX).await;
        done.drafts += shown.end("drafts").as_array().unwrap().len();
        match (shown.end("source").as_str(), shown.end("finish").as_str()) {
            (Some("ai"), Some("stop")) => {
                assert_eq!(shown.text, whole(&question), "a torn answer");
                done.ai += 1;
            }
            (Some("ai"), Some("stopped")) => done.stopped += 1,
            (Some("template" | "fallback"), Some("stop")) => {
                assert_eq!(shown.end("degraded"), true);
                done.degraded += 1;
            }
            other => panic!("{other:?}"),
        }
        // Before the history that a page is shown is full, by which it names its messages.
        if chance.of(12) == 0 || asked == 90 {
            done.left += 1;
            done.conversations
                .push((visitor.conversation().to_owned(), asked));
            visitor = Visitor::new(port).await;
            asked = 0;
        }
    }
    done.conversations
        .push((visitor.conversation().to_owned(), asked));
    done
}

/// Providers come and go, and the service is told to read its files again.
async fn weather(service: &Service, providers: &[Provider], mut chance: Chance) {
    let error = json!({ "error": { "message": "no" } });
    let mut every = interval(Duration::from_millis(150));
    loop {
        every.tick().await;
        let manner = match chance.of(12) {
            0 => Manner::Refuse(503, error.clone()),
            1 => Manner::Refuse(429, error.clone()),
            2 => Manner::Refuse(401, error.clone()),
            3 => Manner::Cut,
            4 => Manner::Pause,
            5 => Manner::Pour(1),
            _ => Manner::Answer,
        };
        providers[usize::try_from(chance.of(3)).unwrap()].now(manner);
        if chance.of(40) == 0 {
            service.signal("HUP").await;
        }
    }
}

/// Gives an order as the operator.
async fn order(service: &Service, method: &str, path: &str, body: &str) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    );
    request(service.port, &head, body).await.unwrap()
}

/// Outage drills of all kinds, one after the other, some at all calls and some at a share; most end by themselves, some are ended.
async fn drills(service: &Service, mut chance: Chance) {
    let mut every = interval(Duration::from_secs(2));
    loop {
        every.tick().await;
        let mut of = |count| usize::try_from(chance.of(count)).unwrap();
        let (provider, fault) = (NAMES[of(3)], DRILLED[of(8)]);
        let (share, lasts) = ([0.3, 1.0][of(2)], ["500ms", "1s", "3s"][of(3)]);
        let wanted = json!({ "provider": provider, "fault": fault, "for": lasts, "share": share });
        let told = order(service, "POST", "/admin/drills", &wanted.to_string()).await;
        // The one before may run yet.
        assert!(told.status == 200 || told.status == 409, "{}", told.body);
        if of(3) == 0 {
            let told = order(service, "DELETE", "/admin/drills", "").await;
            assert_eq!(told.status, 200, "{}", told.body);
        }
    }
}

/// Ends what drills run; gives how many there are reports of.
async fn drills_ended(service: &Service) -> usize {
    let told = order(service, "DELETE", "/admin/drills", "").await;
    assert_eq!(told.status, 200, "{}", told.body);
    let list = order(service, "GET", "/admin/drills", "").await.json();
    assert_eq!(list["running"], json!([]));
    // The status is made anew a few times a second.
    service
        .status_when("no drill in the status", |status| status["drill"].is_null())
        .await;
    list["reports"].as_array().unwrap().len()
}

async fn traffic(
    service: &Service,
    providers: &[Provider],
    seed: u64,
    time: Duration,
) -> Vec<Done> {
    let until = Instant::now() + time;
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| tokio::spawn(visits(service.port, Chance(seed * 1_000 + number), until)))
        .collect();
    let visiting = async {
        join_all(visitors)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect()
    };
    tokio::select! {
        done = visiting => done,
        () = weather(service, providers, Chance(seed)) => unreachable!("it has no end"),
        () = drills(service, Chance(seed)) => unreachable!("it has no end"),
    }
}

/// All is quiet again: no session, no turn, no call.
async fn at_rest(service: &Service) {
    let resting = async {
        while metric(service, "failsoft_sessions").await > 0.0
            || metric(service, "failsoft_turns_in_flight").await > 0.0
        {
            tokio::task::yield_now().await;
        }
    };
    within("rest", resting).await;
    let rest = |status: &Value| {
        status["providers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["in_flight"] == 0 && one["state"] == "closed")
    };
    service
        .status_when("every permit back and every breaker closed", rest)
        .await;
}

#[tokio::test]
#[ignore = "runs for minutes: tests/soak.sh MINUTES"]
async fn soak() {
    let _alone = alone().await;
    let minutes = std::env::var("FAILSOFT_SOAK_MINUTES").map_or(1.0, |text| text.parse().unwrap());
    let seed = std::env::var("FAILSOFT_SOAK_SEED").map_or(7, |text| text.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let mut providers = Vec::new();
    for _ in 0..3 {
        providers.push(Provider::start(Manner::Answer).await);
    }
    let mut service = Service::start(folder.path(), &config(&providers)).await;
    let calm = || {
        providers
            .iter()
            .for_each(|provider| provider.now(Manner::Answer))
    };

    // What is made once, and kept, is made before the start's level is taken.
    let mut all = traffic(&service, &providers, seed, Duration::from_secs(10)).await;
    calm();
    drills_ended(&service).await;
    at_rest(&service).await;
    let before = level(&service);
    all.extend(
        traffic(
            &service,
            &providers,
            seed + 1,
            Duration::from_secs_f64(60.0 * minutes),
        )
        .await,
    );
    calm();
    let reports = drills_ended(&service).await;
    at_rest(&service).await;
    // What blocks is done by a pool, which lets go of threads that had nothing to do for ten seconds.
    let most = before.threads + 8;
    let idle = async {
        while level(&service).threads > most {
            tokio::task::yield_now().await;
        }
    };
    within("the pool to let go of its threads", idle).await;
    let after = level(&service);

    let sum = |of: fn(&Done) -> u64| all.iter().map(of).sum::<u64>();
    let asked = sum(|done| done.asked);
    println!("soak of {minutes} minutes, seed {seed}, {VISITORS} visitors, 3 providers");
    println!(
        "  questions {asked}: by AI {}, labelled {}, stopped {}; drafts {}",
        sum(|done| done.ai),
        sum(|done| done.degraded),
        sum(|done| done.stopped),
        all.iter().map(|done| done.drafts).sum::<usize>()
    );
    println!(
        "  lines cut {}, conversations left {}",
        sum(|done| done.cuts),
        sum(|done| done.left)
    );
    println!("  drills that there are reports of {reports}");
    println!("  at the start {before:?}");
    println!("  at the end   {after:?}");
    let ended = metric(&service, "failsoft_turns_total").await;
    println!("  turns ended by the metrics {ended}, in flight 0");
    #[allow(clippy::cast_precision_loss, reason = "far below what is exact")]
    let begun = asked as f64;
    assert!(
        (ended - begun).abs() < 0.5,
        "turns begun are those ended: {begun} and {ended}"
    );
    // Connections to providers that are kept open are a few.
    assert!(
        after.descriptors <= before.descriptors + 16,
        "descriptors: {before:?}, {after:?}"
    );
    assert!(after.threads <= most, "threads: {before:?}, {after:?}");
    let grown = MEMORY_KIB + asked / INDEXED;
    assert!(
        after.memory_kib <= before.memory_kib + grown,
        "memory: {before:?}, {after:?}"
    );

    // None lost: each conversation has all that it was asked, each with its end.
    let mut kept = 0;
    for (conversation, count) in all.iter().flat_map(|done| &done.conversations) {
        let visitor = Visitor::back(service.port, conversation).await;
        assert_eq!(
            visitor.history().len(),
            (*count).min(100),
            "questions of a conversation"
        );
        assert!(
            visitor
                .history()
                .iter()
                .all(|turn| turn["state"] == "done" && turn["text"].is_string())
        );
        kept += count;
    }
    println!(
        "  conversations with all their turns {}, {kept} turns",
        all.iter()
            .map(|done| done.conversations.len())
            .sum::<usize>()
    );
    assert!(!service.is_over());
    let ended = service.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.err.contains("panicked"), "something panicked");
}
